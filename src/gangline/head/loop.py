"""The step loop of a head: form a step, run it through the stages, sample, tell the front.

One thread, blocking in native code or in a selector. Knows lanes and hidden states; no text.
"""

from __future__ import annotations

import hashlib
import selectors
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gangline.engine.decoder import Decoder
from gangline.engine.operations import Batch
from gangline.errors import ErrorBody, GanglineError, ProtocolError
from gangline.head.mailbox import Mailbox
from gangline.head.pace import Pace
from gangline.head.requests import FinishReason
from gangline.head.sampler import sample
from gangline.head.scheduler import Lane, Scheduler, Step
from gangline.stage.frames import FrameKind, Hidden, wanted_rows
from gangline.stage.worker import Ring

Key = tuple[int, int]


class Free(NamedTuple):
    """Command: the request is cancelled."""

    key: Key


Command = Lane | Free


class Generated(NamedTuple):
    """Event: one more token of a request; with `finish` or `error` it was the last."""

    key: Key
    token: int | None  # None where the model ended its answer, or failed
    at_s: float  # monotonic time at which its logits were there
    finish: FinishReason | None = None
    logits_digest: str | None = None
    error: ErrorBody | None = None


class StepLoop:
    """Runs on the worker's main thread; everything else talks to it through `mailbox`."""

    def __init__(
        self,
        decoder: Decoder,
        scheduler: Scheduler,
        ring: Ring | None,
        end_tokens: frozenset[int],
        emit: Callable[[list[Generated]], None],
    ) -> None:
        self.mailbox: Mailbox[Command] = Mailbox()
        self.n_steps = 0
        self.pace = Pace()
        self._decoder, self._scheduler, self._ring = decoder, scheduler, ring
        self._end_tokens, self._emit = end_tokens, emit
        self._digests: dict[Key, hashlib.blake2b] = {}
        self._idle = selectors.DefaultSelector()
        self._idle.register(self.mailbox, selectors.EVENT_READ)
        if ring is not None:
            ring.receiver.set_blocking(False)
            ring.sender.set_blocking(False)
            self._idle.register(ring.receiver, selectors.EVENT_READ)
            self._blocked = selectors.DefaultSelector()
            self._blocked.register(ring.receiver, selectors.EVENT_READ)
            self._blocked.register(ring.sender, selectors.EVENT_WRITE)

    def run(self) -> None:
        """Work until an exception ends the worker: a hop closes, a peer sends nonsense."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Do the one most useful thing: start a step, finish one, or wait."""
        for command in self.mailbox.take():
            self._apply(command)
        step = self._scheduler.next_step()
        if step is not None:
            self._start(step)
        elif not self._finish_arrived():
            self._wait()

    def _apply(self, command: Command) -> None:
        if isinstance(command, Lane):
            self._scheduler.add(command)
            if command.logits_digest:
                self._digests[command.key] = hashlib.blake2b(digest_size=32)
        else:
            self._forget(command.key)

    def _start(self, step: Step) -> None:
        decoder, ring = self._decoder, self._ring
        slots, starts, counts, _ = step.layout
        batch = Batch.of(slots, starts, counts)
        wanted = wanted_rows(step.layout) if ring is None else None
        hidden = decoder.forward(decoder.embed(step.ids), batch, wanted)
        self.n_steps += 1
        if ring is None:
            self._finish(hidden, step.number)
        else:
            ring.sender.send(
                FrameKind.STEP, step.number, step.layout, hidden, while_blocked=self._drain
            )

    def _finish_arrived(self) -> bool:
        """Finish the oldest step if its result is here."""
        if self._ring is None or not self._scheduler.n_in_flight:
            return False
        frame = self._ring.receiver.take()
        if frame is None:
            return False
        if frame.kind is not FrameKind.RESULT:
            raise ProtocolError("the last stage sent a step where a result was due")
        self._finish(frame.hidden, frame.step)
        return True

    def _finish(self, hidden: Hidden, number: int) -> None:
        """Sample the step's tokens from the rows that wanted logits; tell the front."""
        step = self._scheduler.complete()
        if number != step.number or len(hidden) != len(step.sampled):
            raise ProtocolError(
                f"the result of step {number} with {len(hidden)} rows arrived where "
                f"step {step.number} with {len(step.sampled)} was due"
            )
        if not step.sampled:
            return
        logits = self._decoder.logits(hidden)
        now_s = time.monotonic()
        self.pace.step(step.number, tuple(lane.key for lane in step.sampled), len(step.ids), now_s)
        events = [
            self._sample(lane, row, now_s)
            for lane, row in zip(step.sampled, logits, strict=True)
            if self._scheduler.is_current(lane)
        ]
        if events:
            self._emit(events)

    def _sample(self, lane: Lane, logits: NDArray[np.float32], now_s: float) -> Generated:
        """Append the lane's next token; ends the lane where that was its last."""
        key = lane.key
        if (digest := self._digests.get(key)) is not None:
            digest.update(logits.tobytes())
        so_far = digest.hexdigest() if digest is not None else None
        try:
            token = sample(logits, lane.sampling, len(lane.tokens))
        except GanglineError as error:
            self._forget(key)
            return Generated(key, None, now_s, error=error.body())
        if token in self._end_tokens:
            self._forget(key)
            return Generated(key, None, now_s, "stop", so_far)
        lane.tokens.append(token)
        if len(lane.tokens) >= lane.last_position:
            self._forget(key)
            return Generated(key, token, now_s, "length", so_far)
        return Generated(key, token, now_s, None, so_far)

    def _forget(self, key: Key) -> None:
        self._scheduler.remove(key)
        self._digests.pop(key, None)

    def _drain(self) -> None:
        """While the next stage takes no more: read results, so that it can go on."""
        assert self._ring is not None, "only a ring can be blocked"
        for ready, _ in self._blocked.select():
            if ready.fileobj is self._ring.receiver:
                self._ring.receiver.fill()

    def _wait(self) -> None:
        """Sleep until a command or a result arrives."""
        if not self.mailbox.may_sleep():
            return
        ready = self._idle.select()
        self.mailbox.awake()
        if self._ring is not None and any(r.fileobj is self._ring.receiver for r, _ in ready):
            self._ring.receiver.fill()
