"""Real worker processes without a node: what a node does for a loaded model, by hand.

For tests of heads and stages alone. `Ring` starts them, connects them and ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from gangline.facts import ModelId, Span
from gangline.head.requests import Accepted, Cancel, Finished, FromHead, Rejected, Submit, Tokens
from gangline.stage.control import (
    Connect,
    Connected,
    Failed,
    FromWorker,
    Load,
    Loaded,
    ToWorker,
)
from gangline.stage.handshake import connect_front
from gangline.stage.messages import pack_message

SECRET = bytes(range(32))
EPOCH = 5


class WorkerProcess:
    """One worker and its pipe."""

    def __init__(self, role: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"gangline.{role}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def send(self, message: ToWorker) -> None:
        stdin = _open(self.process.stdin)
        stdin.write(pack_message(message))
        stdin.flush()

    def receive(self) -> FromWorker | None:
        """The next message; None when the worker's output has ended."""
        stdout = _open(self.process.stdout)
        prefix = stdout.read(4)
        if len(prefix) < 4:
            return None
        return msgspec.msgpack.decode(stdout.read(*struct.unpack("<I", prefix)), type=FromWorker)

    def expect(self, kind: type[msgspec.Struct]) -> FromWorker:
        """The next message of a kind; a worker that fails or ends instead fails the test."""
        while not isinstance(message := self.receive(), kind):
            assert message is not None and not isinstance(message, Failed), message
        return message

    def expect_failure(self) -> Failed:
        """Its `Failed`, whatever comes before."""
        while not isinstance(message := self.receive(), Failed):
            assert message is not None, "the worker ended without a word"
        return message

    def end(self) -> int:
        """Close its input, which ends it; its exit status."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and what was unsent with it
            _open(self.process.stdin).close()
        status = self.process.wait(timeout=20)
        _open(self.process.stdout).close()
        return status


class Ring:
    """A model over len(cuts) + 1 workers; `cuts` are the layers at which stages 1… begin."""

    def __init__(
        self,
        folder: Path,
        cuts: Sequence[int],
        n_layers: int,
        *,
        backend: str = "auto",
        context: int = 128,
        lanes: int = 4,
        threads: int = 1,
    ) -> None:
        bounds = [0, *cuts, n_layers]
        self.workers: list[WorkerProcess] = []
        for index, (start, end) in enumerate(itertools.pairwise(bounds)):
            self.workers.append(WorkerProcess("stage" if index else "head"))
            self.workers[-1].send(
                Load(
                    model=ModelId("test"),
                    path=str(folder),
                    epoch=EPOCH,
                    role="stage" if index else "head",
                    span=Span(start, end),
                    index=index,
                    n_stages=len(bounds) - 1,
                    secret=SECRET,
                    listen="127.0.0.1",
                    advertise="127.0.0.1",
                    context=context,
                    lanes=lanes,
                    threads=threads,
                    backend=backend,
                )
            )

    def __enter__(self) -> Ring:
        try:
            self._connect()
        except BaseException:
            self.end()
            raise
        return self

    def _connect(self) -> None:
        loaded = [worker.expect(Loaded) for worker in self.workers]
        self.front: str = loaded[0].front_address
        self.hops: list[str] = [each.hop_address for each in loaded]
        if len(self.workers) > 1:
            for worker, address in zip(self.workers, self.hops[1:] + self.hops[:1], strict=True):
                worker.send(Connect(address))
            for worker in self.workers:
                worker.expect(Connected)

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> list[int]:
        """End all workers; their exit statuses."""
        return [worker.end() for worker in self.workers]

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection to the head, as an entry node has one."""
        reader, writer = await connect_front(self.front, SECRET, EPOCH)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            await client.close()


class Client:
    """An entry node's side of the front, multiplexed by request id."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._queues: dict[int, asyncio.Queue[FromHead | None]] = {}
        self._reading = asyncio.create_task(self._read())

    def send(self, message: msgspec.Struct) -> None:
        self.send_raw(pack_message(message))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def submit(self, submit: Submit) -> int:
        """Send a request under a new id, which is returned."""
        number = next(self._ids)
        self._queues[number] = asyncio.Queue()
        self.send(msgspec.structs.replace(submit, id=number))
        return number

    def cancel(self, number: int) -> None:
        self.send(Cancel(number))

    async def next(self, number: int) -> FromHead | None:
        """The next message for a request; None when the connection has ended."""
        return await self._queues[number].get()

    async def answer(self, submit: Submit) -> Answer:
        """The whole answer to a request."""
        number = self.submit(submit)
        answer = Answer()
        while True:
            message = await self.next(number)
            match message:
                case Accepted():
                    answer.prompt = list(message.prompt_tokens)
                case Tokens():
                    answer.tokens += message.tokens
                    answer.text += message.text
                case Finished():
                    answer.finished = message
                    return answer
                case Rejected():
                    answer.rejected = message
                    return answer
                case None:
                    return answer

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})
        self._writer.close()
        with contextlib.suppress(ConnectionError):  # a head that was killed resets it
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while True:
                (n_bytes,) = struct.unpack("<I", await self._reader.readexactly(4))
                data = await self._reader.readexactly(n_bytes)
                message = msgspec.msgpack.decode(data, type=FromHead)
                self._queues[message.id].put_nowait(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            for queue in self._queues.values():
                queue.put_nowait(None)


class Answer:
    """What came back for one request."""

    def __init__(self) -> None:
        self.prompt: list[int] = []
        self.tokens: list[int] = []
        self.text = ""
        self.finished: Finished | None = None
        self.rejected: Rejected | None = None


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
