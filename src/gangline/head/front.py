"""The head's side of the front: requests of entry nodes become lanes, tokens become text.

An asyncio loop on a thread of its own. Knows text, requests and connections; the step loop is
reached through its mailbox, and reaches back through `emit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gangline.errors import ContextTooLong, GanglineError, ProtocolError, UsageError
from gangline.facts import WorkerStats
from gangline.head.loop import Command, Free, Generated, Key
from gangline.head.mailbox import Mailbox
from gangline.head.requests import (
    MAX_MESSAGE_BYTES,
    Accepted,
    Cancel,
    Finished,
    FinishReason,
    FromHead,
    Rejected,
    Submit,
    ToHead,
    Tokens,
)
from gangline.head.scheduler import Lane
from gangline.head.text import Language, TextStream
from gangline.stage.handshake import Hello
from gangline.stage.messages import pack_message, receive_message

log = logging.getLogger(__name__)

_STATS_EVERY_S = 1.0
_MESSAGES: msgspec.msgpack.Decoder[ToHead] = msgspec.msgpack.Decoder(ToHead)


@dataclass(eq=False)
class _Answer:
    """A request that is being answered."""

    text: TextStream
    submitted_s: float
    n_tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


class Counts(NamedTuple):
    """What the step loop counts, as in `WorkerStats`."""

    lanes_active: int
    lanes_waiting: int
    steps: int
    decode_tps: float | None
    decode_steps: int


class Front:
    """Entry nodes' connections and their answers."""

    def __init__(self, language: Language, context: int) -> None:
        self._language, self._context = language, context
        self._mailbox: Mailbox[Command] | None = None
        self._loop = asyncio.new_event_loop()
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._answers: dict[Key, _Answer] = {}
        self._numbers = itertools.count(1)
        self._reporting: Future[None] | None = None  # kept, or the task may be collected
        self._tokens_total = 0
        self._ttft_ms: float | None = None

    def start(self, mailbox: Mailbox[Command]) -> None:
        """Serve from now on; connections that came earlier have waited."""
        self._mailbox = mailbox
        threading.Thread(target=self._loop.run_forever, name="front", daemon=True).start()

    def take_connection(self, connection: socket.socket, hello: Hello) -> None:
        """A connection that passed its handshake; called from any thread."""
        del hello
        connection.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._serve(connection), self._loop)

    def emit(self, events: list[Generated]) -> None:
        """Tokens of one step; called by the step loop."""
        self._loop.call_soon_threadsafe(self._on_generated, events)

    def report_stats(
        self, count: Callable[[], Counts], report: Callable[[WorkerStats], None]
    ) -> None:
        """Report every second that changes something."""
        reporting = self._report(count, report)
        self._reporting = asyncio.run_coroutine_threadsafe(reporting, self._loop)

    async def _report(
        self, count: Callable[[], Counts], report: Callable[[WorkerStats], None]
    ) -> None:
        last = WorkerStats()
        then, tokens_then = time.monotonic(), 0
        while True:
            await asyncio.sleep(_STATS_EVERY_S)
            now, tokens = time.monotonic(), self._tokens_total
            counts = count()
            stats = WorkerStats(
                lanes_active=counts.lanes_active,
                lanes_waiting=counts.lanes_waiting,
                tokens_total=tokens,
                tokens_per_s=round((tokens - tokens_then) / (now - then), 1),
                ttft_ms=self._ttft_ms,
                steps_total=counts.steps,
                decode_tps=counts.decode_tps,
                decode_steps=counts.decode_steps,
            )
            then, tokens_then = now, tokens
            if stats != last:
                last = stats
                report(stats)

    async def _serve(self, connection: socket.socket) -> None:
        number = next(self._numbers)
        reader, writer = await asyncio.open_connection(sock=connection)
        self._writers[number] = writer
        try:
            while True:
                message = await receive_message(
                    reader, _MESSAGES, MAX_MESSAGE_BYTES, f"entry connection {number}"
                )
                self._on_message(number, message)
        except (asyncio.IncompleteReadError, ConnectionError):
            log.debug("entry connection %d closed", number)
        except ProtocolError as error:
            log.warning("%s; it is closed", error.message)
        finally:
            del self._writers[number]
            for key in [key for key in self._answers if key[0] == number]:
                self._free(key)
            writer.close()

    def _on_message(self, number: int, message: ToHead) -> None:
        key = (number, message.id)
        if isinstance(message, Cancel):
            self._free(key)
            return
        try:
            lane = self._lane(key, message)
        except GanglineError as error:
            self._send(number, [Rejected(message.id, error.body())])
            return
        self._answers[key] = _Answer(
            TextStream(self._language.decode, message.sampling.stop), time.monotonic()
        )
        self._send(number, [Accepted(message.id, tuple(lane.tokens))])
        self._post(lane)

    def _lane(self, key: Key, submit: Submit) -> Lane:
        """The request as a lane; raises UsageError where it cannot be one."""
        if key in self._answers:
            raise UsageError(f"request {submit.id} is being answered already")
        ids = self._language.prompt_ids(submit)
        if not ids:
            raise UsageError("the prompt is empty", hint="send at least one token", param="prompt")
        wanted = submit.sampling.max_tokens
        if len(ids) >= self._context or len(ids) + (wanted or 0) > self._context:
            answer = "an answer" if wanted is None else f"an answer of max_tokens {wanted}"
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens and {answer} does not fit: "
                f"the context of this model is {self._context} tokens",
                hint="shorten the conversation or lower max_tokens",
                param="messages" if submit.messages is not None else "prompt",
            )
        last = self._context if wanted is None else len(ids) + wanted
        return Lane(key, ids, submit.sampling, last, submit.logits_digest)

    def _on_generated(self, events: list[Generated]) -> None:
        outgoing: dict[int, list[FromHead]] = {}
        for event in events:
            answer = self._answers.get(event.key)
            if answer is not None:
                outgoing.setdefault(event.key[0], []).extend(self._tell(event, answer))
        for number, messages in outgoing.items():
            self._send(number, messages)

    def _tell(self, event: Generated, answer: _Answer) -> list[FromHead]:
        """What the entry node hears of one generated token."""
        request = event.key[1]
        if event.error is not None:
            del self._answers[event.key]
            return [Rejected(request, event.error)]
        messages: list[FromHead] = []
        text, finish = "", event.finish
        tokens: tuple[int, ...] = ()
        if event.token is not None:
            self._count(answer, event.at_s)
            tokens, text = (event.token,), answer.text.push(event.token)
        if answer.text.stopped:
            if finish is None:
                self._post(Free(event.key))
            finish = "stop"
        elif finish is not None:
            text += answer.text.finish()
            finish = "stop" if answer.text.stopped else finish
        if tokens or text:
            messages.append(Tokens(request, tokens, text))
        if finish is not None:
            messages.append(self._finished(event, answer, finish))
        return messages

    def _finished(self, event: Generated, answer: _Answer, reason: FinishReason) -> Finished:
        del self._answers[event.key]
        decode_s = answer.last_s - answer.first_s
        return Finished(event.key[1], reason, answer.n_tokens, event.logits_digest, decode_s)

    def _count(self, answer: _Answer, at_s: float) -> None:
        answer.last_s = at_s
        if answer.n_tokens == 0:
            answer.first_s = at_s
            self._ttft_ms = round(1000 * (at_s - answer.submitted_s), 2)
        answer.n_tokens += 1
        self._tokens_total += 1

    def _free(self, key: Key) -> None:
        if self._answers.pop(key, None) is not None:
            self._post(Free(key))

    def _post(self, command: Command) -> None:
        assert self._mailbox is not None, "the front serves after start()"
        self._mailbox.put(command)

    def _send(self, number: int, messages: list[FromHead]) -> None:
        writer = self._writers.get(number)
        if writer is None or writer.is_closing():
            return
        with contextlib.suppress(ConnectionError):  # the reading side hears of it too
            writer.write(b"".join(map(pack_message, messages)))
