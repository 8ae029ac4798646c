"""What a model's tensors are made of: one `Part` for each tensor that the engine may ask for.

A part has the name that Hugging Face gives the tensor, the place of its bytes, the form that they
have there, and what has to be done with the numbers. Reads nothing; `convert.py` does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import msgspec

from gangline.checkpoint.block_types import BLOCK_TYPES, Affine
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.headers import DTYPE_BYTES, Entry
from gangline.checkpoint.quantization import (
    Awq,
    Fp8,
    Gptq,
    GroupAffine,
    Method,
    Mxfp4,
    Packed,
    Quantization,
)
from gangline.errors import CheckpointError

ROUNDED = Affine(8, 64, "bf16")  # what becomes of numbers that no affine form holds exactly
FP4 = Affine(5, 32, "bf16")  # FP4 numbers and their power of two, exactly
FLOATS = ("F32", "F16", "BF16")


class Plain(msgspec.Struct, frozen=True, tag=True):
    """Numbers as they lie in the file, or GGUF's blocks: the entry's dtype says which."""


class Mlx(msgspec.Struct, frozen=True, tag=True):
    """Entries: weight, scales, biases."""

    form: GroupAffine


class Fp4(msgspec.Struct, frozen=True, tag=True):
    """Entries: FP4 numbers two in a byte (or eight in a word), exponents."""


class LatentHeads(msgspec.Struct, frozen=True, tag=True):
    """Entries: keys (H, rank, d) and values (H, d, rank) of latent attention, to be one matrix."""

    n_heads: int


class MixedHeads(msgspec.Struct, frozen=True, tag=True):
    """Entries: queries, keys and values of all heads of a delta rule, and their gates; to be one
    matrix in which each key head has its own query, key, values and gates in a row."""

    n_key_heads: int
    key_dim: int
    values_per_key_head: int  # rows, of as many value heads as share a key head


Form = Plain | Mlx | Fp4 | Gptq | Awq | Packed | Fp8 | LatentHeads | MixedHeads


class Unpermute(msgspec.Struct, frozen=True, tag=True):
    """The rows of each head are in pairs of neighbours; they become halves."""

    n_heads: int


class Shift(msgspec.Struct, frozen=True, tag=True):
    """A number is added to all of a dense tensor."""

    by: float


class LogOfNegative(msgspec.Struct, frozen=True, tag=True):
    """-exp(x) is kept of a dense tensor; x is wanted."""


Change = Unpermute | Shift | LogOfNegative


class Part(msgspec.Struct, frozen=True):
    """One tensor: (N, K) for matrices. `loaded` is the form it has in memory, `None`: its own."""

    name: str
    shape: tuple[int, ...]
    entries: tuple[Entry, ...]
    form: Form = Plain()
    loaded: Affine | None = None
    change: Change | None = None

    @property
    def in_place(self) -> bool:
        """Whether the tensor is a view of the file, and nothing was copied."""
        plain = isinstance(self.form, Plain) and self.loaded is None
        return self.change is None and (plain or isinstance(self.form, Mlx))

    @property
    def n_bytes(self) -> int:
        """In memory, before a back end arranges it; what the planner reckons with."""
        if isinstance(self.form, LatentHeads):
            return 4 * prod(self.shape)
        if isinstance(self.form, Gptq) and self.form.scattered:
            return ROUNDED.n_bytes(prod(self.shape))
        if self.loaded is None:
            return sum(entry.n_bytes for entry in self.entries)
        return self.loaded.n_bytes(prod(self.shape))


def plain(entry: Entry, name: str | None = None) -> Part:
    """A tensor whose own bytes are all there is to it."""
    kind = BLOCK_TYPES.get(entry.dtype)
    return Part(name or entry.name, entry.shape, (entry,), loaded=kind.affine if kind else None)


def slice_of(entry: Entry, index: int, count: int = 1) -> Entry:
    """Entries `index` to `index + count` of the first dimension; one drops the dimension."""
    size = entry.n_bytes // entry.shape[0]
    shape = entry.shape[1:] if count == 1 else (count, *entry.shape[1:])
    start = entry.start + index * size
    name = f"{entry.name}[{index}]"
    return Entry(name, entry.dtype, shape, entry.file, start, start + count * size)


def parts_of(entries: Mapping[str, Entry], method: Method | None) -> dict[str, Part]:
    """The parts of a safetensors checkpoint."""
    if isinstance(method, Gptq | Awq):
        found = _collect(entries, ".qweight", (".qzeros", ".scales", ".g_idx"), method, _columnwise)
    elif isinstance(method, Packed):
        others = (".weight_scale", ".weight_zero_point", ".weight_g_idx", ".weight_shape")
        found = _collect(entries, ".weight_packed", others, method, _packed)
    elif isinstance(method, Fp8):
        found = _collect(entries, ".weight", (".weight_scale_inv",), method, _fp8)
    elif isinstance(method, Mxfp4):
        found = _collect(entries, "_blocks", ("_scales",), method, _mxfp4_blocks)
    else:
        found = _collect(entries, ".weight", (".scales", ".biases"), method, _mlx)
    return found


Others = dict[str, Entry]  # companions of a tensor by suffix
Reader = Callable[[str, Entry, Others, Method | None], Part]


def _collect(
    entries: Mapping[str, Entry],
    main: str,
    others: tuple[str, ...],
    method: Method | None,
    read: Reader,
) -> dict[str, Part]:
    """Tensors that end in `main` and have companions become one part, all others stay as such."""
    parts: dict[str, Part] = {}
    for name, entry in entries.items():
        module = name.removesuffix(main)
        if module != name:
            with_it = {end: entries[module + end] for end in others if module + end in entries}
            part = read(module, entry, with_it, method) if with_it else plain(entry)
            parts[part.name] = part
        elif not any(name.endswith(end) and name[: -len(end)] + main in entries for end in others):
            parts[name] = plain(entry)
    return parts


def _mlx(module: str, weight: Entry, others: Others, method: Method | None) -> Part:
    scales = _other(module, weight, others, ".scales")
    form = method.of(module) if isinstance(method, Quantization) else None
    if form is None:
        raise CheckpointError(
            f"{weight.file}: tensor `{module}.scales` exists, but config.json does not say how "
            f"`{module}` is quantized",
            hint=REDOWNLOAD,
        )
    if scales.dtype == "U8":  # MLX's mxfp4: exponents instead of scales
        columns = weight.shape[-1] * 8 if weight.shape else 0
        fits = weight.dtype == "U32" and scales.shape == (*weight.shape[:-1], columns // 32)
        _check(fits and len(weight.shape) in (2, 3), weight, scales, "FP4 in blocks of 32")
        return Part(weight.name, (*weight.shape[:-1], columns), (weight, scales), Fp4(), FP4)
    biases = _other(module, weight, others, ".biases")
    fits = (
        weight.dtype == "U32"
        and scales.dtype in FLOATS
        and biases.dtype == scales.dtype
        and len(weight.shape) in (2, 3)  # 3: experts, stacked
        and biases.shape == scales.shape
        and weight.shape[:-1] == scales.shape[:-1]
        and weight.shape[-1] * 32 == scales.shape[-1] * form.group_size * form.bits
    )
    _check(fits, weight, scales, f"{form.bits}-bit in groups of {form.group_size}")
    shape = (*weight.shape[:-1], scales.shape[-1] * form.group_size)
    return Part(weight.name, shape, (weight, scales, biases), Mlx(form))


def _columnwise(module: str, packed: Entry, others: Others, method: Method | None) -> Part:
    """GPTQ packs codes along the columns, AWQ along the rows; both keep the matrix transposed."""
    assert isinstance(method, Gptq | Awq)
    scales, zeros = (_other(module, packed, others, end) for end in (".scales", ".qzeros"))
    per_word = 32 // method.bits
    first, second = _matrix(packed)
    by_column = isinstance(method, Gptq)
    columns, rows = (first * per_word, second) if by_column else (first, second * per_word)
    groups = scales.shape[0] if len(scales.shape) == 2 else 0
    fits = (
        packed.dtype == zeros.dtype == "I32"
        and scales.dtype in FLOATS
        and scales.shape == (groups, rows)
        and zeros.shape == (groups, rows // per_word)
        and groups > 0
        and rows % per_word == columns % groups == 0
    )
    _check(fits, packed, scales, f"{method.bits}-bit codes with zero points")
    order = others.get(".g_idx")
    if order is not None:
        _check(order.dtype == "I32" and order.shape == (columns,), packed, order, "with g_idx")
    found = (packed, scales, zeros) + ((order,) if order is not None else ())
    loaded = Affine(method.bits, group_of(columns // groups, packed), "f32")
    return Part(f"{module}.weight", (rows, columns), found, method, loaded)


def _packed(module: str, packed: Entry, others: Others, method: Method | None) -> Part:
    assert isinstance(method, Packed)
    scales = _other(module, packed, others, ".weight_scale")
    zeros, order = others.get(".weight_zero_point"), others.get(".weight_g_idx")
    per_word = 32 // method.bits
    rows, words = _matrix(packed)
    columns = words * per_word
    groups = scales.shape[1] if len(scales.shape) == 2 else 0
    fits = (
        packed.dtype == "I32"
        and scales.dtype in FLOATS
        and scales.shape == (rows, groups)
        and groups > 0
        and columns % groups == 0
        and (zeros is None or (zeros.dtype, zeros.shape) == ("I32", (-(-rows // per_word), groups)))
    )
    _check(fits, packed, scales, f"{method.bits}-bit codes in whole groups")
    if order is not None:
        raise CheckpointError(
            f"{packed.file}: tensor `{packed.name}` keeps its columns in an order of their own "
            "(actorder), which cannot be run",
            hint="Use a conversion without actorder, or with actorder `weight`.",
        )
    found = (packed, scales) + ((zeros,) if zeros is not None else ())
    loaded = Affine(method.bits, group_of(columns // groups, packed), "f32")
    return Part(f"{module}.weight", (rows, columns), found, method, loaded)


def _fp8(module: str, weight: Entry, others: Others, method: Method | None) -> Part:
    assert isinstance(method, Fp8)
    scales = _other(module, weight, others, ".weight_scale_inv")
    rows, columns = _matrix(weight)
    blocks = (-(-rows // method.rows), -(-columns // method.columns))
    fits = weight.dtype == "F8_E4M3" and scales.dtype in FLOATS and scales.shape == blocks
    _check(fits, weight, scales, f"FP8 in blocks of {method.rows} x {method.columns}")
    _check(columns % ROUNDED.group_size == 0, weight, scales, "of whole groups of columns")
    return Part(weight.name, (rows, columns), (weight, scales), method, ROUNDED)


def _mxfp4_blocks(module: str, blocks: Entry, others: Others, method: Method | None) -> Part:
    """(…, N, K / 32, 16) bytes and (…, N, K / 32) exponents: a matrix, or one for each expert."""
    scales = _other(module, blocks, others, "_scales")
    fits = (
        blocks.dtype == scales.dtype == "U8"
        and len(blocks.shape) >= 3
        and blocks.shape[-1] == 16
        and blocks.shape[:-1] == scales.shape
    )
    _check(fits, blocks, scales, "FP4 in blocks of 32")
    shape = (*blocks.shape[:-2], blocks.shape[-2] * 32)
    return Part(module, shape, (blocks, scales), Fp4(), FP4)


def group_of(columns: int, entry: Entry) -> int:
    """The size of our groups in one of `columns` columns: as large as may be."""
    for size in (128, 64, 32, 16):
        if columns % size == 0:
            return size
    raise CheckpointError(
        f"{entry.file}: tensor `{entry.name}` has groups of {columns} columns, expected a "
        "multiple of 16",
        hint="Use a conversion with groups of 32, 64 or 128.",
    )


def _matrix(entry: Entry) -> tuple[int, int]:
    if len(entry.shape) != 2 or entry.dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{entry.file}: tensor `{entry.name}` has shape {list(entry.shape)}, expected a matrix",
            hint=REDOWNLOAD,
        )
    return entry.shape[0], entry.shape[1]


def _other(module: str, of: Entry, others: Others, end: str) -> Entry:
    if end not in others:
        raise CheckpointError(
            f"{of.file}: tensor `{of.name}` is quantized, but `{module}{end}` is missing",
            hint=REDOWNLOAD,
        )
    return others[end]


def _check(fits: bool, entry: Entry, other: Entry, expected: str) -> None:
    if not fits:
        raise CheckpointError(
            f"{entry.file}: tensor `{entry.name}` {entry.dtype} {list(entry.shape)} with "
            f"`{other.name}` {other.dtype} {list(other.shape)} is not {expected}",
            hint="config.json and the weights belong to different conversions.",
        )
