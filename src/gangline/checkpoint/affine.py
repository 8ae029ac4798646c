"""The canonical quantized form: codes of 2 to 8 bits, a scale and an offset per group of columns.

`w = scale * code + offset`. A matrix (N, K) is kept as uint32 words (N, K bits / 32), which are
one stream of bits per row, lowest first. Knows no file and no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.block_types import Affine
from gangline.checkpoint.quantization import GroupAffine
from gangline.checkpoint.tensors import DType, Tensor

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Codes (rows, K), scales and offsets (rows, groups) of some rows of a matrix.
Rows = Callable[[slice], tuple[Codes, Floats, Floats]]

CHUNK = 1 << 20  # numbers that are converted at a time
ROUNDED_BOUND = 1 / 252  # of `rounded`: error / largest magnitude in the group


def pack(codes: Codes, bits: int) -> NDArray[np.uint32]:
    """Codes (N, K) below 2^bits -> words (N, K bits / 32); K is a multiple of 32."""
    rows, columns = codes.shape
    if bits == 8:
        return np.ascontiguousarray(codes).view(np.uint32)
    if bits in (2, 4):
        parts = codes.reshape(rows, -1, 8 // bits)
        packed = parts[..., 0].copy()
        for index in range(1, 8 // bits):
            packed |= parts[..., index] << np.uint8(bits * index)
        return packed.view(np.uint32)
    # Eight codes are `bits` whole bytes.
    eights = codes.reshape(rows, -1, 8).astype(np.uint64)
    sums = np.zeros(eights.shape[:2], np.uint64)
    for index in range(8):
        sums |= eights[..., index] << np.uint64(bits * index)
    octets = sums.view(np.uint8).reshape(rows, -1, 8)[..., :bits]
    return np.ascontiguousarray(octets).reshape(rows, columns * bits // 8).view(np.uint32)


def unpack(words: NDArray[np.uint32], bits: int) -> Codes:
    """The inverse of `pack`."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return octets
    rows = len(octets)
    if bits in (2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        mask = np.uint8((1 << bits) - 1)
        codes: Codes = ((octets[..., None] >> shifts) & mask).reshape(rows, -1)
        return codes
    padded = np.zeros((rows, octets.shape[1] // bits, 8), np.uint8)
    padded[..., :bits] = octets.reshape(rows, -1, bits)
    shifts64 = np.arange(0, 8 * bits, bits, dtype=np.uint64)
    wide = (padded.view(np.uint64) >> shifts64) & np.uint64((1 << bits) - 1)
    return wide.astype(np.uint8).reshape(rows, -1)


def unpack_some(words: NDArray[np.uint32], bits: int, count: int) -> Codes:
    """The first `count` codes of each row of words, however many bits the last word leaves."""
    words = np.ascontiguousarray(words)
    missing = -words.shape[1] % bits  # so many words hold whole groups of eight
    padded = np.pad(words, ((0, 0), (0, missing))) if missing else words
    return unpack(padded, bits)[:, :count]


def cast(numbers: Floats, dtype: str) -> NDArray[np.generic]:
    """float32 as the array that holds the bits of `dtype`; rounds to nearest even."""
    if dtype == "f16":
        with np.errstate(over="ignore"):  # what is too large rounds to infinity
            return numbers.astype(np.float16)
    if dtype == "bf16":
        bits = np.ascontiguousarray(numbers).view(np.uint32).astype(np.uint64)
        even = np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))
        rounded = (bits + even) >> np.uint64(16)
        return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded).astype(np.uint16)
    return numbers


def floats(tensor: Tensor) -> Floats:
    """A dense tensor as float32, exactly."""
    if tensor.dtype == "bf16":
        return (tensor.data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return tensor.data.astype(np.float32)


def values(tensor: Tensor) -> Floats:
    """Any tensor as float32: `scale * code + offset` rounded once, as a fused multiply-add does."""
    if tensor.quantized is None:
        return floats(tensor)
    assert tensor.scales is not None and tensor.offsets is not None, tensor.name
    words = tensor.data.view(np.uint32).reshape(-1, tensor.data.shape[-1])
    codes = unpack(words, tensor.quantized.bits)
    groups = codes.reshape(*tensor.shape[:-1], -1, tensor.quantized.group_size)
    exact = floats(tensor.scales)[..., None].astype(np.float64) * groups
    exact += floats(tensor.offsets)[..., None]
    return exact.astype(np.float32).reshape(tensor.shape)


def dense(name: str, numbers: Floats, dtype: DType = "f32") -> Tensor:
    return Tensor(name, dtype, numbers.shape, cast(numbers, dtype))


def quantized(
    name: str, form: Affine, words: NDArray[np.uint32], scales: Floats, offsets: Floats
) -> Tensor:
    """A matrix in canonical form; scales and offsets stay float32 where `form.scales` rounds."""
    dtype: DType = form.scales
    if not all(_is_exact(part, dtype) for part in (scales, offsets)):
        dtype = "f32"
    shape = (*words.shape[:-1], words.shape[-1] * 32 // form.bits)
    return Tensor(
        name=name,
        dtype="u32",
        shape=shape,
        data=words,
        quantized=GroupAffine(form.bits, form.group_size),
        scales=Tensor(f"{name} (scales)", dtype, scales.shape, cast(scales, dtype)),
        offsets=Tensor(f"{name} (offsets)", dtype, offsets.shape, cast(offsets, dtype)),
    )


def in_chunks(name: str, shape: tuple[int, ...], form: Affine, rows: Rows) -> Tensor:
    """A matrix (or several) in canonical form from a function that gives some rows of it."""
    n_rows, columns = prod(shape[:-1]), shape[-1]
    words = np.empty((n_rows, columns * form.bits // 32), np.uint32)
    scales, offsets = np.empty((2, n_rows, columns // form.group_size), np.float32)
    for chunk in _chunks(n_rows, columns):
        codes, scales[chunk], offsets[chunk] = rows(chunk)
        words[chunk] = pack(codes, form.bits)
    outer = shape[:-1]
    words, scales = words.reshape(*outer, -1), scales.reshape(*outer, -1)
    return quantized(name, form, words, scales, offsets.reshape(*outer, -1))


def _chunks(n_rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, columns))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def rounded(numbers: Floats, form: Affine) -> tuple[Codes, Floats, Floats]:
    """Rows (N, K) as 8-bit codes with scales in bf16: within `ROUNDED_BOUND` of the largest
    magnitude of each group, zero exactly."""
    assert form.bits == 8 and form.scales == "bf16", form
    groups = numbers.reshape(len(numbers), -1, form.group_size)
    largest = np.abs(groups).max(-1)
    # The next bf16 above largest / 127: codes then fit, and a step is at most 1/126 of `largest`.
    up = (largest / np.float32(127)).view(np.uint32) + np.uint32(0xFFFF)
    scales = ((up >> np.uint32(16)) << np.uint32(16)).view(np.float32)
    safe = np.where(scales == 0, np.float32(1), scales)
    with np.errstate(invalid="ignore"):  # numbers that are none stay so: their scale is one
        codes = np.rint(groups / safe[..., None]) + 128
    return codes.astype(np.uint8).reshape(numbers.shape), scales, scales * np.float32(-128)


def widen(tensor: Tensor, bits: int, group_size: int) -> Tensor:
    """The same numbers with more bits per code and smaller groups."""
    form = tensor.quantized
    assert form is not None and tensor.scales is not None and tensor.offsets is not None
    assert bits >= form.bits and form.group_size % group_size == 0, tensor.name
    repeats = form.group_size // group_size
    return quantized(
        tensor.name,
        Affine(bits, group_size, "f32"),
        pack(unpack(tensor.data.view(np.uint32), form.bits), bits),
        np.repeat(floats(tensor.scales), repeats, axis=1),
        np.repeat(floats(tensor.offsets), repeats, axis=1),
    )


def stacked(name: str, parts: list[Tensor]) -> Tensor:
    """Matrices one below the other; unlike forms are brought into one that holds all exactly."""
    forms = [part.quantized for part in parts]
    if any(form is None for form in forms):
        return dense(name, np.concatenate([values(part) for part in parts]))
    bits = max(form.bits for form in forms if form)
    group_size = min(form.group_size for form in forms if form)
    same = [widen(part, bits, group_size) for part in parts]
    scales, offsets = ([getattr(part, of) for part in same] for of in ("scales", "offsets"))
    return quantized(
        name,
        Affine(bits, group_size, "f32"),
        np.concatenate([part.data.view(np.uint32) for part in same]),
        np.concatenate([floats(part) for part in scales]),
        np.concatenate([floats(part) for part in offsets]),
    )


def _is_exact(numbers: Floats, dtype: str) -> bool:
    if dtype == "f32":
        return True
    bits = cast(numbers, dtype)
    back = floats(Tensor("", "bf16" if dtype == "bf16" else "f16", bits.shape, bits))
    return bool(((back == numbers) | np.isnan(numbers)).all())
