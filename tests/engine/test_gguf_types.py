"""Every type of GGUF multiplies on every back end as the numbers that it means."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from gangline.checkpoint.blocks import DECODERS
from gangline.engine.backends import open_backend
from tests.checkpoint.test_blocks import convert, random_blocks

# Back end → what its products may be off, of the sum of magnitudes: activations of integer kernels
# are rounded to 1/127 of the largest in their group.
BOUNDS = {"reference": 1e-6, "cpu": 1 / 127}
ROWS, COLUMNS, TOKENS = 40, 512, 3
SMALL = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"}  # blocks of 32


@pytest.mark.parametrize("backend", BOUNDS)
@pytest.mark.parametrize("name", DECODERS)
def test_products_are_those_of_the_numbers(tmp_path: Path, name: str, backend: str) -> None:
    if backend == "cpu" and importlib.util.find_spec("gangline._kernels") is None:
        pytest.skip("the kernels are not built")
    blocks = random_blocks(name, ROWS * COLUMNS // (32 if name in SMALL else 256))
    if name == "MXFP4":
        blocks[:, 0] = 120 + blocks[:, 0] % 8
    tensor = convert(tmp_path, name, blocks, (ROWS, COLUMNS))
    numbers = dequantize(blocks.reshape(ROWS, -1), GGMLQuantizationType[name]).astype(np.float64)
    random = np.random.default_rng(1)
    x = random.standard_normal((TOKENS, COLUMNS)).astype(np.float32)
    operations = open_backend(backend, 1)
    weight = operations.weight(tensor)
    found = operations.to_numpy(operations.linear(operations.from_numpy(x), weight))
    magnitude = np.abs(x).astype(np.float64) @ np.abs(numbers).T
    largest = np.abs(x).max() * np.abs(numbers).sum(1)
    error = np.abs(found - x @ numbers.T)
    assert (error <= BOUNDS[backend] * np.maximum(magnitude, largest)).all()
    ids = np.array([0, 7, ROWS - 1], np.int32)
    rows = operations.to_numpy(operations.embed(operations.table(tensor), ids))
    np.testing.assert_allclose(rows, numbers[ids], rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BOUNDS)
def test_matrices_of_unlike_types_are_stacked(tmp_path: Path, backend: str) -> None:
    """Files mix types: values often have more bits than queries and keys, which go before them."""
    if backend == "cpu" and importlib.util.find_spec("gangline._kernels") is None:
        pytest.skip("the kernels are not built")
    names = ("Q4_K", "Q6_K", "Q8_0")
    parts = []
    for name in names:
        blocks = random_blocks(name, ROWS * COLUMNS // (32 if name in SMALL else 256))
        (tmp_path / name).mkdir()
        parts.append(convert(tmp_path / name, name, blocks, (ROWS, COLUMNS)))
    operations = open_backend(backend, 1)
    x = np.random.default_rng(1).standard_normal((TOKENS, COLUMNS)).astype(np.float32)
    alone = [operations.linear(x, operations.weight(part)) for part in parts]
    together = operations.linear(x, operations.weight(*parts))
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-5)
