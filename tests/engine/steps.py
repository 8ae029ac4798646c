"""Running decoders in tests: spans as a chain, prompts whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import F32, Batch, CacheDtype
from gangline.facts import Span


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


class Chain:
    """A model cut into spans, each with a checkpoint and a cache of its own."""

    def __init__(
        self,
        folder: Path,
        cuts: Sequence[int] = (),
        *,
        backend: str = "cpu",
        context: int = 128,
        cache_dtype: CacheDtype = "f32",
    ) -> None:
        n_layers = open_checkpoint(folder).shape.n_layers
        edges = [0, *cuts, n_layers]
        self.stages = [
            Decoder(
                open_checkpoint(folder),
                open_backend(backend, 1),
                Span(start, end),
                head=start == 0 and number == 0,
                context=context,
                lanes=4,
                cache_dtype=cache_dtype,
            )
            for number, (start, end) in enumerate(pairwise(edges))
        ]

    def step(self, sequences: Sequence[tuple[int, int, Sequence[int]]]) -> list[F32]:
        """Sequences of (slot, start, ids) -> logits (n, V) of every row of each of them."""
        slots, starts = (ints(*(s[i] for s in sequences)) for i in (0, 1))
        counts = ints(*(len(ids) for _, _, ids in sequences))
        batch = Batch.of(slots, starts, counts)
        x = self.stages[0].embed(ints(*(id for _, _, ids in sequences for id in ids)))
        for stage in self.stages:
            x = stage.forward(x, batch)
        logits = self.stages[0].logits(x)
        return np.split(logits, np.cumsum(counts)[:-1])

    def run(self, ids: Sequence[int], chunks: Sequence[int] | None = None, slot: int = 0) -> F32:
        """Logits (T, V) of a prompt that is fed in chunks."""
        rows, start = [], 0
        for count in chunks or [len(ids)]:
            rows += self.step([(slot, start, ids[start : start + count])])
            start += count
        return np.concatenate(rows)
