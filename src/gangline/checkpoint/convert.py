"""A part's bytes → a tensor that back ends take: dense, or in the canonical quantized form.

One function for each form that files have; what it gives is exact unless `docs/formats.md` states
a bound. Work goes in chunks of rows, so that besides the result only little memory is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.affine import (
    Codes,
    Floats,
    dense,
    floats,
    pack,
    quantized,
    rounded,
    stacked,
    unpack,
    values,
)
from gangline.checkpoint.block_types import BLOCK_TYPES, Affine
from gangline.checkpoint.blocks import DECODERS, FP4_OFFSET, fp4_codes, fp4_scales
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.parts import (
    ROUNDED,
    Change,
    Fp4,
    LatentHeads,
    LogOfNegative,
    MixedHeads,
    Mlx,
    Part,
    Plain,
    Shift,
    Unpermute,
    plain,
)
from gangline.checkpoint.quantization import Awq, Fp8, Gptq, Packed
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError

CHUNK = 1 << 20  # numbers that are converted at a time

# Which of a word's eight nibbles holds column 0, 1, …: https://github.com/casper-hansen/AutoAWQ
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)

Rows = Callable[[slice], tuple[Codes, Floats, Floats]]


def load(part: Part, maps: Maps) -> Tensor:
    """Read and convert one tensor; what was copied is given back to the system."""
    tensor = CONVERSIONS[type(part.form)](part, maps)
    if part.change is not None:
        tensor = CHANGES[type(part.change)](tensor, part.change)
    if not part.in_place:
        for entry in part.entries:
            maps.forget(entry)
    return tensor


def _plain(part: Part, maps: Maps) -> Tensor:
    (entry,) = part.entries
    if part.loaded is None:
        tensor = maps.tensor(entry)
        return Tensor(part.name, tensor.dtype, part.shape, tensor.data.reshape(part.shape))
    kind, decode = BLOCK_TYPES[entry.dtype], DECODERS[entry.dtype]
    columns = part.shape[-1]
    lines = maps.octets(entry).reshape(-1, columns // kind.n_values * kind.n_bytes)

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        codes, scales, offsets = decode(lines[chunk].reshape(-1, kind.n_bytes))
        n_rows = len(lines[chunk])
        return codes.reshape(n_rows, -1), scales.reshape(n_rows, -1), offsets.reshape(n_rows, -1)

    tensor = _in_chunks(part, part.loaded, rows)
    # A vector that somebody quantized: nothing multiplies by it, so it may as well be dense.
    return tensor if len(part.shape) > 1 else dense(part.name, values(tensor).reshape(part.shape))


def _mlx(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Mlx)
    weight, scales, biases = part.entries
    return Tensor(
        name=part.name,
        dtype="u32",
        shape=part.shape,
        data=maps.tensor(weight).data,
        quantized=part.form.form,
        scales=maps.tensor(scales),
        offsets=maps.tensor(biases),
    )


def _fp4(part: Part, maps: Maps) -> Tensor:
    packed, exponents = part.entries
    columns = part.shape[-1]
    lines = maps.octets(packed).reshape(-1, columns // 2)
    powers = maps.octets(exponents).reshape(-1, columns // 32)

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        scales = fp4_scales(powers[chunk])
        numbers = unpack(np.ascontiguousarray(lines[chunk]).view(np.uint32), 4)
        return fp4_codes(numbers), scales, scales * np.float32(-FP4_OFFSET)

    assert part.loaded is not None
    return _in_chunks(part, part.loaded, rows)


def _gptq(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Gptq)
    packed, scales, zeros = (maps.tensor(entry) for entry in part.entries[:3])
    bits, columns = part.form.bits, part.shape[1]
    # Transposed, a row of words is a row of our codes: both are streams, lowest bits first.
    codes = unpack(np.ascontiguousarray(packed.data.T).view(np.uint32), bits)
    # Zero points less one (first version) wrap around within their bits.
    kept = unpack(zeros.data.view(np.uint32), bits) + np.uint8(part.form.zero_offset)
    steps, points = floats(scales), (kept & np.uint8((1 << bits) - 1)).astype(np.float32)
    n_groups = len(steps)
    group_of_column = np.arange(columns) // (columns // n_groups)
    if len(part.entries) == 4:
        given = maps.tensor(part.entries[3]).data.astype(np.int64)
        if (given != group_of_column).any():
            return _act_order(part, codes, steps, points, given)
    return _with_zeros(part, codes, steps.T, points.T)


def _act_order(
    part: Part, codes: Codes, steps: Floats, points: Floats, groups: NDArray[np.int64]
) -> Tensor:
    """Columns whose groups are scattered: there is no order of columns that our form could have."""
    if groups.min() < 0 or groups.max() >= len(steps) or len(groups) % ROUNDED.group_size:
        order = part.entries[3]
        raise CheckpointError(
            f"{order.file}: tensor `{order.name}` of {len(groups)} columns names group "
            f"{groups.max()}, expected groups below {len(steps)} of a multiple of "
            f"{ROUNDED.group_size} columns",
            hint=REDOWNLOAD,
        )

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        own, zero = steps[:, chunk].T, points[:, chunk].T
        return rounded((codes[chunk] - zero[:, groups]) * own[:, groups], ROUNDED)

    return _in_chunks(part, ROUNDED, rows)


def _awq(part: Part, maps: Maps) -> Tensor:
    packed, scales, zeros = (maps.tensor(entry) for entry in part.entries[:3])
    codes, points = (_awq_codes(tensor.data.view(np.uint32)) for tensor in (packed, zeros))
    steps = floats(scales).T
    return _with_zeros(part, np.ascontiguousarray(codes.T), steps, points.T.astype(np.float32))


def _awq_codes(words: NDArray[np.uint32]) -> Codes:
    """(N, W) -> (N, 8 W), the nibbles of each word in AWQ's order."""
    nibbles = unpack(words, 4).reshape(len(words), -1, 8)
    return nibbles[..., AWQ_ORDER].reshape(len(words), -1)


def _packed(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Packed)
    packed, scales = (maps.tensor(entry) for entry in part.entries[:2])
    bits, steps = part.form.bits, floats(scales)
    codes = unpack(packed.data.view(np.uint32), bits)
    if len(part.entries) == 3:
        words = np.ascontiguousarray(maps.tensor(part.entries[2]).data.T).view(np.uint32)
        points = unpack(words, bits).T[: part.shape[0]].astype(np.float32)
    else:
        points = np.full(steps.shape, 1 << (bits - 1), np.float32)
    return _with_zeros(part, codes, steps, points)


def _with_zeros(part: Part, codes: Codes, steps: Floats, points: Floats) -> Tensor:
    """`step (code - point)` per group of the format, which may be several of ours."""
    assert part.loaded is not None
    repeats = part.shape[1] // part.loaded.group_size // steps.shape[1]
    scales, offsets = (np.repeat(x, repeats, axis=1) for x in (steps, -steps * points))
    return quantized(part.name, part.loaded, pack(codes, part.loaded.bits), scales, offsets)


def _fp8(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, Fp8)
    rows_per_block, columns_per_block = part.form.rows, part.form.columns
    n_rows, columns = part.shape
    lines = maps.octets(part.entries[0]).reshape(n_rows, columns)
    blocks = floats(maps.tensor(part.entries[1]))
    factors = np.repeat(blocks, columns_per_block, axis=1)[:, :columns]

    def rows(chunk: slice) -> tuple[Codes, Floats, Floats]:
        block = np.arange(n_rows)[chunk] // rows_per_block
        return rounded(E4M3[lines[chunk]] * factors[block], ROUNDED)

    return _in_chunks(part, ROUNDED, rows)


def _latent_heads(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, LatentHeads)
    keys, own = (values(_plain(plain(entry), maps)) for entry in part.entries)
    if keys.ndim != 3 or own.ndim != 3 or keys.shape[:2] != (own.shape[0], own.shape[2]):
        first, second = part.entries
        raise CheckpointError(
            f"{first.file}: tensors `{first.name}` {list(keys.shape)} and `{second.name}` "
            f"{list(own.shape)} are not keys and values of one rank",
            hint=REDOWNLOAD,
        )
    both = np.concatenate([keys.swapaxes(1, 2), own], axis=1)  # (H, dk + dv, rank)
    return dense(part.name, both.reshape(-1, keys.shape[1]))


def _mixed_heads(part: Part, maps: Maps) -> Tensor:
    assert isinstance(part.form, MixedHeads)
    heads, key_dim, own = part.form.n_key_heads, part.form.key_dim, part.form.values_per_key_head
    both = stacked(part.name, [_plain(plain(entry), maps) for entry in part.entries])
    rows = np.arange(part.shape[0])
    if len(rows) != heads * 2 * (key_dim + own):
        raise CheckpointError(
            f"{part.entries[0].file}: tensors `{part.entries[0].name}` and "
            f"`{part.entries[1].name}` have {len(rows)} rows, the config needs "
            f"{heads * 2 * (key_dim + own)}",
            hint=REDOWNLOAD,
        )
    ends = np.cumsum([key_dim * heads, key_dim * heads, own * heads])
    by_head = [kind.reshape(heads, -1) for kind in np.split(rows, ends)]
    return both.rows(np.concatenate(by_head, axis=1).reshape(-1))


def _in_chunks(part: Part, form: Affine, rows: Rows) -> Tensor:
    """A matrix in canonical form from a function that gives some rows of it."""
    n_rows, columns = prod(part.shape[:-1]), part.shape[-1]
    words = np.empty((n_rows, columns * form.bits // 32), np.uint32)
    scales, offsets = np.empty((2, n_rows, columns // form.group_size), np.float32)
    for chunk in _chunks(n_rows, columns):
        codes, scales[chunk], offsets[chunk] = rows(chunk)
        words[chunk] = pack(codes, form.bits)
    outer = part.shape[:-1]
    words, scales = words.reshape(*outer, -1), scales.reshape(*outer, -1)
    return quantized(part.name, form, words, scales, offsets.reshape(*outer, -1))


def _chunks(n_rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, columns))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _e4m3() -> Floats:
    """The 256 numbers of FP8 E4M3 (https://arxiv.org/abs/2209.05433): no infinities, two NaNs."""
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + fractions / 8, exponents - 7)
    numbers = np.where(exponents == 0, np.ldexp(fractions / 8, -6), normal)
    numbers[(codes & 127) == 127] = np.nan
    return np.where(codes < 128, numbers, -numbers).astype(np.float32)


E4M3 = _e4m3()


def _unpermute(tensor: Tensor, change: Unpermute) -> Tensor:
    if not tensor.shape or tensor.shape[0] % (2 * change.n_heads):
        raise CheckpointError(
            f"tensor `{tensor.name}` has shape {list(tensor.shape)}, expected pairs of rows for "
            f"each of {change.n_heads} heads",
            hint=REDOWNLOAD,
        )
    rows = np.arange(tensor.shape[0]).reshape(change.n_heads, -1, 2)
    return tensor.rows(rows.swapaxes(1, 2).reshape(-1))


def _shift(tensor: Tensor, change: Shift) -> Tensor:
    return dense(tensor.name, values(tensor) + np.float32(change.by))


def _log_of_negative(tensor: Tensor, change: LogOfNegative) -> Tensor:
    with np.errstate(invalid="ignore", divide="ignore"):
        return dense(tensor.name, np.log(-values(tensor)))


CONVERSIONS: dict[type, Callable[[Part, Maps], Tensor]] = {
    Plain: _plain,
    Mlx: _mlx,
    Fp4: _fp4,
    Gptq: _gptq,
    Awq: _awq,
    Packed: _packed,
    Fp8: _fp8,
    LatentHeads: _latent_heads,
    MixedHeads: _mixed_heads,
}
CHANGES: dict[type[Change], Callable[[Tensor, Any], Tensor]] = {
    Unpermute: _unpermute,
    Shift: _shift,
    LogOfNegative: _log_of_negative,
}
