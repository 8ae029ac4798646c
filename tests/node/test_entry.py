"""The way to a head: many requests over one connection, and every way in which it can break.

The head here is a small real TCP server that speaks the handshake and the messages of a head.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from gangline.errors import ContextTooLong, GanglineError, ProtocolError, WorkerLost
from gangline.facts import ModelId
from gangline.head.requests import (
    MAX_MESSAGE_BYTES,
    Accepted,
    Cancel,
    Finished,
    FromHead,
    Rejected,
    Sampling,
    Submit,
    ToHead,
    Tokens,
)
from gangline.node import entry as entry_module
from gangline.node.entry import Door, Entry
from gangline.stage import handshake
from gangline.stage.messages import pack_message, receive_message
from tests.node.cluster import run

SECRET = bytes(range(32))
SUBMIT = Submit(0, Sampling(max_tokens=3), prompt="hello")
_TO_HEAD: msgspec.msgpack.Decoder[ToHead] = msgspec.msgpack.Decoder(ToHead)


class Caller:
    """The head's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def read(self) -> ToHead:
        return await receive_message(self._reader, _TO_HEAD, MAX_MESSAGE_BYTES, "the entry")

    def send(self, *messages: FromHead) -> None:
        for message in messages:
            self.writer.write(pack_message(message))

    def answer(self, number: int, n_tokens: int = 2) -> None:
        tokens = [Tokens(number, (7 * number + i,), f"<{i}>") for i in range(n_tokens)]
        self.send(Accepted(number, (1, 2)), *tokens, Finished(number, "stop", n_tokens))


Behaviour = Callable[[Caller], Awaitable[None]]


class Head:
    """A listening head; `connections` counts who passed the handshake."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        challenge = handshake.make_challenge()
        writer.write(challenge)
        try:
            message = await reader.readexactly(handshake._HELLO.size)
            status, verdict, _ = handshake.judge_hello(challenge, message, SECRET, 1)
            writer.write(verdict)
            if status is handshake.Status.WELCOME:
                self.connections += 1
                await self._behaviour(Caller(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the entry closed
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def head_with(behaviour: Behaviour) -> AsyncIterator[tuple[Entry, Door, Head]]:
    head, entry = Head(behaviour), Entry()
    server = await asyncio.start_server(head.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield entry, Door(ModelId("m"), 1, "key", f"127.0.0.1:{port}", SECRET), head
    finally:
        await entry.close()
        server.close()


async def collect(entry: Entry, door: Door, submit: Submit = SUBMIT) -> list[FromHead]:
    return [answer async for answer in entry.generate(door, submit)]


@contextlib.asynccontextmanager
async def unanswered() -> AsyncIterator[tuple[Entry, asyncio.Task[list[FromHead]]]]:
    """A request that has reached a head, which says nothing."""
    asked = asyncio.Event()

    async def stay_silent(caller: Caller) -> None:
        await caller.read()
        asked.set()
        await caller.read()

    async with head_with(stay_silent) as (entry, door, _):
        waiting = asyncio.create_task(collect(entry, door))
        await asked.wait()
        yield entry, waiting


async def answer_all(caller: Caller) -> None:
    while True:
        message = await caller.read()
        assert isinstance(message, Submit)
        caller.answer(message.id)


def test_requests_share_one_connection_and_get_their_own_answers() -> None:
    async def answer_in_reverse(caller: Caller) -> None:
        submits = [await caller.read() for _ in range(8)]
        assert len({submit.id for submit in submits}) == 8, "the entry numbers the requests"
        for submit in reversed(submits):
            caller.answer(submit.id, n_tokens=3)
        await answer_all(caller)

    async def scene() -> None:
        async with head_with(answer_in_reverse) as (entry, door, head):
            together = await asyncio.gather(*(collect(entry, door) for _ in range(8)))
            for answers in together:
                assert [type(answer) for answer in answers] == [Accepted, *[Tokens] * 3, Finished]
                assert len({answer.id for answer in answers}) == 1
            assert len(await collect(entry, door)) == 4
            assert head.connections == 1

    run(scene())


def test_closing_the_generator_cancels_at_once() -> None:
    async def scene() -> None:
        cancelled: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def drip(caller: Caller) -> None:
            first = await caller.read()
            caller.send(Accepted(first.id, (1,)), Tokens(first.id, (5,), "a"))
            message = await caller.read()
            assert isinstance(message, Cancel)
            cancelled.set_result(message.id)
            caller.send(Tokens(first.id, (6,), "too late"))
            await answer_all(caller)

        async with head_with(drip) as (entry, door, _):
            async with contextlib.aclosing(entry.generate(door, SUBMIT)) as answers:
                number = (await anext(answers)).id
                await anext(answers)
            assert await cancelled == number
            assert len(await collect(entry, door)) == 4, "the connection serves on"

    run(scene())


def test_a_rejection_is_raised_and_harms_no_other() -> None:
    async def reject_first(caller: Caller) -> None:
        first = await caller.read()
        error = ContextTooLong("300 tokens do not fit into 256", param="messages").body()
        caller.send(Rejected(first.id, error))
        await answer_all(caller)

    async def scene() -> None:
        async with head_with(reject_first) as (entry, door, _):
            with pytest.raises(ContextTooLong) as caught:
                await collect(entry, door)
            assert caught.value.param == "messages"
            assert len(await collect(entry, door)) == 4

    run(scene())


async def vanish(caller: Caller) -> None:
    submit = await caller.read()
    caller.send(Accepted(submit.id, (1,)), Tokens(submit.id, (5,), "a"))
    await caller.read()  # the second request


async def babble(caller: Caller) -> None:
    await caller.read()
    await caller.read()
    caller.writer.write(b"\x03\x00\x00\x00abc")
    await caller.read()


async def boast(caller: Caller) -> None:
    await caller.read()
    await caller.read()
    caller.writer.write(b"\xff\xff\xff\xff")
    await caller.read()


@pytest.mark.parametrize(
    ("behaviour", "kind"), [(vanish, WorkerLost), (babble, ProtocolError), (boast, ProtocolError)]
)
def test_a_broken_connection_fails_every_request_on_it(
    behaviour: Behaviour, kind: type[GanglineError]
) -> None:
    async def scene() -> None:
        async with head_with(behaviour) as (entry, door, head):
            outcomes = await asyncio.gather(
                collect(entry, door), collect(entry, door), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [kind, kind]
            head._behaviour = answer_all
            assert len(await collect(entry, door)) == 4, "the next request connects anew"
            assert head.connections == 2

    run(scene())


def test_requests_end_when_the_cluster_knows_that_the_head_is_lost() -> None:
    async def scene() -> None:
        async with unanswered() as (entry, waiting):
            entry.retain(lambda _: None)
            assert not waiting.done()
            entry.retain(lambda _: WorkerLost("node b is gone"))
            with pytest.raises(WorkerLost, match="node b is gone"):
                await waiting

    run(scene())


def test_a_head_that_nobody_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_module, "CONNECT_WITHIN_S", 0.2)

    async def stay_mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scene() -> None:
        server = await asyncio.start_server(stay_mute, "127.0.0.1", 0)
        mute = server.sockets[0].getsockname()[1]
        entry = Entry()
        for port, reason in ((mute, "no answer within 0.2 s"), (1, "cannot be reached")):
            door = Door(ModelId("m"), 1, "key", f"127.0.0.1:{port}", SECRET)
            with pytest.raises(WorkerLost) as caught:
                await collect(entry, door)
            assert reason in caught.value.message
        await entry.close()
        server.close()

    run(scene())


@pytest.mark.parametrize("changes", [{"secret": os.urandom(32)}, {"epoch": 2}])
def test_only_the_right_secret_and_epoch_open_the_door(changes: dict[str, object]) -> None:
    async def scene() -> None:
        async with head_with(answer_all) as (entry, door, head):
            with pytest.raises(ProtocolError):
                await collect(entry, msgspec.structs.replace(door, **changes))
            assert head.connections == 0

    run(scene())


def test_closing_fails_what_is_under_way() -> None:
    async def scene() -> None:
        async with unanswered() as (entry, waiting):
            await entry.close()
            with pytest.raises(GanglineError):
                await waiting

    run(scene())
