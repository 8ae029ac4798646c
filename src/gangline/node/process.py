"""One worker process: started, spoken to, stopped; the node's side of `stage/control.py`.

Knows nothing of models or plans. A worker ends when its standard input closes, so none outlives
its node, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec

from gangline.stage.control import MAX_MESSAGE_BYTES, FromWorker, Stop, ToWorker
from gangline.stage.messages import pack_message, receive_message

log = logging.getLogger("gangline.worker")

STOP_WITHIN_S = 2.0  # then it is killed: nothing that it holds has to be saved
_KEPT_LINES = 20  # of its log, for the reason of a crash
_LINE_BYTES = 4000
_MESSAGES: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


class WorkerProcess:
    """A running worker. Read `messages()` to the end, then `wait()` says how it ended."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._logging = asyncio.create_task(self._forward_log())

    @staticmethod
    async def start(command: Sequence[str], name: str) -> WorkerProcess:
        """Raises OSError where the program cannot be started."""
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A group of its own: Ctrl-C reaches the node, which stops its workers in order.
            start_new_session=sys.platform != "win32",
            creationflags=flags,
        )
        return WorkerProcess(process, name)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """Tell the worker; does nothing where it is gone."""
        assert self._process.stdin is not None, "it is a pipe"
        with contextlib.suppress(ConnectionError, RuntimeError):  # `messages` notices its end
            self._process.stdin.write(pack_message(message))

    async def messages(self) -> AsyncIterator[FromWorker]:
        """What the worker says, until it ends; raises ProtocolError for nonsense."""
        reader = self._process.stdout
        assert reader is not None, "it is a pipe"
        while True:
            try:
                yield await receive_message(reader, _MESSAGES, MAX_MESSAGE_BYTES, "the worker")
            except (asyncio.IncompleteReadError, ConnectionError):
                return

    @property
    def could_not_read(self) -> bool:
        """Whether it ended because memory that it had mapped was not there: a page of a file."""
        status = self._process.returncode
        return status is not None and status == -getattr(signal, "SIGBUS", 0) != 0

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not in time; returns when it is gone."""
        self.send(Stop())
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self.end()

    async def end(self) -> str:
        """Let it end by itself for a while, then kill it; how it ended.

        Killing at once would lose that: the signal first collects the status of a process that
        has just died, and the loop, which waits for it on another thread, never learns it.
        """
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            log.warning("%s did not end within %g s and is killed", self._name, STOP_WITHIN_S)
        finally:  # also where we are cancelled ourselves
            self.kill()
        return await self.wait()

    def kill(self) -> None:
        """End it now; does nothing where it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends at this moment
                self._process.kill()

    async def wait(self) -> str:
        """Wait for its end; how it ended, with its last words."""
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # a child of its own may hold stderr open
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._logging)
        how = f"ended with status {status}" if status >= 0 else f"was killed by {_signal(-status)}"
        return f"the worker {how}" + (f": {self._tail[-1]}" if self._tail else "")

    async def _forward_log(self) -> None:
        """Copy its stderr to our log, line by line, however long the lines are."""
        reader = self._process.stderr
        assert reader is not None, "it is a pipe"
        rest = b""
        while chunk := await reader.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._log_line(line)
            if len(rest) > _LINE_BYTES:
                self._log_line(rest)
                rest = b""
        if rest:
            self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()
        if text:
            self._tail.append(text)
            log.info("%s: %s", self._name, text)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
