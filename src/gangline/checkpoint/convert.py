"""A part's bytes → a tensor that back ends take: dense, or in the canonical quantized form.

One function for each form that files have (`convert_quantized.py` has those of quantized
safetensors); what it gives is exact unless `docs/formats.md` states a bound. Work goes in chunks of
rows, so that besides the result only little memory is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gangline.checkpoint import convert_quantized
from gangline.checkpoint.affine import (
    Codes,
    Floats,
    dense,
    in_chunks,
    stacked,
    unpack,
    values,
)
from gangline.checkpoint.block_types import BLOCK_TYPES
from gangline.checkpoint.blocks import DECODERS, FP4_OFFSET, fp4_codes, fp4_scales
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.parts import (
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
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError


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

    tensor = in_chunks(part.name, part.shape, part.loaded, rows)
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
    return in_chunks(part.name, part.shape, part.loaded, rows)


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
    # A file may hold any numbers: those without a logarithm give NaN or an infinity.
    with np.errstate(invalid="ignore", divide="ignore"):
        return dense(tensor.name, np.log(-values(tensor)))


CONVERSIONS: dict[type, Callable[[Part, Maps], Tensor]] = {
    Plain: _plain,
    Mlx: _mlx,
    Fp4: _fp4,
    **convert_quantized.CONVERSIONS,
    LatentHeads: _latent_heads,
    MixedHeads: _mixed_heads,
}
CHANGES: dict[type[Change], Callable[[Tensor, Any], Tensor]] = {
    Unpermute: _unpermute,
    Shift: _shift,
    LogOfNegative: _log_of_negative,
}
