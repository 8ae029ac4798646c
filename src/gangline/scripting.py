"""A model in this process, for people who script: no node, no network, token ids in and out.

`gangline.load_model` is the way in. Text, several machines and many requests at a time are the
business of `gangline up`; docs/scripting.md has examples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.shape import ModelShape
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import Batch
from gangline.errors import ContextTooLong, UsageError
from gangline.facts import Span
from gangline.head.requests import Sampling
from gangline.head.sampler import sample

CHUNK_ROWS = 256  # tokens of a prompt per step, as a worker does it
DEFAULT_CONTEXT = 4096

Ids = Sequence[int] | NDArray[np.integer]


class Model:
    """All layers of a checkpoint, with room for one sequence of up to `context` tokens.

    What was computed last stays in the cache: a sequence that goes on where it ended, as in a
    chat, computes its new tokens only.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._cached: list[int] = []  # the tokens whose keys and values the cache holds

    @property
    def shape(self) -> ModelShape:
        """Sizes and facts of the model."""
        return self._decoder.shape

    @property
    def context(self) -> int:
        """Tokens of a sequence, prompt and answer together."""
        return self._decoder.context

    def logits(self, ids: Ids) -> NDArray[np.float32]:
        """ids (T,), the tokens of a sequence from its first -> float32 (T, vocabulary).

        Row t holds the logits of the token behind `ids[t]`.
        """
        tokens = self._checked(ids)
        self._cached = []
        return self._run(tokens, every_row=True)

    def generate(
        self,
        ids: Ids,
        *,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Collection[int] | None = None,
    ) -> Iterator[int]:
        """The tokens that follow `ids`, one by one as they are computed.

        Ends behind `max_tokens` tokens, where the context ends, or at one of the ids in `stop`,
        which is not given (`None`: the model's own end tokens). The same seed draws the same
        tokens; a temperature of 0 takes the likeliest. Of two iterators of one model only the
        newer may be used.
        """
        tokens = self._checked(ids)
        if max_tokens < 0:
            raise UsageError(f"max_tokens is {max_tokens}, expected 0 or more", param="max_tokens")
        if not temperature >= 0:
            raise UsageError(
                f"temperature is {temperature}, expected 0 or more", param="temperature"
            )
        if not 0 < top_p <= 1:
            raise UsageError(f"top_p is {top_p}, expected 0 < top_p <= 1", param="top_p")
        ends = frozenset(self.shape.eos_ids if stop is None else stop)
        sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
        return self._generate(tokens, min(len(tokens) + max_tokens, self.context), sampling, ends)

    def _generate(
        self, tokens: list[int], last: int, sampling: Sampling, ends: frozenset[int]
    ) -> Iterator[int]:
        while len(tokens) < last:
            n_known = _common(self._cached, tokens[:-1])
            # A state without positions cannot go back, only on.
            if n_known < len(self._cached) and any(self.shape.state_bytes_per_lane()):
                n_known = 0
            del self._cached[n_known:]
            token = sample(self._run(tokens[n_known:])[0], sampling, len(tokens))
            if token in ends:
                return
            tokens.append(token)
            yield token

    def _run(self, tokens: list[int], *, every_row: bool = False) -> NDArray[np.float32]:
        """Append to what is cached; logits of every token's row, or of the last one's (1, V)."""
        decoder, found = self._decoder, []
        for first in range(0, len(tokens), CHUNK_ROWS):
            chunk = np.array(tokens[first : first + CHUNK_ROWS], np.int32)
            start = np.array([len(self._cached)], np.int32)
            batch = Batch.of(np.zeros(1, np.int32), start, np.array([len(chunk)], np.int32))
            rows = np.arange(len(chunk), dtype=np.int32)
            if not every_row:
                rows = rows[len(tokens) - 1 - first :]  # the last token's, if it is here
            hidden = decoder.forward(decoder.embed(chunk), batch, rows)
            self._cached += chunk.tolist()
            if len(rows):
                found.append(decoder.logits(hidden))
        return np.concatenate(found)

    def _checked(self, ids: Ids) -> list[int]:
        tokens = [int(id) for id in ids]
        if not tokens:
            raise UsageError("no token ids, expected at least one", param="ids")
        if len(tokens) > self.context:
            raise ContextTooLong(
                f"{len(tokens)} tokens, the model was loaded for {self.context}",
                hint="Load it with a larger `context`.",
                param="ids",
            )
        wrong = [id for id in tokens if not 0 <= id < self.shape.vocab]
        if wrong:
            raise UsageError(
                f"token id {wrong[0]}, the vocabulary has {self.shape.vocab}", param="ids"
            )
        return tokens


def load(path: Path | str, backend: str, context: int | None, threads: int | None) -> Model:
    """What `gangline.load_model` does."""
    checkpoint = open_checkpoint(path)
    shape = checkpoint.shape
    decoder = Decoder(
        checkpoint,
        open_backend(backend, threads),
        Span(0, shape.n_layers),
        head=True,
        context=min(shape.context, DEFAULT_CONTEXT) if context is None else context,
        lanes=1,
    )
    return Model(decoder)


def _common(one: list[int], other: list[int]) -> int:
    """With how many equal tokens both begin."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
