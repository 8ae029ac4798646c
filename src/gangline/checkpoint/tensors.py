"""A tensor as it lies in a checkpoint: a dtype tag, a shape and bytes; no arithmetic."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import GroupAffine

__all__ = ["DType", "GroupAffine", "Tensor"]

DType = Literal["f32", "f16", "bf16", "i8", "u8", "i32", "u32", "i64"]


class Tensor(msgspec.Struct, frozen=True, weakref=True):
    """A dense tensor, or a group-affine one with its scales and offsets.

    `data` is a read-only array over the memory map: bf16 is kept as uint16. For a quantized
    matrix (N, K) `data` is uint32 (N, K bits / 32), lowest bits first, `scales` and `offsets`
    are dense tensors (N, K / group_size), and `shape` is (N, K).
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
