"""The types of GGUF tensors: how their blocks lie in a file, and what becomes of them.

Numbers and layouts: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml-common.h.
Knows no array library; `blocks.py` has the arithmetic.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ScaleDtype = Literal["f32", "f16", "bf16"]


class Affine(msgspec.Struct, frozen=True):
    """The group-affine form that a stored form becomes: `w = scale * code + offset` per group."""

    bits: int
    group_size: int
    scales: ScaleDtype  # of scales and offsets

    def n_bytes(self, n_values: int) -> int:
        """Bytes of a matrix in this form."""
        per_group = 2 * (4 if self.scales == "f32" else 2)
        return n_values * self.bits // 8 + n_values // self.group_size * per_group


class BlockType(msgspec.Struct, frozen=True):
    """One type of tensor; `affine` is `None` where the numbers are floats and stay so."""

    number: int  # in the file
    n_values: int  # per block
    n_bytes: int  # per block
    affine: Affine | None = None


# The products of two factors (K-quants) need float32 to be exact; one factor stays what it is.
BLOCK_TYPES = {
    "F32": BlockType(0, 1, 4),
    "F16": BlockType(1, 1, 2),
    "BF16": BlockType(30, 1, 2),
    "Q4_0": BlockType(2, 32, 18, Affine(4, 32, "f16")),
    "Q4_1": BlockType(3, 32, 20, Affine(4, 32, "f16")),
    "Q5_0": BlockType(6, 32, 22, Affine(5, 32, "f16")),
    "Q5_1": BlockType(7, 32, 24, Affine(5, 32, "f16")),
    "Q8_0": BlockType(8, 32, 34, Affine(8, 32, "f16")),
    "Q2_K": BlockType(10, 256, 84, Affine(2, 16, "f32")),
    "Q3_K": BlockType(11, 256, 110, Affine(3, 16, "f32")),
    "Q4_K": BlockType(12, 256, 144, Affine(4, 32, "f32")),
    "Q5_K": BlockType(13, 256, 176, Affine(5, 32, "f32")),
    "Q6_K": BlockType(14, 256, 210, Affine(6, 16, "f32")),
    "IQ4_NL": BlockType(20, 32, 18, Affine(8, 32, "f16")),
    "IQ4_XS": BlockType(23, 256, 136, Affine(8, 32, "f32")),
    "MXFP4": BlockType(39, 32, 17, Affine(5, 32, "bf16")),
}

BY_NUMBER = {kind.number: name for name, kind in BLOCK_TYPES.items()}

# What other numbers mean (enum ggml_type): errors name the type, not only its number.
UNREAD_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
