"""Random operands of tests, their values in float64, and how near a result must come."""

from __future__ import annotations

from typing import Any

import numpy as np

from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.operations import Batch
from tests.engine.steps import ints
from tests.make_checkpoint import cast

RNG = np.random.default_rng(7)
F32_BOUND = 2e-5  # of the largest result: sums of a few hundred products
BF16_BOUND = 2e-2


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def floats(values: np.ndarray, kind: str = "f32", name: str = "w") -> Tensor:
    return Tensor(name, kind, values.shape, cast(values, kind))


def values_of(tensor: Tensor) -> np.ndarray:
    """A dense tensor's values in float64."""
    data = tensor.data
    if tensor.dtype == "bf16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float64)


def affine(
    rows: int, columns: int, bits: int, group: int, kind: str = "f32"
) -> tuple[Tensor, np.ndarray]:
    """A random quantized matrix and its values; numbers are packed as one stream of bits."""
    q = RNG.integers(0, 2**bits, (rows, columns))
    scales, offsets = (
        floats(normal(rows, columns // group, scale=0.1), kind, name) for name in "so"
    )
    stream = (q[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(rows, -1)
    words = np.packbits(stream, axis=-1, bitorder="little").view(np.uint32)
    w = q.reshape(rows, -1, group) * values_of(scales)[..., None] + values_of(offsets)[..., None]
    form = GroupAffine(bits, group)
    tensor = Tensor("w", "u32", (rows, columns), words, form, scales, offsets)
    return tensor, w.reshape(rows, columns)


def agree(found: Any, expected: np.ndarray, bound: float = F32_BOUND) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def lanes_step(ops: Any, *sequences: tuple[int, int, int], context: int = 700) -> Any:
    """A prepared batch of (slot, start, count)."""
    slots, starts, counts = (ints(*column) for column in zip(*sequences, strict=True))
    return ops.batch(Batch.of(slots, starts, counts), 4, context)


# Steps of (slot, start, count) in which two lanes of 20 rows may come.
SCHEDULES = {
    "decode": [[(slot, position, 1)] for position in range(20) for slot in (3, 1)],
    "together": [[(1, position, 1), (3, position, 1)] for position in range(20)],
    "chunks": [[(3, 0, 13)], [(1, 0, 20)], [(3, 13, 7)]],
    "mixed": [
        [(1, 0, 5)],
        [(3, 0, 2), (1, 5, 1)],
        [(1, 6, 3), (3, 2, 3)],
        [(3, 5, 1), (1, 9, 10)],
        [(1, 19, 1), (3, 6, 14)],
    ],
}
