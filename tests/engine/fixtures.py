"""The fixtures of families as checkpoints, and changed ones: other names, other forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.engine.conformance import Case
from tests.make_checkpoint import write_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "families"
NAMES = sorted(file.stem for file in FIXTURES.glob("*.npz"))

Weights = dict[str, NDArray[Any]]


def family_of(name: str) -> str:
    """Of a fixture: `phi3` of `phi3-short`."""
    return name.partition("-")[0]


def read_fixture(name: str) -> tuple[dict[str, Any], Weights, Weights]:
    """Config; weights, bf16 as uint16; and the rest: `ids/0`, `logits/0` and so on."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = dict(file)
    config = json.loads(arrays.pop("config").tobytes())
    weights = {
        path.removeprefix("weights/"): arrays.pop(path)
        for path in list(arrays)
        if path.startswith("weights/")
    }
    return config, weights, arrays


def from_bf16(array: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (array.astype(np.uint32) << 16).view(np.float32)


def write_model(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    """A checkpoint in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def read_case(name: str, folder: Path, *, in_f32: bool = False) -> Case:
    """A fixture's checkpoint, written into `folder`, with its prompts and logits.

    `in_f32` writes the same numbers as float32, for back ends that compute in the weights' own
    precision.
    """
    config, weights, rest = read_fixture(name)
    if in_f32:
        weights = {path: from_bf16(array) for path, array in weights.items()}
    write_model(folder, config, weights)
    numbers = range(sum(path.startswith("ids/") for path in rest))
    return Case(
        folder,
        [rest[f"ids/{number}"] for number in numbers],
        [rest[f"logits/{number}"] for number in numbers],
    )
