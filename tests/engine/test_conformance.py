"""Every family's logits are those of Hugging Face transformers in float32, on every back end.

The fixtures are made by `python -m tools.conformance record`; `make conformance` compares live.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gangline.checkpoint.families import FAMILIES
from tests.engine.conformance import decode_error, lanes_error, prefill_error
from tests.engine.fixtures import FIXTURES, NAMES, family_of, read_case, read_fixture

BOUND = 1e-4  # of the largest logit

# What a back end needs besides gangline itself.
BACKENDS = {"reference": "numpy", "cpu": "gangline._kernels"}

# Families that the kernels can run so far.
ON_CPU = {"llama", "qwen3", "olmo2", "granite", "smollm3"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(
    tmp_path: Path, name: str, backend: str, request: pytest.FixtureRequest
) -> None:
    """Prefill in one step, token by token, and lanes of different lengths in one batch."""
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{BACKENDS[backend]} is not installed")
    if backend == "cpu" and family_of(name) not in ON_CPU:
        request.applymarker(pytest.mark.xfail(strict=True, reason="the kernels cannot yet"))
    case = read_case(name, tmp_path)
    assert prefill_error(case, backend) <= BOUND
    assert decode_error(case, backend) <= BOUND
    assert lanes_error(case, backend) <= BOUND


def test_every_family_has_a_fixture() -> None:
    assert {family_of(name) for name in NAMES} == set(FAMILIES)
    for name in NAMES:
        config, _, _ = read_fixture(name)
        assert config["architectures"][0] in FAMILIES[family_of(name)].architectures, name


def test_fixtures_are_small() -> None:
    sizes = [(FIXTURES / f"{name}.npz").stat().st_size for name in NAMES]
    assert max(sizes) < 150_000 and sum(sizes) < 2_500_000
