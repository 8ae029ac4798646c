"""Arrays for kernel tests: numbers that can show a mistake, and guards around buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.backends.reference import dense, quantize_rows
from tests.make_checkpoint import quantize, to_bf16

F32 = NDArray[np.float32]

DTYPES = ("f32", "f16", "bf16", "q4", "q8")
QUANTS = ("q2", "q3", "q4", "q5", "q6", "q8")
GUARD = 64
_GUARD_VALUE = np.float32(-12345.678)


class Guarded:
    """A float32 array with guard numbers before and after it, at an address that is odd for
    vectors (4 bytes beyond a multiple of 64, mostly)."""

    def __init__(self, shape: tuple[int, ...], fill: F32 | float = 0.0) -> None:
        size = int(np.prod(shape))
        self._all = np.full(size + 2 * GUARD + 1, _GUARD_VALUE, np.float32)
        self.array: F32 = self._all[GUARD + 1 : GUARD + 1 + size].reshape(shape)
        self.array[...] = fill

    def check(self) -> None:
        size = self.array.size
        before, after = self._all[: GUARD + 1], self._all[GUARD + 1 + size :]
        assert (before == _GUARD_VALUE).all(), "numbers before the buffer were written"
        assert (after == _GUARD_VALUE).all(), "numbers after the buffer were written"


def spread(random: np.random.Generator, *shape: int) -> F32:
    """Numbers of very different size and sign, so that a wrong order or a lost term shows."""
    exponents = random.uniform(-6, 6, shape)
    return (random.standard_normal(shape) * 2.0**exponents).astype(np.float32)


def matrix(
    random: np.random.Generator, kind: str, n: int, k: int, group_size: int | None = None
) -> Tensor:
    """A weight (n, k) as it would lie in a checkpoint, at an address with an odd offset; without
    a group size it is the largest that divides k."""
    values = spread(random, n, k)
    if kind in QUANTS:
        bits = int(kind[1:])
        group_size = group_size or next(size for size in (128, 64, 32) if k % size == 0)
        dtype = ("f16", "bf16", "f32")[n % 3]
        packed, scales, biases = quantize(values, bits, group_size, dtype)
        parts = [
            Tensor(name, dtype, part.shape, unaligned(part))
            for name, part in (("w.scales", scales), ("w.biases", biases))
        ]
        form = GroupAffine(bits, group_size)
        return Tensor("w.weight", "u32", (n, k), unaligned(packed), form, *parts)
    if kind == "bf16":
        return Tensor("w.weight", "bf16", (n, k), unaligned(to_bf16(values)))
    stored = values.astype(np.float16 if kind == "f16" else np.float32)
    return Tensor("w.weight", kind, (n, k), unaligned(stored))


def unaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, beginning at an odd address, as a file's header may leave them."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    memory[1:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


def error_bound(x: F32, w: Tensor) -> NDArray[np.float64]:
    """(T, N): how far a float32 sum in any order may be from the exact one."""
    k = x.shape[1]
    if w.quantized is not None:  # scale * q and offset may cancel each other
        assert w.scales is not None and w.offsets is not None
        size = w.quantized.group_size
        offsets = np.abs(dense(w.offsets)).astype(np.float64).repeat(size, axis=1)
        weights = np.abs(dense(w)) + 2 * offsets
        return np.abs(x).astype(np.float64) @ weights.T * (2 * k / size + 8) * 2.0**-24
    return np.abs(x).astype(np.float64) @ np.abs(dense(w)).astype(np.float64).T * k * 2.0**-24


def seen_by(w: Tensor, x: F32) -> NDArray[np.float64]:
    """The activations that a product with w uses: rounded where w is quantized."""
    if w.quantized is None:
        return x.astype(np.float64)
    codes, factors = quantize_rows(x, w.quantized.group_size)
    return codes * factors.astype(np.float64).repeat(w.quantized.group_size, axis=1)


def same_bits(a: F32, b: F32) -> bool:
    """Bit for bit, NaNs being equal to one another."""
    nans = np.isnan(a) & np.isnan(b)
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | nans).all())
