"""Matrices for MLX: dense ones, and group-affine ones in the form of its own quantized kernels.

A product is computed in the precision of its weight: bf16 in bf16, f16 in f16, f32 in f32, summed
in float32 by MLX's kernels. Quantized matrices take the precision of their scales, but with f16
scales all is float32: GGUF, GPTQ and AWQ files have such scales also for models whose activations
leave the range of f16. What the quantized kernels lack (groups of 16, say) becomes dense f16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import dense

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)


class Dense:
    """Matrices (…, N, K) of floats."""

    def __init__(self, values: mx.array) -> None:
        self.values = values

    def product(self, x: mx.array) -> mx.array:
        """x (T, K) -> (T, N) float32."""
        return (x.astype(self.values.dtype) @ self.values.T).astype(mx.float32)

    def exact_product(self, x: mx.array) -> mx.array:
        """As `product`, in float32 whatever the weight is."""
        return x @ self.values.T.astype(mx.float32)

    def gathered_product(self, x: mx.array, chosen: mx.array, ordered: bool) -> mx.array:
        """x (…, 1, K), chosen (…) numbers of matrices -> (…, 1, N) float32."""
        transposed = self.values.swapaxes(-1, -2)
        x = x.astype(self.values.dtype)
        y = mx.gather_mm(x, transposed, rhs_indices=chosen, sorted_indices=ordered)
        return y.astype(mx.float32)

    def rows(self, ids: mx.array) -> mx.array:
        """ids (T,) -> (T, K) float32."""
        return self.values[ids].astype(mx.float32)

    def dense(self) -> mx.array:
        """All of it in f16."""
        return self.values.astype(mx.float16)

    def arrays(self) -> tuple[mx.array, ...]:
        return (self.values,)


class Quantized:
    """Matrices of `scale * q + offset`, packed (…, N, K bits / 32) as MLX packs them."""

    def __init__(
        self, packed: mx.array, scales: mx.array, offsets: mx.array, bits: int, group_size: int
    ) -> None:
        self.packed, self.scales, self.offsets = packed, scales, offsets
        self.form = {"bits": bits, "group_size": group_size}

    def product(self, x: mx.array) -> mx.array:
        return self.exact_product(x.astype(self.scales.dtype)).astype(mx.float32)

    def exact_product(self, x: mx.array) -> mx.array:
        return mx.quantized_matmul(x, self.packed, self.scales, self.offsets, **self.form)

    def gathered_product(self, x: mx.array, chosen: mx.array, ordered: bool) -> mx.array:
        y = mx.gather_qmm(
            x.astype(self.scales.dtype),
            self.packed,
            self.scales,
            self.offsets,
            rhs_indices=chosen,
            sorted_indices=ordered,
            **self.form,
        )
        return y.astype(mx.float32)

    def rows(self, ids: mx.array) -> mx.array:
        scales, offsets = (part[ids].astype(mx.float32) for part in (self.scales, self.offsets))
        return mx.dequantize(self.packed[ids], scales, offsets, **self.form)

    def dense(self) -> mx.array:
        return mx.dequantize(*self.arrays(), **self.form).astype(mx.float16)

    def arrays(self) -> tuple[mx.array, ...]:
        return self.packed, self.scales, self.offsets


Part = Dense | Quantized


class Weight:
    """A matrix (N, K) as parts along N, each in its own form; neighbours of one form are merged."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        parts: list[Part] = []
        for tensor in tensors:
            part = part_of(tensor)
            if parts and (merged := _merge(parts[-1], part)) is not None:
                parts[-1] = merged
            else:
                parts.append(part)
        self.parts = tuple(parts)
        mx.eval(*(array for part in parts for array in part.arrays()))

    def product(self, x: mx.array) -> mx.array:
        return _beside([part.product(x) for part in self.parts])

    def exact_product(self, x: mx.array) -> mx.array:
        return _beside([part.exact_product(x) for part in self.parts])

    def rows(self, ids: mx.array) -> mx.array:
        (part,) = self.parts  # a table is one tensor
        return part.rows(ids)


def part_of(tensor: Tensor) -> Part:
    """One tensor in the form in which MLX computes with it."""
    form = tensor.quantized
    if form is None:
        return Dense(floats(tensor))
    assert tensor.scales is not None and tensor.offsets is not None, tensor.name
    packed = mx.array(np.ascontiguousarray(tensor.data).view(np.uint32))
    scales, offsets = floats(tensor.scales), floats(tensor.offsets)
    if scales.dtype == mx.float16:
        scales, offsets = scales.astype(mx.float32), offsets.astype(mx.float32)
    if form.bits in BITS and form.group_size in GROUP_SIZES:
        return Quantized(packed, scales, offsets, form.bits, form.group_size)
    # With scales of one and offsets of zero what comes out are the numbers themselves.
    n_rows, n_columns = tensor.shape
    ones = mx.ones((n_rows, n_columns // GROUP_SIZES[0]))
    numbers = mx.dequantize(packed, ones, 0 * ones, GROUP_SIZES[0], form.bits)
    groups = numbers.reshape(*scales.shape, form.group_size)
    values = groups * scales[..., None] + offsets[..., None]
    return Dense(values.reshape(tensor.shape).astype(mx.float16))


def experts_of(parts: Sequence[Sequence[Tensor]]) -> Part:
    """E matrices (E, N, K) of one form; the parts of each are stacked along N."""
    matrices = [Weight(tensors).parts for tensors in parts]
    if any(len(matrix) > 1 for matrix in matrices):  # forms that no kernel takes together
        matrices = [(Dense(mx.concatenate([p.dense() for p in m])),) for m in matrices]
    stacked = _combine([matrix[0] for matrix in matrices], mx.stack)
    if isinstance(stacked, Dense) and mx.default_device() == mx.cpu:
        stacked = Dense(stacked.values.astype(mx.float32))  # all that `gather_mm` takes there
    mx.eval(*stacked.arrays())
    return stacked


def floats(tensor: Tensor) -> mx.array:
    """A dense tensor in its own precision."""
    if tensor.dtype == "bf16":
        return mx.array(tensor.data).view(mx.bfloat16)
    if tensor.dtype == "f16":
        return mx.array(tensor.data)
    return mx.array(dense(tensor))


def _merge(first: Part, second: Part) -> Part | None:
    """Both along N, or None where their forms differ."""
    return _combine([first, second], mx.concatenate) if _alike(first, second) else None


def _combine(parts: Sequence[Part], combine: Callable[[list[mx.array]], mx.array]) -> Part:
    arrays = [combine(list(same)) for same in zip(*(part.arrays() for part in parts), strict=True)]
    first = parts[0]
    if isinstance(first, Quantized):
        return Quantized(*arrays, **first.form)
    return Dense(*arrays)


def _alike(first: Part, second: Part) -> bool:
    if isinstance(first, Quantized) and isinstance(second, Quantized):
        return first.form == second.form and first.scales.dtype == second.scales.dtype
    if isinstance(first, Dense) and isinstance(second, Dense):
        return bool(first.values.dtype == second.values.dtype)
    return False


def _beside(columns: Sequence[mx.array]) -> mx.array:
    return columns[0] if len(columns) == 1 else mx.concatenate(columns, axis=-1)
