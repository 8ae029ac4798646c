"""Packed group-affine matrices: words of 32 bits, arranged as the kernels read them.

A group of g columns fills U = g LOW / 32 words of the lower plane; code j of its word u is column
j U + u. Codes of more bits than `LOW` have their upper bits in a second plane, in the order of
words and then j. But for zeros at a row's end no bit is added: a matrix takes what its file takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gangline.engine.backends.torch.fused import Fused

BLOCK_NUMBERS = 1 << 24  # numbers that are unpacked at a time
WORD = 32

# Bits of a code → bits in the lower plane and in the upper one: those divide a word.
PLANES = {2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}

Index = Any  # int, slice or a tensor of numbers


class Packed:
    """Matrices (…, N, K) of `scale * q + offset`, K in groups; multiplied in bf16 or better."""

    def __init__(self, parts: Sequence[torch.Tensor], bits: int, fused: Fused | None) -> None:
        self.parts = tuple(parts)  # the lower plane, the upper one if there is one, scales, offsets
        self.bits = bits
        self.fused = fused  # kernels for the device; None: unpacked at each use

    @staticmethod
    def of(
        stream: torch.Tensor,
        scales: torch.Tensor,
        offsets: torch.Tensor,
        bits: int,
        fused: Fused | None,
    ) -> Packed:
        """From rows of bytes (N, K bits / 8) as a checkpoint has them, lowest bits first."""
        n_groups = scales.shape[-1]
        n_columns = stream.shape[-1] * 8 // bits
        block = max(1, BLOCK_NUMBERS // n_columns)
        planes = [planes_of(unpack(rows, bits), bits, n_groups) for rows in stream.split(block)]
        joined = [torch.cat(list(same)) for same in zip(*planes, strict=True)]
        return Packed([*joined, scales, offsets], bits, fused)

    @property
    def scales(self) -> torch.Tensor:
        return self.parts[-2]

    @property
    def offsets(self) -> torch.Tensor:
        return self.parts[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        low, _ = PLANES[self.bits]
        *outer, n_words = self.parts[0].shape
        return *outer, n_words * (WORD // low)

    @property
    def group_size(self) -> int:
        return self.shape[-1] // int(self.scales.shape[-1])

    def codes(self, index: Index) -> torch.Tensor:
        """int32 (…, K) in the order of columns, of what `index` chooses along the first axis."""
        low, high = PLANES[self.bits]
        per_word, n_groups = WORD // low, self.scales.shape[-1]
        lower = _spread(self.parts[0][index], low)  # (…, words, per word)
        codes = lower.unflatten(-2, (n_groups, -1)).transpose(-1, -2)  # (…, groups, per word, U)
        if high:
            upper = _spread(self.parts[1][index], high).flatten(-2)[..., : self.shape[-1]]
            upper = upper.unflatten(-1, (n_groups, -1, per_word)).transpose(-1, -2)
            codes = codes | upper << low
        return codes.flatten(-3)

    def at(self, index: Index, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """What `index` chooses along the first axis, as numbers (…, K)."""
        codes, scales, offsets = self.codes(index), self.scales[index], self.offsets[index]
        groups = codes.unflatten(-1, (scales.shape[-1], -1)).float()
        values = groups * scales.float()[..., None] + offsets.float()[..., None]
        return values.flatten(-2).to(dtype)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x (T, K) -> (T, N) float32."""
        if self.fused is not None:
            return self.fused.product(x, self)
        n_rows, n_columns = self.shape
        block = max(1, BLOCK_NUMBERS // n_columns)
        blocks = [slice(start, start + block) for start in range(0, n_rows, block)]
        return beside([times(x, self.at(block)) for block in blocks])


def planes_of(codes: torch.Tensor, bits: int, n_groups: int) -> list[torch.Tensor]:
    """The planes, int32 words, of codes uint8 (…, K) in the order of columns."""
    low, high = PLANES[bits]
    ordered = codes.unflatten(-1, (n_groups, WORD // low, -1)).transpose(-1, -2).flatten(-3)
    lower = _words(ordered & ((1 << low) - 1), low)
    return [lower, _words(ordered >> low, high)] if high else [lower]


def unpack(stream: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 (…, B) -> uint8 (…, 8 B / bits): eight numbers in every `bits` bytes."""
    groups = stream.unflatten(-1, (-1, bits)).to(torch.int16)
    numbers = []
    for number in range(8):
        byte, shift = divmod(number * bits, 8)
        bits_from_here = groups[..., byte] >> shift
        if shift + bits > 8:
            bits_from_here = bits_from_here | (groups[..., byte + 1] << (8 - shift))
        numbers.append(bits_from_here & ((1 << bits) - 1))
    return torch.stack(numbers, -1).to(torch.uint8).flatten(-2)


def times(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """x (…, T, K), values (…, N, K) -> (…, T, N) float32, in the precision of the values."""
    return (x.to(values.dtype) @ values.transpose(-1, -2)).float()


def beside(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    return columns[0] if len(columns) == 1 else torch.cat(list(columns), -1)


def _words(codes: torch.Tensor, width: int) -> torch.Tensor:
    """uint8 (…, n) of `width` bits -> int32 words (…, n width / 32), lowest bits first."""
    per_word = WORD // width
    missing = -codes.shape[-1] % per_word
    padded = torch.nn.functional.pad(codes, (0, missing)).unflatten(-1, (-1, per_word))
    return (padded.to(torch.int64) << _places(width, codes.device)).sum(-1).to(torch.int32)


def _spread(words: torch.Tensor, width: int) -> torch.Tensor:
    """int32 (…, W) -> (…, W, 32 / width), the inverse of `_words`."""
    return words[..., None] >> _places(width, words.device) & ((1 << width) - 1)


def _places(width: int, device: torch.device) -> torch.Tensor:
    """Where the codes of a word begin."""
    return torch.arange(0, WORD, width, dtype=torch.int32, device=device)
