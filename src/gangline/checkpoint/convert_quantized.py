"""Matrices as GPTQ, AWQ, compressed-tensors and FP8 checkpoints keep them → the canonical form.

`quantized_parts.py` has checked that the tensors of a part fit together. What is here computes
`step (code - point)` for each number, in which steps and points belong to a group of columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.affine import (
    Codes,
    Floats,
    floats,
    in_chunks,
    pack,
    quantized,
    rounded,
    unpack,
    unpack_some,
)
from gangline.checkpoint.blocks import FP4_OFFSET, fp4_codes
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.parts import NVFP4, ROUNDED, Fp8Blocks, Nvfp4, Octets, Part, Words
from gangline.checkpoint.quantization import Awq, Gptq
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError

# Which of a word's eight nibbles holds column 0, 1, …: https://github.com/casper-hansen/AutoAWQ
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _gptq(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Gptq)
    packed, scales, zeros = (maps.tensor(entry) for entry in part.entries[:3])
    bits, (n_rows, columns) = part.form.bits, part.shape
    # Transposed, a row of words is a row of our codes: both are streams, lowest bits first.
    codes = unpack_some(packed.data.T.view(np.uint32), bits, columns)
    points = _zero_points(zeros.data.view(np.uint32), bits, n_rows, part.form.zero_offset)
    steps = floats(scales)
    order = _groups(part, maps, 3, len(steps))
    if order is not None:
        return _act_order(part, codes, steps.T, points.T, order)
    return _with_zeros(part, codes, steps.T, points.T)


def _zero_points(words: NDArray[np.uint32], bits: int, count: int, offset: int) -> Floats:
    """Zero points, which the first version keeps less one.

    GPTQModel subtracts the ones from whole words, so that a point of zero borrows from its
    neighbour; only with 3 bits, where codes straddle words, from each point for itself
    (https://github.com/ModelCloud/GPTQModel, `convert_gptq_v2_to_v1_format_module`).
    """
    if bits == 3:
        codes = (unpack_some(words, bits, count) + np.uint8(offset)) & np.uint8(7)
    else:
        ones = offset * (0xFFFF_FFFF // ((1 << bits) - 1))
        codes = unpack_some(words + np.uint32(ones), bits, count)
    return codes.astype(np.float32)


def _groups(part: Part, maps: Maps, at: int, n_groups: int) -> NDArray[np.int64] | None:
    """The group of each column, where entry `at` names it and it is not the neighbours'."""
    columns = part.shape[1]
    if len(part.entries) <= at:
        return None
    entry = part.entries[at]
    given = maps.tensor(entry).data.astype(np.int64)
    neighbours = np.arange(columns) // (columns // n_groups)
    # compressed-tensors leaves -1 where no order was chosen.
    if (given == neighbours).all() or (given == -1).all():
        return None
    if given.min() < 0 or given.max() >= n_groups or columns % ROUNDED.group_size:
        raise CheckpointError(
            f"{entry.file}: tensor `{entry.name}` of {columns} columns names group "
            f"{given.max()}, expected groups below {n_groups} of a multiple of "
            f"{ROUNDED.group_size} columns",
            hint=REDOWNLOAD,
        )
    return given


def _act_order(
    part: Part, codes: Codes, steps: Floats, points: Floats, groups: NDArray[np.int64]
) -> Tensor:
    """Columns whose groups are scattered: there is no order of columns that our form could have."""

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        own, zero = steps[chunk], points[chunk]
        return rounded((codes[chunk] - zero[:, groups]) * own[:, groups], ROUNDED)

    return in_chunks(part.name, part.shape, ROUNDED, rows)


def _awq(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Awq)
    packed, scales, zeros = (maps.tensor(entry) for entry in part.entries)
    words = [tensor.data.view(np.uint32) for tensor in (packed, zeros)]
    if part.form.layout == "gemm":
        codes, points = (_shuffled(of).T for of in words)
        steps = floats(scales).T
    else:
        assert part.loaded is not None
        codes, points = (unpack(of, part.form.bits) for of in words)
        # As many groups as the columns have; what follows is padding.
        n_groups = _n_groups(part, scales)
        steps, points = floats(scales)[:, :n_groups], points[:, :n_groups]
    return _with_zeros(part, np.ascontiguousarray(codes), steps, points.astype(np.float32))


def _n_groups(part: Part, scales: Tensor) -> int:
    """Groups of a row in the `gemv` layout."""
    assert part.loaded is not None
    return part.shape[1] // part.loaded.group_size


def _shuffled(words: NDArray[np.uint32]) -> Codes:
    """(N, W) -> (N, 8 W), the nibbles of each word in AWQ's order."""
    nibbles = unpack(words, 4).reshape(len(words), -1, 8)
    return nibbles[..., AWQ_ORDER].reshape(len(words), -1)


def _words(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Words)
    bits, (n_rows, columns) = part.form.bits, part.shape
    packed, steps = maps.tensor(part.entries[0]), floats(maps.tensor(part.entries[1]))
    codes = unpack_some(packed.data.view(np.uint32), bits, columns)
    if part.form.zeros:
        words = maps.tensor(part.entries[2]).data.T.view(np.uint32)
        points = unpack_some(words, bits, n_rows).T.astype(np.float32)
    else:
        points = np.full(steps.shape, 1 << (bits - 1), np.float32)
    if part.form.scattered:
        order = _groups(part, maps, len(part.entries) - 1, steps.shape[1])
        if order is not None:
            return _act_order(part, codes, steps, points, order)
    return _with_zeros(part, codes, steps, points)


def _octets(part: Part, maps: Maps) -> Tensor:
    """Signed bytes: their codes are 128 more."""
    codes = maps.octets(part.entries[0]).reshape(part.shape) ^ np.uint8(128)
    steps = floats(maps.tensor(part.entries[1]))
    points = np.full(steps.shape, 128, np.float32)
    if len(part.entries) == 3:
        points += maps.tensor(part.entries[2]).data.astype(np.float32)
    n_rows, n_groups = part.shape[0], steps.shape[1] if steps.ndim == 2 else 1
    steps, points = (
        np.broadcast_to(x.reshape(-1, n_groups), (n_rows, n_groups)) for x in (steps, points)
    )
    return _with_zeros(part, codes, steps, points)


def _with_zeros(part: Part, codes: Codes, steps: Floats, points: Floats) -> Tensor:
    """`step (code - point)` per group of the format, which may be several of ours."""
    columns, n_groups = part.shape[1], steps.shape[1]
    form = part.loaded
    assert form is not None
    repeats = columns // form.group_size // n_groups
    scales, offsets = (np.repeat(x, repeats, axis=1) for x in (steps, -steps * points))
    return quantized(part.name, form, pack(codes, form.bits), scales, offsets)


def _fp8(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Fp8Blocks)
    n_rows, columns = part.shape
    form = part.form
    lines = maps.octets(part.entries[0]).reshape(n_rows, columns)
    blocks = floats(maps.tensor(part.entries[1])).reshape(-1, -(-columns // form.columns))
    factors = np.repeat(blocks, min(form.columns, columns), axis=1)[:, :columns]

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        block = np.arange(n_rows)[chunk] // form.rows
        return rounded(E4M3[lines[chunk]] * factors[block], ROUNDED)

    return in_chunks(part.name, part.shape, ROUNDED, rows)


def _nvfp4(part: Part, maps: Maps) -> Tensor:
    """Codes are twice the numbers, so scales are halved."""
    n_rows, columns = part.shape
    lines = maps.octets(part.entries[0]).reshape(n_rows, columns // 2)
    own = E4M3[maps.octets(part.entries[1]).reshape(n_rows, columns // 16)]
    (divisor,) = floats(maps.tensor(part.entries[2])).reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = own / divisor / np.float32(2)

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        numbers = unpack(np.ascontiguousarray(lines[chunk]).view(np.uint32), 4)
        return fp4_codes(numbers), steps[chunk], steps[chunk] * np.float32(-FP4_OFFSET)

    return in_chunks(part.name, part.shape, NVFP4, rows)


def _e4m3() -> Floats:
    """The 256 numbers of FP8 E4M3 (https://arxiv.org/abs/2209.05433): no infinities, two NaNs."""
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + fractions / 8, exponents - 7)
    numbers = np.where(exponents == 0, np.ldexp(fractions / 8, -6), normal)
    numbers[(codes & 127) == 127] = np.nan
    return np.where(codes < 128, numbers, -numbers).astype(np.float32)


E4M3 = _e4m3()

CONVERSIONS: dict[type, Callable[[Part, Maps], Tensor]] = {
    Gptq: _gptq,
    Awq: _awq,
    Words: _words,
    Octets: _octets,
    Fp8Blocks: _fp8,
    Nvfp4: _nvfp4,
}
