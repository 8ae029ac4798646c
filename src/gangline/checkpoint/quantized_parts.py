"""Which tensors of a safetensors checkpoint belong together, and what one matrix they are.

Each method has a reader that checks dtypes and shapes against each other, so that converting
(`convert_quantized.py`) finds what it expects. Reads headers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gangline.checkpoint.block_types import Affine
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.parts import (
    FP4,
    NVFP4,
    ROUNDED,
    Fp4,
    Fp8Blocks,
    Mlx,
    Nvfp4,
    Octets,
    Part,
    Words,
    plain,
)
from gangline.checkpoint.quantization import (
    GPTQ_BITS,
    Awq,
    Fp8,
    Gptq,
    Method,
    Mxfp4,
    Packed,
    Quantization,
)
from gangline.errors import CheckpointError

FLOATS = ("F32", "F16", "BF16")

Others = dict[str, Entry]  # companions of a tensor by suffix
Reader = Callable[[str, Entry, Others, Method | None], Part]


def parts_of(entries: Mapping[str, Entry], method: Method | None) -> dict[str, Part]:
    """The parts of a safetensors checkpoint."""
    if isinstance(method, Gptq):
        return _collect(entries, (".qweight",), (".qzeros", ".scales", ".g_idx"), method, _gptq)
    if isinstance(method, Awq):
        read = _awq if method.layout == "gemm" else _awq_rows
        return _collect(entries, (".qweight",), (".qzeros", ".scales"), method, read)
    if isinstance(method, Packed):
        names = ("scale", "zero_point", "g_idx", "shape", "global_scale")
        others = tuple(f".weight_{name}" for name in names)
        return _collect(entries, (".weight_packed", ".weight"), others, method, _compressed)
    if isinstance(method, Fp8):
        return _collect(entries, (".weight",), (".weight_scale_inv",), method, _fp8)
    if isinstance(method, Mxfp4):
        return _collect(entries, ("_blocks",), ("_scales",), method, _mxfp4_blocks)
    return _collect(entries, (".weight",), (".scales", ".biases"), method, _mlx)


def _collect(
    entries: Mapping[str, Entry],
    mains: tuple[str, ...],
    others: tuple[str, ...],
    method: Method | None,
    read: Reader,
) -> dict[str, Part]:
    """Tensors that end in one of `mains` and have companions become one part, all others stay."""
    parts: dict[str, Part] = {}
    for name, entry in entries.items():
        main = next((end for end in mains if name.endswith(end)), None)
        if main is not None:
            module = name.removesuffix(main)
            with_it = {end: entries[module + end] for end in others if module + end in entries}
            part = read(module, entry, with_it, method) if with_it else plain(entry)
            parts[part.name] = part
        elif not _is_companion(name, entries, mains, others):
            parts[name] = plain(entry)
    return parts


def _is_companion(
    name: str, entries: Mapping[str, Entry], mains: tuple[str, ...], others: tuple[str, ...]
) -> bool:
    modules = (name.removesuffix(end) for end in others if name.endswith(end))
    return any(module + main in entries for module in modules for main in mains)


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


def _gptq(module: str, packed: Entry, others: Others, method: Method | None) -> Part:
    """Codes along the columns of the transposed matrix, zero points along its rows."""
    assert isinstance(method, Gptq)
    scales, zeros = (_other(module, packed, others, end) for end in (".scales", ".qzeros"))
    (words, rows), (groups, n_scales) = _matrix(packed), _matrix(scales)
    # Modules may have bits of their own (`dynamic`): the zero points tell them.
    zero_words = _matrix(zeros)[1]
    likely = (method.bits, *GPTQ_BITS)
    bits = next((b for b in likely if zero_words == -(-rows * b // 32)), method.bits)
    columns = words * 32 // bits
    fits = (
        packed.dtype == zeros.dtype == "I32"
        and scales.dtype in FLOATS
        and n_scales == rows
        and zeros.shape == (groups, -(-rows * bits // 32))
        and columns * bits == words * 32
        and groups > 0
        and columns % groups == 0
    )
    _check(fits, packed, scales, f"{bits}-bit codes with zero points")
    order = others.get(".g_idx")
    if order is not None:
        _check(order.dtype == "I32" and order.shape == (columns,), packed, order, "with g_idx")
    found = (packed, scales, zeros) + ((order,) if order is not None else ())
    scattered = order is not None and method.scattered
    form = Gptq(bits, method.zero_offset, scattered)
    loaded = ROUNDED if scattered else _affine(bits, columns // groups, packed)
    return Part(f"{module}.weight", (rows, columns), found, form, loaded)


def _awq(module: str, packed: Entry, others: Others, method: Method | None) -> Part:
    """Codes along the rows of the transposed matrix."""
    assert isinstance(method, Awq)
    scales, zeros = (_other(module, packed, others, end) for end in (".scales", ".qzeros"))
    (columns, words), groups = _matrix(packed), _matrix(scales)[0]
    rows = words * 8
    fits = (
        packed.dtype == zeros.dtype == "I32"
        and scales.dtype in FLOATS
        and scales.shape == (groups, rows)
        and zeros.shape == (groups, words)
        and groups > 0
        and columns % groups == 0
    )
    _check(fits, packed, scales, "4-bit codes with zero points")
    loaded = _affine(method.bits, columns // groups, packed)
    return Part(f"{module}.weight", (rows, columns), (packed, scales, zeros), method, loaded)


def _awq_rows(module: str, packed: Entry, others: Others, method: Method | None) -> Part:
    """Rows of codes as they are; words of zero points, and scales, are padded for a kernel."""
    assert isinstance(method, Awq)
    scales, zeros = (_other(module, packed, others, end) for end in (".scales", ".qzeros"))
    (rows, words), (n_rows, n_scales), zero_words = _matrix(packed), _matrix(scales), zeros.shape
    columns = words * 8
    group_size = next((size for size in (32, 64, 128) if _padded(columns, size) == n_scales), 0)
    fits = (
        packed.dtype == zeros.dtype == "I32"
        and scales.dtype in FLOATS
        and group_size > 0
        and rows == n_rows
        and zero_words == (rows, n_scales // 8)
    )
    _check(fits, packed, scales, "4-bit codes with zero points in rows (gemv)")
    loaded = _affine(method.bits, group_size, packed)
    return Part(f"{module}.weight", (rows, columns), (packed, scales, zeros), method, loaded)


def _padded(columns: int, group_size: int) -> int:
    """Scales of a row in the `gemv` layout: whole words of zero points, and of those a multiple of
    as many as make 128 columns (https://github.com/casper-hansen/AutoAWQ, `calculate_zeros_width`).
    0 where the groups are not whole."""
    if columns % group_size:
        return 0
    words, multiple = -(-columns // group_size // 8), 128 // group_size
    return -(-words // multiple) * multiple * 8


def _compressed(module: str, main: Entry, others: Others, method: Method | None) -> Part:
    """compressed-tensors: what a module's main tensor is says in which format it is."""
    assert isinstance(method, Packed)
    scales = _other(module, main, others, ".weight_scale")
    zeros = others.get(".weight_zero_point")
    if main.dtype == "I32":
        return _words(module, main, scales, others, method.bits)
    if main.dtype == "U8":
        return _fp4(module, main, scales, others)
    rows, columns = _matrix(main)
    if main.dtype == "I8":
        groups = scales.shape[1] if len(scales.shape) == 2 else 1
        fits = scales.dtype in FLOATS and scales.shape in ((rows, groups), (1,), (), (1, 1))
        _check(fits and groups > 0 and columns % groups == 0, main, scales, "8-bit with scales")
        if zeros is not None:
            _check((zeros.dtype, zeros.shape) == ("I8", scales.shape), main, zeros, "8-bit")
        found = (main, scales) + ((zeros,) if zeros is not None else ())
        loaded = _affine(8, columns // groups, main)
        return Part(f"{module}.weight", main.shape, found, Octets(), loaded)
    return _e4m3(main, scales, _blocks_like(main, scales))


def _words(module: str, packed: Entry, scales: Entry, others: Others, bits: int) -> Part:
    zeros, order = others.get(".weight_zero_point"), others.get(".weight_g_idx")
    (rows, words), (n_rows, groups) = _matrix(packed), _matrix(scales)
    columns = words * 32 // bits if bits else 0
    zero_words = -(-rows * bits // 32)
    fits = (
        bits > 0
        and scales.dtype in FLOATS
        and n_rows == rows
        and columns * bits == words * 32
        and groups > 0
        and columns % groups == 0
        and (zeros is None or (zeros.dtype, zeros.shape) == ("I32", (zero_words, groups)))
    )
    _check(fits, packed, scales, f"{bits}-bit codes in whole groups")
    if order is not None:
        fits = order.dtype in ("I32", "I64") and order.shape == (columns,)
        _check(fits, packed, order, "with the group of each column")
    found = tuple(entry for entry in (packed, scales, zeros, order) if entry is not None)
    form = Words(bits, zeros is not None, order is not None)
    loaded = ROUNDED if order is not None else _affine(bits, columns // groups, packed)
    return Part(f"{module}.weight", (rows, columns), found, form, loaded)


def _fp4(module: str, packed: Entry, scales: Entry, others: Others) -> Part:
    """Two FP4 numbers in a byte: MXFP4 with exponents, NVFP4 with numbers of their own."""
    rows, octets = _matrix(packed)
    columns = 2 * octets
    name, divisor = f"{module}.weight", others.get(".weight_global_scale")
    if divisor is None:
        fits = scales.dtype in ("U8", "F8_E8M0") and scales.shape == (rows, columns // 32)
        _check(fits and columns % 32 == 0, packed, scales, "FP4 in blocks of 32")
        return Part(name, (rows, columns), (packed, scales), Fp4(), FP4)
    fits = scales.dtype == "F8_E4M3" and scales.shape == (rows, columns // 16)
    fits = fits and columns % 32 == 0 and divisor.dtype == "F32" and divisor.shape in ((), (1,))
    _check(fits, packed, scales, "FP4 in blocks of 16")
    return Part(name, (rows, columns), (packed, scales, divisor), Nvfp4(), NVFP4)


def _fp8(module: str, weight: Entry, others: Others, method: Method | None) -> Part:
    assert isinstance(method, Fp8)
    scales = _other(module, weight, others, ".weight_scale_inv")
    blocks = Fp8Blocks(method.rows, method.columns)
    return _e4m3(weight, scales, blocks if method.rows else _blocks_like(weight, scales))


def _blocks_like(weight: Entry, scales: Entry) -> Fp8Blocks:
    """One scale for all, one for each row, or one for each block of 128 x 128."""
    rows, columns = _matrix(weight)
    if scales.shape in ((), (1,), (1, 1)):
        return Fp8Blocks(rows, columns)
    return Fp8Blocks(1, columns) if scales.shape in ((rows,), (rows, 1)) else Fp8Blocks(128, 128)


def _e4m3(weight: Entry, scales: Entry, blocks: Fp8Blocks) -> Part:
    rows, columns = _matrix(weight)
    _check(rows * columns > 0, weight, scales, "a matrix of numbers")
    grid = (-(-rows // blocks.rows), -(-columns // blocks.columns))
    shapes: list[tuple[int, ...]] = [grid, grid[:1]] if grid[1] == 1 else [grid]
    shapes += [()] if grid == (1, 1) else []
    fits = weight.dtype == "F8_E4M3" and scales.dtype in FLOATS and scales.shape in shapes
    _check(fits, weight, scales, f"FP8 in blocks of {blocks.rows} x {blocks.columns}")
    _check(columns % ROUNDED.group_size == 0, weight, scales, "of whole groups of columns")
    return Part(weight.name, (rows, columns), (weight, scales), blocks, ROUNDED)


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


def _affine(bits: int, columns: int, entry: Entry) -> Affine:
    """The form of codes in groups of `columns` neighbours: groups as large as may be."""
    for size in (128, 64, 32, 16):
        if columns % size == 0:
            return Affine(8 if bits == 7 else bits, size, "f32")  # nothing multiplies 7 bits
    raise CheckpointError(
        f"{entry.file}: tensor `{entry.name}` has groups of {columns} columns, expected a "
        "multiple of 16",
        hint="Use a conversion with groups of 32, 64 or 128.",
    )


def _matrix(entry: Entry) -> tuple[int, int]:
    if len(entry.shape) != 2:
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
