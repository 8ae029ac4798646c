"""Launching the Triton kernels: products with packed weights that never unpack them to memory.

Triton comes with PyTorch's builds for CUDA and ROCm. `Fused.of` compares each kernel once per
process with the same done by PyTorch's own operations; where one cannot be compiled, fails or
deviates, none is used. Sizes follow from shapes alone, and nothing asks the device for a value: a
call can be recorded in a CUDA graph once a first one has compiled its kernels.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from gangline.engine.backends.torch.packed import PLANES, Packed, planes_of

if TYPE_CHECKING:
    from gangline.engine.backends.torch.attention import Cache, Group
    from gangline.engine.operations import Attention

log = logging.getLogger(__name__)

TOLERANCE = 0.02  # of the largest result: tiles are multiplied in bf16, which has 8 bits
LARGEST_HEAD = 256  # dimensions of a head that a block of keys has room for
PROGRAMS = 256  # parts of an attention that keep a large GPU busy

# Outputs and words of a program, and its warps. One warp has words of one row side by side: it
# reads 512 bytes at a time and needs no barrier. Counted in machine code (docs/kernels.md), never
# timed.
ALONE = {"BLOCK_OUT": 4, "BLOCK_WORDS": 128, "num_warps": 1}
TILE = {"BLOCK_OUT": 64, "BLOCK_WORDS": 32, "num_warps": 4, "num_stages": 2}
TILE_ROWS = (16, 32, 64)  # of `tl.dot`: the least that holds all rows, or the largest


class Tiles(NamedTuple):
    """Pairs of a row and a matrix, cut into tiles of one matrix each."""

    order: torch.Tensor  # (P,) pairs, those of one matrix next to each other
    matrices: torch.Tensor  # (n_tiles,)
    firsts: torch.Tensor  # (n_tiles,) of a tile in `order`
    ends: torch.Tensor  # (n_tiles,) of its matrix's pairs in `order`; 0: a tile of nothing
    n_rows: int  # of a tile


class Fused:
    """The kernels on one device; `precision` is that in which tiles are multiplied."""

    def __init__(self, device: torch.device, precision: torch.dtype) -> None:
        self.device, self.precision = device, precision

    @staticmethod
    @cache
    def of(device: torch.device) -> Fused | None:
        """The kernels for a device, or None where they do not work.

        On a CPU they run only in Triton's interpreter, for tests: it has no bf16.
        """
        interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
        if not interpreted and not has_tensor_cores(device):
            return None
        fused = Fused(device, torch.float32 if interpreted else torch.bfloat16)
        try:
            deviation = fused.deviation()
        except Exception as error:  # noqa: BLE001
            # Triton and its compilers raise whatever they like on a device that they do not know;
            # without them everything still runs, only slower.
            log.warning("no Triton kernels on %s: %s", device, error)
            return None
        if not deviation <= TOLERANCE:
            log.warning("Triton kernels on %s deviate by %.3g: not used", device, deviation)
            return None
        return fused

    def product(self, x: torch.Tensor, matrix: Packed) -> torch.Tensor:
        """x (T, K), matrix (N, K) -> (T, N) float32."""
        if len(x) == 1:
            return self._alone(x, matrix, None)
        return self._tiled(x, matrix, None, len(x))

    def tiles(self, chosen: torch.Tensor, n_matrices: int) -> Tiles | None:
        """How to cut pairs with the matrices `chosen` (P,); None: each pair by itself.

        Up to half as many pairs as matrices few of them share one, and sorting would not pay.
        """
        n_pairs = len(chosen)
        if n_pairs <= max(1, n_matrices // 2):
            return None
        return tiles_of(chosen, n_matrices, _tile_rows(n_pairs // n_matrices))

    def chosen_product(
        self, x: torch.Tensor, matrices: Packed, chosen: torch.Tensor, tiles: Tiles | None
    ) -> torch.Tensor:
        """x (T, K), matrices (E, N, K), chosen (P,), P / T of each row -> (P, N) float32."""
        if tiles is None:
            return self._alone(x, matrices, chosen)
        return self._tiled(x, matrices, tiles, len(chosen))

    def attends(self, rules: Attention) -> bool:
        """Whether `attend` can do these heads."""
        return max(rules.head_dim, rules.value_dim) <= LARGEST_HEAD

    def attend(
        self,
        queries: torch.Tensor,
        cache: Cache,
        group: Group,
        rules: Attention,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """queries (S, H Dh), scaled, one row of each lane -> (S, H Dv), from the cache itself."""
        n_rows, heads, value_dim = len(queries), rules.n_heads, rules.value_dim
        sharing = heads // rules.n_kv_heads
        value_block = max(16, _power_of_two(value_dim))
        block_keys = 32 if max(rules.head_dim, value_dim) <= LARGEST_HEAD // 2 else 16
        n_parts = _parts(n_rows * rules.n_kv_heads, rules.window or group.length, block_keys)
        sums = queries.new_empty((n_rows, heads, n_parts, value_dim))
        largest, totals = queries.new_empty((2, n_rows, heads, n_parts))
        launch(
            "attend_part", (n_rows, rules.n_kv_heads, n_parts),
            queries.contiguous(), cache.keys, cache.values, group.slots, group.positions,
            sums, largest, totals, *cache.keys.stride()[:3], *cache.values.stride()[:3],
            heads, rules.window, rules.soft_cap,
            SOFT_CAP=bool(rules.soft_cap), SHARING=sharing, ROWS=max(16, _power_of_two(sharing)),
            DIM=rules.head_dim, DIM_BLOCK=max(16, _power_of_two(rules.head_dim)),
            VALUE_DIM=value_dim, VALUE_BLOCK=value_block, BLOCK_KEYS=block_keys, N_PARTS=n_parts,
            num_warps=2,
        )  # fmt: skip
        y = queries.new_empty((n_rows, heads * value_dim))
        launch(
            "attend_join", (n_rows * heads,),
            sums, largest, totals, largest if sinks is None else sinks, y, heads,
            SINKS=sinks is not None, VALUE_DIM=value_dim, VALUE_BLOCK=value_block, N_PARTS=n_parts,
            num_warps=2,
        )  # fmt: skip
        return y

    def deviation(self) -> float:
        """The largest of all kernels, as a part of the largest result."""
        return max(*(_product_deviation(self, bits) for bits in (4, 6)), _attention_deviation(self))

    def _alone(self, x: torch.Tensor, matrix: Packed, chosen: torch.Tensor | None) -> torch.Tensor:
        n_outputs, n_pairs = matrix.shape[-2], 1 if chosen is None else len(chosen)
        y = x.new_empty((n_pairs, n_outputs), dtype=torch.float32)
        weights, forms = _arguments(matrix)
        launch(
            "multiply_alone", (-(-n_outputs // ALONE["BLOCK_OUT"]), n_pairs),
            x.float().contiguous(), *weights, y if chosen is None else chosen, y,
            n_pairs // len(x), n_outputs, matrix.scales.shape[-1],
            CHOSEN=chosen is not None, **forms, **ALONE,
        )  # fmt: skip
        return y

    def _tiled(
        self, x: torch.Tensor, matrix: Packed, tiles: Tiles | None, n_pairs: int
    ) -> torch.Tensor:
        n_outputs = matrix.shape[-2]
        y = x.new_empty((n_pairs, n_outputs), dtype=torch.float32)
        n_rows = _tile_rows(n_pairs) if tiles is None else tiles.n_rows
        n_tiles = -(-n_pairs // n_rows) if tiles is None else len(tiles.firsts)
        table = (y, y, y, y) if tiles is None else tiles[:4]
        weights, forms = _arguments(matrix)
        launch(
            "multiply_tiles", (n_tiles, -(-n_outputs // TILE["BLOCK_OUT"])),
            x.to(self.precision).contiguous(), *weights, *table, y,
            n_pairs, n_pairs // len(x), n_outputs, matrix.scales.shape[-1],
            CHOSEN=tiles is not None, BLOCK_ROWS=n_rows, **forms, **TILE,
        )  # fmt: skip
        return y


def has_tensor_cores(device: torch.device) -> bool:
    """Whether it is a GPU that Triton has code for and that multiplies bf16: NVIDIA's from compute
    capability 8.0 on (RTX 30, A100), and AMD's."""
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def launch(name: str, grid: tuple[int, ...], *arguments: object, **constants: int) -> None:
    """Queue a kernel of `kernels.py`; Triton is imported with the first one."""
    from gangline.engine.backends.torch import kernels

    getattr(kernels, name)[grid](*arguments, **constants)


def tiles_of(chosen: torch.Tensor, n_matrices: int, n_rows: int) -> Tiles:
    """Tiles of at most `n_rows` pairs; as many as there can be, whatever was chosen."""
    n_pairs = len(chosen)
    chosen = chosen.to(torch.int64)
    order = chosen.sort(stable=True).indices
    counts = torch.zeros(n_matrices, dtype=torch.int64, device=chosen.device)
    counts = counts.scatter_add(0, chosen, torch.ones_like(chosen))
    ends = counts.cumsum(0)
    n_tiles = (counts + n_rows - 1) // n_rows
    tile_ends = n_tiles.cumsum(0)
    tile = torch.arange(min(n_matrices, n_pairs) + n_pairs // n_rows, device=chosen.device)
    found = torch.searchsorted(tile_ends, tile, right=True)  # n_matrices: a tile of nothing
    matrix = found.clamp(max=n_matrices - 1)
    before = (tile_ends - n_tiles)[matrix]  # tiles of earlier matrices
    firsts = (ends - counts)[matrix] + (tile - before) * n_rows
    return Tiles(order, matrix, firsts, torch.where(found < n_matrices, ends[matrix], 0), n_rows)


def _arguments(matrix: Packed) -> tuple[tuple[torch.Tensor, ...], dict[str, int]]:
    """What a kernel takes of a matrix: tensors, and constants."""
    low, high = PLANES[matrix.bits]
    upper = matrix.parts[1] if high else matrix.parts[0]
    weights = matrix.parts[0], upper, matrix.scales, matrix.offsets
    return weights, {"LOW": low, "HIGH": high, "GROUP": matrix.group_size}


def _tile_rows(n_rows: int) -> int:
    return next((size for size in TILE_ROWS if n_rows <= size), TILE_ROWS[-1])


def _parts(n_programs: int, n_keys: int, block_keys: int) -> int:
    """Into how many parts the keys of each row and head are cut: a power of two."""
    wanted = min(PROGRAMS // n_programs, n_keys // (2 * block_keys))
    return 1 << max(0, wanted.bit_length() - 1)


def _power_of_two(number: int) -> int:
    """The least one that is not below."""
    return 1 << (number - 1).bit_length()


def _product_deviation(fused: Fused, bits: int) -> float:
    """Of products with one matrix and with chosen ones, of few rows and of many."""
    generator = torch.Generator().manual_seed(bits)
    shape, n_groups = (3, 70, 320), 5
    codes = torch.randint(0, 1 << bits, shape, generator=generator).to(torch.uint8)
    scales, offsets = (torch.rand(2, *shape[:2], n_groups, generator=generator) - 0.5).bfloat16()
    parts = [part.to(fused.device) for part in (*planes_of(codes, bits, n_groups), scales, offsets)]
    matrices = Packed(parts, bits, fused)
    one = Packed([part[1] for part in parts], bits, fused)
    x = torch.randn(40, shape[-1], generator=generator).to(fused.device)
    chosen = torch.randint(0, 3, (80,), generator=generator).to(fused.device)
    exact = matrices.at(slice(None), torch.float32)
    by_pair = (x.repeat_interleave(2, 0)[:, None] @ exact[chosen].transpose(1, 2))[:, 0]
    cases = [
        (fused.product(x, one), x @ exact[1].T),
        (fused.product(x[:1], one), x[:1] @ exact[1].T),
        (fused.chosen_product(x[:4], matrices, chosen[:8], None), by_pair[:8]),
        (fused.chosen_product(x, matrices, chosen, tiles_of(chosen, 3, TILE_ROWS[0])), by_pair),
    ]
    return max(_difference(found, expected) for found, expected in cases)


def _attention_deviation(fused: Fused) -> float:
    """Of three lanes with a window, a sink and capped scores, beside the way without kernels."""
    from gangline.engine.backends.torch.attention import Cache, Group, attend_gathered
    from gangline.engine.operations import Attention

    rules = Attention(6, 2, 64, 64, 0.125, window=150, soft_cap=30.0)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(fused.device)

    cache = Cache(4, 256, rules, "f16", fused.device)
    cache.keys.copy_(normal(*cache.keys.shape))
    cache.values.copy_(normal(*cache.values.shape))
    slots, positions = (
        torch.tensor(numbers, device=fused.device) for numbers in ([3, 0, 1], [[200], [0], [77]])
    )
    group = Group(0, 3, slots, positions, 256)
    queries, sinks = normal(3, 6 * 64), normal(6)
    found = fused.attend(queries, cache, group, rules, sinks)
    return _difference(found, attend_gathered(queries, cache, group, rules, sinks))


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
