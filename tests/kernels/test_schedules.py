"""Promise 2 over whole models: whatever the schedule, the bits are those of one token at a time.

A drawn schedule decides everything that may differ between two runs of the same sequences: the
vector path, the number of threads, which lanes a step has, in which order and in which slots, and
how many rows each of them brings. Every hidden state and every row of logits is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gangline import _kernels
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import F32, Batch
from gangline.facts import Span
from tests.kernels.arrays import same_bits
from tests.make_checkpoint import make_checkpoint

LAYERS, VOCAB, CONTEXT, LANES = 2, 301, 200, 3
# More than two blocks of the cache; more rows than a tile of any path; and very short ones.
LENGTHS = (139, 66, 21, 5, 1)
KINDS = ("q4", "q8", "bf16")
LONGEST = 90  # rows that one sequence brings to a step


class Chunk(NamedTuple):
    """Rows [start, start + count) of a sequence, in a step."""

    sequence: int
    slot: int
    start: int
    count: int


class Schedule(NamedTuple):
    path: str
    threads: int
    steps: list[list[Chunk]]


class Model:
    """A random model wide enough that its work is split over threads, and the plain run of it."""

    def __init__(self, folder: Path, kind: str) -> None:
        random = np.random.default_rng(KINDS.index(kind))
        path = make_checkpoint(
            folder, kind=kind, n_layers=LAYERS, hidden=128, ffn=288, vocab=VOCAB, context=CONTEXT
        )
        self.decoder = Decoder(
            open_checkpoint(path),
            open_backend("cpu", 1),
            Span(0, LAYERS),
            head=True,
            context=CONTEXT,
            lanes=LANES,
        )
        self.ids = [random.integers(0, VOCAB, length).astype(np.int32) for length in LENGTHS]
        _kernels.use_path("scalar")
        self.plain = [
            np.concatenate([self.step([Chunk(n, 0, at, 1)])[0] for at in range(length)])
            for n, length in enumerate(LENGTHS)
        ]

    def step(self, chunks: Sequence[Chunk]) -> list[F32]:
        """Of each chunk hidden states and logits (count, D + V)."""
        rows = [(chunk.slot, chunk.start, chunk.count) for chunk in chunks]
        slots, starts, counts = np.array(rows, np.int32).T
        ids = [self.ids[one.sequence][one.start : one.start + one.count] for one in chunks]
        decoder = self.decoder
        hidden = decoder.forward(
            decoder.embed(np.concatenate(ids)), Batch.of(slots, starts, counts)
        )
        logits = decoder.logits(hidden)
        return np.split(np.concatenate([hidden, logits], axis=1), np.cumsum(counts)[:-1])


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp(request.param), request.param)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Every row of every sequence once and in order; a slot is used again once it is free."""
    path = draw(st.sampled_from(_kernels.paths()))
    threads = draw(st.integers(1, 4))
    waiting = draw(st.permutations(range(len(LENGTHS))))
    free = draw(st.permutations(range(LANES)))
    running: dict[int, tuple[int, int]] = {}  # sequence to (slot, rows done)
    steps: list[list[Chunk]] = []
    while waiting or running:
        while waiting and free and (not running or draw(st.booleans())):
            running[waiting.pop()] = (free.pop(), 0)
        order = draw(st.permutations(list(running)))
        step = []
        for sequence in order[: draw(st.integers(1, len(order)))]:
            slot, done = running[sequence]
            # Long sequences must not take a hundred steps: a chunk is one row, or a good part.
            most = min(LENGTHS[sequence] - done, LONGEST)
            count = draw(st.one_of(st.integers(1, most), st.integers(min(most, 9), most)))
            step.append(Chunk(sequence, slot, done, count))
            running[sequence] = (slot, done + count)
            if done + count == LENGTHS[sequence]:
                del running[sequence]
                free.append(slot)
        steps.append(step)
    return Schedule(path, threads, steps)


@given(schedule=schedules())
@settings(
    max_examples=60,
    deadline=None,
    # Drawing a schedule is a long simulation: that is slow and takes much data by its nature.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_no_schedule_changes_a_bit(model: Model, schedule: Schedule) -> None:
    _kernels.use_path(schedule.path)
    _kernels.set_threads(schedule.threads)
    for step in schedule.steps:
        for chunk, found in zip(step, model.step(step), strict=True):
            expected = model.plain[chunk.sequence][chunk.start : chunk.start + chunk.count]
            assert same_bits(found, expected), chunk


def test_the_plain_run_is_finite_and_tokens_matter(model: Model) -> None:
    """Otherwise equal bits would say nothing."""
    for rows in model.plain:
        assert np.isfinite(rows).all()
    assert np.ptp(model.plain[0][:, 128:], axis=0).min() > 1e-3
