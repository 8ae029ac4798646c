"""Every family's logits are those of Hugging Face transformers in float32, on every back end.

The fixtures are made by `python -m tools.conformance record`; `make conformance` compares live.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from gangline.checkpoint.families import FAMILIES
from tests.engine.conformance import CONTEXT, Case, decode_error, lanes_error, prefill_error
from tests.engine.steps import Chain
from tests.make_checkpoint import write_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "families"
NAMES = sorted(file.stem for file in FIXTURES.glob("*.npz"))
BOUND = 1e-4  # of the largest logit

# What a back end needs besides gangline itself.
BACKENDS = {
    "reference": "numpy",
    "cpu": "gangline._kernels",
    "mlx": "mlx",
    "torch": "torch",
}

# Families that the kernels can run so far.
ON_CPU = {"llama", "qwen3", "olmo2", "granite", "smollm3"}


# Back ends that compute in the precision of the weights: they get the same values as float32.
IN_WEIGHTS_PRECISION = {"mlx", "torch"}
ROUNDED_BOUND = 0.02  # of half of the rows, with the weights in the bf16 that the fixtures have


def read_case(name: str, folder: Path, *, in_f32: bool = False) -> Case:
    """A fixture's checkpoint, written into `folder`, with its prompts and logits."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = dict(file)
    (folder / "config.json").write_bytes(arrays["config"].tobytes())
    weights = {
        path.removeprefix("weights/"): array
        for path, array in arrays.items()
        if path.startswith("weights/")
    }
    if in_f32:
        weights = {
            path: (array.astype(np.uint32) << 16).view(np.float32)
            for path, array in weights.items()
        }
    write_safetensors(folder / "model.safetensors", weights)
    numbers = range(sum(path.startswith("ids/") for path in arrays))
    return Case(
        folder,
        [arrays[f"ids/{number}"] for number in numbers],
        [arrays[f"logits/{number}"] for number in numbers],
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(
    tmp_path: Path, name: str, backend: str, request: pytest.FixtureRequest
) -> None:
    """Prefill in one step, token by token, and lanes of different lengths in one batch."""
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{BACKENDS[backend]} is not installed")
    if backend == "cpu" and name.partition("-")[0] not in ON_CPU:
        request.applymarker(pytest.mark.xfail(strict=True, reason="the kernels cannot yet"))
    case = read_case(name, tmp_path, in_f32=backend in IN_WEIGHTS_PRECISION)
    assert prefill_error(case, backend) <= BOUND
    assert decode_error(case, backend) <= BOUND
    assert lanes_error(case, backend) <= BOUND


@pytest.mark.parametrize("backend", sorted(IN_WEIGHTS_PRECISION))
@pytest.mark.parametrize("name", NAMES)
def test_logits_in_bf16_are_near(tmp_path: Path, name: str, backend: str) -> None:
    """Not all rows: a router's choice may tip over where two experts are nearly equal."""
    pytest.importorskip(BACKENDS[backend], reason=f"the extra `{backend}` is not installed")
    case = read_case(name, tmp_path)
    found = Chain(case.folder, backend=backend, context=CONTEXT).run(case.prompts[0].tolist())
    errors = np.abs(found - case.logits[0]).max(-1)
    assert np.median(errors) <= ROUNDED_BOUND * np.abs(case.logits[0]).max()


def test_every_family_has_a_fixture() -> None:
    assert {name.partition("-")[0] for name in NAMES} == set(FAMILIES)
    for name in NAMES:
        with np.load(FIXTURES / f"{name}.npz") as file:
            config = json.loads(file["config"].tobytes())
        architectures = FAMILIES[name.partition("-")[0]].architectures
        assert config["architectures"][0] in architectures, name


def test_fixtures_are_small() -> None:
    sizes = [(FIXTURES / f"{name}.npz").stat().st_size for name in NAMES]
    assert max(sizes) < 150_000 and sum(sizes) < 2_500_000
