"""Which tokens the next step computes: continuous batching as a pure data structure.

A lane is one running sequence in one cache slot. Each step mixes the next token of lanes that
decode with chunks of prompts that are still being read. With S stages up to S steps are in flight
and the decoding lanes are dealt evenly over them, so that all stages work at the same time.
A freed slot is reused at once: steps pass through every stage in the order in which they were
sent, and a new sequence overwrites the cache from position 0. No clock, socket or tokenizer here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gangline.head.requests import Sampling
from gangline.stage.frames import Layout


@dataclass(eq=False)
class Lane:
    """A request in the scheduler; `tokens` are the prompt's and then the generated ones."""

    key: tuple[int, int]  # which front connection, which request on it
    tokens: list[int]
    sampling: Sampling
    last_position: int  # no token is generated at or beyond this position
    logits_digest: bool = False
    slot: int = -1  # -1 while it waits
    sent: int = 0  # tokens that steps have carried so far
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)


class Step(NamedTuple):
    """What one step computes: layout for the frames, token ids, whose logits come back."""

    number: int
    layout: Layout  # (4, S)
    ids: np.ndarray[tuple[int], np.dtype[np.int32]]  # (T,)
    sampled: tuple[Lane, ...]  # in the order of the rows that come back


class Scheduler:
    """Lanes, the queue before them, and the steps in flight."""

    def __init__(self, lanes: int, n_stages: int, step_rows: int) -> None:
        assert step_rows >= lanes >= 1, "every lane must fit into one step"
        self._n_stages, self._step_rows = n_stages, step_rows
        self._free = list(range(lanes - 1, -1, -1))
        self._active: dict[tuple[int, int], Lane] = {}
        self._waiting: dict[tuple[int, int], Lane] = {}
        self._in_flight: deque[Step] = deque()
        self._number = 0

    @property
    def n_active(self) -> int:
        return len(self._active)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def n_in_flight(self) -> int:
        return len(self._in_flight)

    def add(self, lane: Lane) -> None:
        """Queue a request; it gets a slot at the next step if one is free."""
        self._waiting[lane.key] = lane

    def remove(self, key: tuple[int, int]) -> Lane | None:
        """Free the lane of a request that is finished or cancelled; None if it is not here."""
        if (lane := self._waiting.pop(key, None)) is not None:
            return lane
        lane = self._active.pop(key, None)
        if lane is not None:
            self._free.append(lane.slot)
        return lane

    def next_step(self) -> Step | None:
        """The next step, or None while the ring is full or no lane has anything to compute."""
        if len(self._in_flight) >= self._n_stages:
            return None
        self._admit()
        chosen = self._choose()
        if not chosen:
            return None
        step = self._form(chosen)
        self._in_flight.append(step)
        return step

    def complete(self) -> Step:
        """The oldest step in flight, whose result has arrived."""
        return self._in_flight.popleft()

    def is_current(self, lane: Lane) -> bool:
        """False for a lane that was removed while its step was in flight."""
        return self._active.get(lane.key) is lane

    def _admit(self) -> None:
        while self._free and self._waiting:
            key = next(iter(self._waiting))
            lane = self._waiting.pop(key)
            lane.slot = self._free.pop()
            self._active[key] = lane

    def _choose(self) -> list[tuple[Lane, int]]:
        """Lanes and how many of their tokens to carry; decoding lanes first."""
        unsent = [(lane, len(lane.tokens) - lane.sent) for lane in self._active.values()]
        decoding = sum(1 for lane, _ in unsent if lane.sent >= lane.prompt_length)
        share = -(-decoding // self._n_stages)
        chosen = [(lane, 1) for lane, n in unsent if n == 1 and lane.sent >= lane.prompt_length][
            :share
        ]
        room = self._step_rows - len(chosen)
        for lane, n_tokens in unsent:
            if room and n_tokens and lane.sent < lane.prompt_length:
                chosen.append((lane, min(n_tokens, room)))
                room -= min(n_tokens, room)
        return chosen

    def _form(self, chosen: list[tuple[Lane, int]]) -> Step:
        columns, ids, sampled = [], [], []
        for lane, n_tokens in chosen:
            end = lane.sent + n_tokens
            complete = end == len(lane.tokens)
            columns.append((lane.slot, lane.sent, n_tokens, int(complete)))
            ids += lane.tokens[lane.sent : end]
            lane.sent = end
            if complete:
                sampled.append(lane)
        # Fair turns: who was served now stands behind the others next time.
        for lane, _ in chosen:
            self._active[lane.key] = self._active.pop(lane.key)
        layout = np.ascontiguousarray(np.array(columns, dtype=np.int32).T)
        self._number += 1
        return Step(self._number, layout, np.array(ids, dtype=np.int32), tuple(sampled))
