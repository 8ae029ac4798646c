"""Quantized matrices as the libraries of their formats write them (recorded by
tools/conformance_quantized.py, which also compares whole models, live)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline.checkpoint.affine import ROUNDED_BOUND, values
from gangline.checkpoint.model import open_checkpoint

FIXTURE = Path(__file__).parents[1] / "fixtures" / "quantized.npz"
# Cases that become eight bits with a stated bound; what NVFP4's two scales make is rounded once.
BOUNDS = {
    "gptq-desc-act": ROUNDED_BOUND,
    "float8": ROUNDED_BOUND,
    "fp8": ROUNDED_BOUND,
    "nvfp4": 3e-7,
}


def recorded(name: str) -> dict[str, NDArray[Any]]:
    with np.load(FIXTURE) as file:
        return {key: file[f"{name}/{key}"] for key in ("file", "config", "name", "values")}


def names() -> list[str]:
    with np.load(FIXTURE) as file:
        return sorted({key.split("/")[0] for key in file})


def test_every_method_is_recorded() -> None:
    methods = {json.loads(recorded(name)["config"].tobytes())["quantization_config"]["quant_method"]
               for name in names()}  # fmt: skip
    assert methods == {"gptq", "awq", "compressed-tensors", "fp8", "mxfp4"}


@pytest.mark.parametrize("name", names())
def test_numbers_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    case = recorded(name)
    (tmp_path / "config.json").write_bytes(case["config"].tobytes())
    (tmp_path / "model.safetensors").write_bytes(case["file"].tobytes())
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.names == (str(case["name"]),)
    tensor = checkpoint.tensor(str(case["name"]))
    assert tensor.n_bytes <= checkpoint.sizes.layers[0], "the planner reckoned with less"
    found, expected = values(tensor), case["values"]
    bound = next((bound for kind, bound in BOUNDS.items() if name.startswith(kind)), 0.0)
    width = min(64, expected.shape[-1])
    errors = np.abs(found - expected).reshape(-1, width)
    largest = np.abs(expected).reshape(-1, width).max(-1, keepdims=True)
    assert found.shape == expected.shape
    assert (errors <= bound * (1 + 1e-6) * largest).all(), errors.max()
