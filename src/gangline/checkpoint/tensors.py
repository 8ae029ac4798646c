"""A tensor as it lies in a checkpoint: a dtype tag, a shape and bytes; no arithmetic."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.quantization import GroupAffine

__all__ = ["DType", "GroupAffine", "Tensor"]

DType = Literal["f32", "f16", "bf16", "i8", "u8", "i32", "u32", "i64"]


class Tensor(msgspec.Struct, frozen=True, weakref=True):
    """A dense tensor, or a group-affine one with its scales and offsets.

    `data` is a read-only array over the memory map: bf16 is kept as uint16. For a quantized
    matrix (N, K) `data` is uint32 (N, K bits / 32), lowest bits first, `scales` and `offsets`
    are dense tensors (N, K / group_size), and `shape` is (N, K). Several matrices in one tensor
    have one more dimension in front of each.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: NDArray[np.generic]
    quantized: GroupAffine | None = None
    scales: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes on disk, scales and offsets included."""
        parts = (self.scales, self.offsets)
        return int(self.data.nbytes) + sum(part.n_bytes for part in parts if part is not None)

    def rows(self, chosen: slice | NDArray[np.intp]) -> Tensor:
        """Some rows (of the first dimension) in the given order; a slice is not copied."""
        data = self.data[chosen]
        return msgspec.structs.replace(
            self,
            shape=(len(data), *self.shape[1:]),
            data=data,
            scales=None if self.scales is None else self.scales.rows(chosen),
            offsets=None if self.offsets is None else self.offsets.rows(chosen),
        )

    def at(self, index: int) -> Tensor:
        """One of several tensors that are stacked along the first dimension; not copied."""
        return msgspec.structs.replace(
            self,
            shape=self.shape[1:],
            data=self.data[index],
            scales=None if self.scales is None else self.scales.at(index),
            offsets=None if self.offsets is None else self.offsets.at(index),
        )

    def dense(self, data: NDArray[np.generic]) -> Tensor:
        """A dense tensor of the same name and dtype with other data."""
        return Tensor(self.name, self.dtype, data.shape, data)
