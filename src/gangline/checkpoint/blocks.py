"""GGUF's blocks → codes, scales and offsets: one function for each type of `BLOCK_TYPES`.

Layouts: ggml-common.h and ggml-quants.c of https://github.com/ggml-org/ggml. A function takes
blocks (B, bytes) and gives codes (B, n_values), scales and offsets (B, n_values / group_size)
in float32, exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.affine import Codes, Floats

Blocks = NDArray[np.uint8]  # (B, bytes)
Decoded = tuple[Codes, Floats, Floats]

# Steps of the non-linear 4-bit types, in units of the block's scale (kvalues_iq4nl).
IQ4_STEPS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int16
)
# Twice the numbers of FP4 (e2m1): https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
FP4_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int16)
FP4_OFFSET = 12


def half(blocks: Blocks, at: int) -> Floats:
    """The half-precision number at byte `at` of each block, (B, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def nibbles(packed: Blocks) -> Codes:
    """All low halves of the bytes (B, n), then all high ones."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def powers_of_two(exponents: NDArray[np.uint8]) -> Floats:
    """E8M0: 2^(e - 127), in float32 also where that is subnormal."""
    return np.ldexp(np.float32(1), exponents.astype(np.int32) - 127).astype(np.float32)


def _q4_0(blocks: Blocks) -> Decoded:
    scales = half(blocks, 0)
    return nibbles(blocks[:, 2:18]), scales, scales * np.float32(-8)


def _q4_1(blocks: Blocks) -> Decoded:
    return nibbles(blocks[:, 4:20]), half(blocks, 0), half(blocks, 2)


def _fifth_bits(blocks: Blocks, at: int) -> Codes:
    """32 bits from byte `at`, each as 16 or 0."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)


def _q5_0(blocks: Blocks) -> Decoded:
    scales = half(blocks, 0)
    codes = nibbles(blocks[:, 6:22]) | _fifth_bits(blocks, 2)
    return codes, scales, scales * np.float32(-16)


def _q5_1(blocks: Blocks) -> Decoded:
    codes = nibbles(blocks[:, 8:24]) | _fifth_bits(blocks, 4)
    return codes, half(blocks, 0), half(blocks, 2)


def _q8_0(blocks: Blocks) -> Decoded:
    scales = half(blocks, 0)
    return blocks[:, 2:34] ^ np.uint8(128), scales, scales * np.float32(-128)


def _iq4_codes(packed: Blocks) -> Codes:
    return (IQ4_STEPS + 128).astype(np.uint8)[packed]


def _iq4_nl(blocks: Blocks) -> Decoded:
    scales = half(blocks, 0)
    return _iq4_codes(nibbles(blocks[:, 2:18])), scales, scales * np.float32(-128)


def _mxfp4(blocks: Blocks) -> Decoded:
    scales = fp4_scales(blocks[:, :1])
    return fp4_codes(nibbles(blocks[:, 1:17])), scales, scales * np.float32(-FP4_OFFSET)


def fp4_codes(numbers: Codes) -> Codes:
    """FP4 numbers (0..15) as codes of 5 bits: twice their value + 12."""
    return (FP4_STEPS + FP4_OFFSET).astype(np.uint8)[numbers]


def fp4_scales(exponents: NDArray[np.uint8]) -> Floats:
    """Scales of FP4 codes, which are twice the numbers."""
    return powers_of_two(exponents) * np.float32(0.5)


def _quarters(packed: Blocks, bits: int) -> Codes:
    """K-quants keep 32 columns at a time in the same bits: (B, n) -> (B, n 8 / bits).

    Of each 32 bytes (64 with two bits: two runs of 32) first all lowest bits, then the next.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(len(packed), -1, 1, 32)
    codes: Codes = ((runs >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(packed), -1)
    return codes


def _q2_k(blocks: Blocks) -> Decoded:
    factors, scale, low = blocks[:, :16], half(blocks, 80), half(blocks, 82)
    scales = scale * (factors & np.uint8(15)).astype(np.float32)
    offsets = -(low * (factors >> np.uint8(4)).astype(np.float32))
    return _quarters(blocks[:, 16:80], 2), scales, offsets


def _q3_k(blocks: Blocks) -> Decoded:
    high = _quarters(blocks[:, :32], 1)  # (B, 256): bit j of byte i is column 32 j + i
    packed = blocks[:, 96:108]
    low = nibbles(packed[:, :8])  # (B, 16)
    top = np.concatenate([(packed[:, 8:] >> np.uint8(2 * i)) & np.uint8(3) for i in range(4)], 1)
    factors = (low | top << np.uint8(4)).astype(np.int16) - 32
    scales = half(blocks, 108) * factors.astype(np.float32)
    codes = _quarters(blocks[:, 32:96], 2) | high << np.uint8(2)
    return codes, scales, scales * np.float32(-4)


def _factors_and_mins(blocks: Blocks) -> tuple[Floats, Floats]:
    """The eight 6-bit scales and minima of Q4_K and Q5_K, times those of the whole block."""
    packed = blocks[:, 4:16]
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    factors = [first & np.uint8(63), (rest & np.uint8(15)) | (first >> np.uint8(6)) << np.uint8(4)]
    mins = [second & np.uint8(63), (rest >> np.uint8(4)) | (second >> np.uint8(6)) << np.uint8(4)]
    scales = half(blocks, 0) * np.concatenate(factors, axis=1).astype(np.float32)
    offsets = -(half(blocks, 2) * np.concatenate(mins, axis=1).astype(np.float32))
    return scales, offsets


def _q4_k(blocks: Blocks) -> Decoded:
    return _quarters(blocks[:, 16:144], 4), *_factors_and_mins(blocks)


def _q5_k(blocks: Blocks) -> Decoded:
    high = _quarters(blocks[:, 16:48], 1)
    codes = _quarters(blocks[:, 48:176], 4) | high << np.uint8(4)
    return codes, *_factors_and_mins(blocks)


def _q6_k(blocks: Blocks) -> Decoded:
    halves = blocks[:, :128].reshape(-1, 64)  # of 128 columns: low ones first, then high ones
    low = nibbles(halves).reshape(-1, 256)
    high = _quarters(blocks[:, 128:192], 2)
    factors = blocks[:, 192:208].view(np.int8).astype(np.float32)
    scales = half(blocks, 208) * factors
    return low | high << np.uint8(4), scales, scales * np.float32(-32)


def _iq4_xs(blocks: Blocks) -> Decoded:
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16)  # (B, 1): two bits for each of 8
    top = (high >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)
    packed = blocks[:, 4:8, None] >> np.array([0, 4], np.uint8)  # (B, 4, 2)
    low = (packed & np.uint8(15)).reshape(-1, 8)
    factors = (low | top << np.uint16(4)).astype(np.float32) - np.float32(32)
    scales = half(blocks, 0) * factors
    codes = _iq4_codes(nibbles(blocks[:, 8:136].reshape(-1, 16))).reshape(-1, 256)
    return codes, scales, scales * np.float32(-128)


DECODERS: dict[str, Callable[[Blocks], Decoded]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
