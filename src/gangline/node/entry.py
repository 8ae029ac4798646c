"""The way of requests from this node to the heads: one connection per load of a model.

Numbers the requests, hands each its own answers, and fails all of them when the connection breaks
or the head is known to be lost. Knows nothing of HTTP, and of the cluster only addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Callable

import msgspec

from gangline.errors import GanglineError, ProtocolError, Unavailable, WorkerLost, error_from_body
from gangline.facts import ModelId
from gangline.head.requests import (
    MAX_MESSAGE_BYTES,
    Accepted,
    Cancel,
    Finished,
    FromHead,
    Rejected,
    Submit,
    ToHead,
    Tokens,
)
from gangline.node.peerwatch import reason_of
from gangline.stage.handshake import connect_front
from gangline.stage.messages import pack_message, receive_message

log = logging.getLogger(__name__)

CONNECT_WITHIN_S = 2.5
_MESSAGES: msgspec.msgpack.Decoder[FromHead] = msgspec.msgpack.Decoder(FromHead)

Answer = Accepted | Tokens | Finished


class Door(msgspec.Struct, frozen=True):
    """Where and how a head is reached; equal doors share a connection."""

    model: ModelId
    epoch: int
    load_key: str
    address: str
    secret: bytes


class Front:
    """An open connection to one head."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[FromHead | GanglineError]] = {}
        self.lost: GanglineError | None = None
        self._task = asyncio.create_task(self._receive())

    @staticmethod
    async def connect(door: Door) -> Front:
        """Raises WorkerLost where the head is not reached in time, ProtocolError where refused."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                return Front(*await connect_front(door.address, door.secret, door.epoch))
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            reason = f"no answer within {CONNECT_WITHIN_S:g} s"
            raise _lost(door, f"cannot be reached at {door.address}: {reason}") from error
        except OSError as error:
            reason = reason_of(error)
            raise _lost(door, f"cannot be reached at {door.address}: {reason}") from error

    async def generate(self, submit: Submit) -> AsyncGenerator[Answer, None]:
        """The answers to one request; closing this before the end frees its lane at once."""
        number = next(self._ids)
        answers: asyncio.Queue[FromHead | GanglineError] = asyncio.Queue()
        self._waiting[number] = answers
        finished = False
        try:
            if self.lost is not None:
                raise self.lost
            self._send(msgspec.structs.replace(submit, id=number))
            while not finished:
                answer = await answers.get()
                match answer:
                    case GanglineError():
                        finished = True
                        raise answer
                    case Rejected(error=error):
                        finished = True
                        raise error_from_body(error)
                    case Finished():
                        finished = True
                yield answer
        finally:
            del self._waiting[number]
            if not finished and self.lost is None:
                self._send(Cancel(number))

    def fail(self, error: GanglineError) -> None:
        """Close the connection and raise `error` in every request under way."""
        if self.lost is not None:
            return
        self.lost = error
        for answers in self._waiting.values():
            answers.put_nowait(error)
        self._writer.close()
        self._task.cancel()

    async def close(self) -> None:
        self.fail(Unavailable("the node ends"))
        await asyncio.wait({self._task})
        with contextlib.suppress(OSError):  # how a connection ends that is given up anyway
            await self._writer.wait_closed()

    def _send(self, message: ToHead) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # `_receive` notices the break
            self._writer.write(pack_message(message))

    async def _receive(self) -> None:
        try:
            while True:
                message = await receive_message(
                    self._reader, _MESSAGES, MAX_MESSAGE_BYTES, "the head"
                )
                answers = self._waiting.get(message.id)
                if answers is not None:  # else it was cancelled meanwhile
                    answers.put_nowait(message)
        except (asyncio.IncompleteReadError, OSError):
            error: GanglineError = WorkerLost(
                "the connection to the model's head broke", hint="send the request again"
            )
        except ProtocolError as reason:
            error = reason
        self.fail(error)


class Entry:
    """The fronts of this node."""

    def __init__(self) -> None:
        self._fronts: dict[Door, asyncio.Task[Front]] = {}

    async def generate(self, door: Door, submit: Submit) -> AsyncGenerator[Answer, None]:
        """The answers to `submit`, over a connection that others use too."""
        front = await self._front(door)
        async with contextlib.aclosing(front.generate(submit)) as answers:
            async for answer in answers:
                yield answer

    def retain(self, wanted: Callable[[Door], GanglineError | None]) -> None:
        """Fail the fronts for which `wanted` gives a reason."""
        for door, opening in list(self._fronts.items()):
            reason = wanted(door)
            if reason is not None:
                del self._fronts[door]
                if not opening.done():
                    opening.cancel()
                elif opening.exception() is None:
                    opening.result().fail(reason)

    async def close(self) -> None:
        """Fail what is under way and close every connection."""
        openings = list(self._fronts.values())
        self._fronts.clear()
        for opening in openings:
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()

    async def _front(self, door: Door) -> Front:
        opening = self._fronts.get(door)
        if opening is not None and opening.done():
            broken = opening.cancelled() or opening.exception() is not None
            if broken or opening.result().lost is not None:
                opening = None
        if opening is None:
            opening = asyncio.create_task(Front.connect(door))
            self._fronts[door] = opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():  # by `retain`: the head is gone
                raise _lost(door, "is gone") from None
            raise


def _lost(door: Door, what: str) -> WorkerLost:
    return WorkerLost(f"the head of {door.model} {what}", hint="send the request again")
