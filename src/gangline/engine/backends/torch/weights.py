"""Matrices for PyTorch: dense, packed group-affine, and 4-bit ones for its built-in kernel.

A dense product is computed in the precision of its weight, a quantized one in bf16 or better. Where
our Triton kernels run (`fused.py`) they multiply packed matrices of all bits. Elsewhere those of 4
bits use PyTorch's own kernel where it has one for the device and the shape, and where a product of
that kernel was compared with ours first (`int4.py`); all others are unpacked at each use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import cannot_run_bits, dense
from gangline.engine.backends.torch.fused import Fused
from gangline.engine.backends.torch.int4 import Int4Matrix, Kernel
from gangline.engine.backends.torch.packed import PLANES, Index, Packed, beside, times


class Dense:
    """Matrices (…, N, K) of floats."""

    def __init__(self, values: torch.Tensor) -> None:
        self.parts = (values,)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.parts[0].shape)

    def at(self, index: Index, dtype: torch.dtype | None = None) -> torch.Tensor:
        """What `index` chooses along the first axis; in its own precision unless told."""
        return self.parts[0][index].to(dtype or self.parts[0].dtype)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x (T, K) -> (T, N) float32."""
        return times(x, self.parts[0])


Matrix = Dense | Packed


class Weight:
    """A matrix (N, K) as parts along N, each in its own form."""

    def __init__(self, parts: Sequence[Matrix | Int4Matrix]) -> None:
        self.parts = tuple(parts)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x (T, K) -> (T, N) float32."""
        return beside([part.product(x) for part in self.parts])

    def exact_product(self, x: torch.Tensor) -> torch.Tensor:
        """As `product`, in float32 wherever the form allows it."""
        everything = slice(None)
        return beside(
            [
                part.product(x)
                if isinstance(part, Int4Matrix)
                else times(x, part.at(everything, torch.float32))
                for part in self.parts
            ]
        )


class Loader:
    """Brings tensors onto a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.fused = Fused.of(device)
        self.kernel = Kernel.of(device) if self.fused is None else None
        self._last: tuple[Tensor, Matrix] | None = None  # an embedding may be the output too

    def weight(self, tensors: Sequence[Tensor]) -> Weight:
        """Neighbours of one form become one matrix."""
        parts: list[Matrix | Int4Matrix] = []
        run: list[Matrix] = []
        for tensor in tensors:
            part = self.matrix(tensor)
            if run and not alike(run[-1], part):
                parts.append(self._final(run))
                run = []
            run.append(part)
        return Weight([*parts, self._final(run)])

    def matrix(self, tensor: Tensor) -> Matrix:
        """One tensor, rows addressable."""
        if self._last is None or self._last[0] is not tensor:
            self._last = tensor, self._matrix(tensor)
        return self._last[1]

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> Matrix:
        """E matrices (E, N, K); the parts of each are stacked along N."""
        matrices = [[self._matrix(tensor) for tensor in tensors] for tensors in parts]
        if all(alike(matrices[0][0], part) for matrix in matrices for part in matrix):
            return combine([combine(matrix, torch.cat) for matrix in matrices], torch.stack)
        # Gate and up in different forms: what they are in common is dense.
        everything, dtype = slice(None), torch.bfloat16
        return Dense(
            torch.stack([torch.cat([p.at(everything, dtype) for p in m]) for m in matrices])
        )

    def floats(self, tensor: Tensor) -> torch.Tensor:
        """A dense tensor in its own precision."""
        if tensor.dtype == "bf16":
            bits = torch.from_numpy(np.array(tensor.data).view(np.int16))
            return bits.to(self.device).view(torch.bfloat16)
        if tensor.dtype == "f16":
            return torch.from_numpy(np.array(tensor.data)).to(self.device)
        return torch.from_numpy(np.array(dense(tensor))).to(self.device)

    def _matrix(self, tensor: Tensor) -> Matrix:
        form = tensor.quantized
        if form is None:
            return Dense(self.floats(tensor))
        assert tensor.scales is not None and tensor.offsets is not None, tensor.name
        if form.bits not in PLANES:
            raise cannot_run_bits(tensor.name, form.bits)
        stream = torch.from_numpy(np.array(tensor.data).view(np.uint8)).to(self.device)
        scales, offsets = self.floats(tensor.scales), self.floats(tensor.offsets)
        return Packed.of(stream, scales, offsets, form.bits, self.fused)

    def _final(self, run: Sequence[Matrix]) -> Matrix | Int4Matrix:
        """One matrix of those of one form, for the built-in kernel where that is possible."""
        whole = run[0] if len(run) == 1 else combine(run, torch.cat)
        kernel = self.kernel
        if kernel is None or not isinstance(whole, Packed) or whole.bits != 4:
            return whole
        if kernel.fits(whole.shape, whole.scales.shape):
            codes = whole.codes(slice(None)).to(torch.uint8)
            return kernel.matrix(codes, whole.scales, whole.offsets)
        return whole


def alike(first: Matrix, second: Matrix) -> bool:
    """Whether two matrices can lie in one."""
    if isinstance(first, Packed) and isinstance(second, Packed):
        forms = [(one.bits, one.group_size) for one in (first, second)]
        return forms[0] == forms[1] and _dtypes_equal(first, second)
    return isinstance(first, Dense) and isinstance(second, Dense) and _dtypes_equal(first, second)


def combine(parts: Sequence[Matrix], how: Callable[[list[torch.Tensor]], torch.Tensor]) -> Matrix:
    """Matrices of one form, stacked or one after the other."""
    first = parts[0]
    tensors = [how(list(same)) for same in zip(*(part.parts for part in parts), strict=True)]
    if isinstance(first, Packed):
        return Packed(tensors, first.bits, first.fused)
    return Dense(*tensors)


def _dtypes_equal(first: Matrix, second: Matrix) -> bool:
    return [part.dtype for part in first.parts] == [part.dtype for part in second.parts]
