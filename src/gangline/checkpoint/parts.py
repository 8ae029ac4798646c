"""What a model's tensors are made of: one `Part` for each tensor that the engine may ask for.

A part has the name that Hugging Face gives the tensor, the place of its bytes, the form that they
have there, and what has to be done with the numbers. Reads nothing; `convert.py` does the work.
"""

from __future__ import annotations

from math import prod

import msgspec

from gangline.checkpoint.block_types import BLOCK_TYPES, Affine
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.quantization import Awq, Gptq, GroupAffine

ROUNDED = Affine(8, 64, "bf16")  # what becomes of numbers that no affine form holds exactly
FP4 = Affine(5, 32, "bf16")  # FP4 numbers and their power of two, exactly
NVFP4 = Affine(5, 16, "f32")  # FP4 numbers and the product of their two scales


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


class Words(msgspec.Struct, frozen=True, tag=True):
    """Entries: codes as a stream of bits in each row, scales; zero points along the rows (or none:
    the middle), groups of columns (or none: neighbours)."""

    bits: int
    zeros: bool
    scattered: bool


class Octets(msgspec.Struct, frozen=True, tag=True):
    """Entries: signed bytes, scales (N, groups), one for all, or one for each row; zero points of
    the scales' shape (or none)."""


class Fp8Blocks(msgspec.Struct, frozen=True, tag=True):
    """Entries: E4M3 numbers, scales of blocks of this size (the last ones may be smaller)."""

    rows: int
    columns: int


class Nvfp4(msgspec.Struct, frozen=True, tag=True):
    """Entries: FP4 numbers two in a byte, E4M3 scales of 16 columns, one divisor of all scales."""


Form = (
    Plain | Mlx | Fp4 | Gptq | Awq | Words | Octets | Fp8Blocks | Nvfp4 | LatentHeads | MixedHeads
)


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
