"""Node processes that live no longer than the process that started them.

Each has a temporary GANGLINE_HOME and a pipe as its standard input: when this process ends, however
that happens, the pipe closes, and the node ends and removes its folder by itself.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from gangline.cli.up import TEMPORARY, Ready
from gangline.errors import GanglineError

END_S = 6.0  # for all nodes to end by themselves
KILL_S = 2.0


class Child:
    """One node process; `log` is its standard error."""

    def __init__(self, name: str, arguments: Sequence[str], hardware: bytes | None) -> None:
        self.name = name
        self.home = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        self.log = self.home / "node.log"
        if hardware is not None:
            (self.home / "machine.json").write_bytes(hardware)
        command = [sys.executable, "-P", "-m", "gangline", "up", "--parent-pipe", "--remove-home"]
        # A session of its own: Ctrl-C in the terminal reaches this process only, which then ends
        # the nodes in order.
        own: dict[str, bool | int] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [*command, "--name", name, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | {"GANGLINE_HOME": str(self.home)},
                    **own,  # type: ignore[call-overload]  # which of the two depends on the system
                )
        except BaseException:
            self.remove()
            raise

    def ready(self) -> Ready:
        """Wait until the node answers; raises with its own words if it ended instead."""
        assert self.process.stdout is not None, "opened as a pipe"
        line = self.process.stdout.readline()
        try:
            return msgspec.json.decode(line, type=Ready)
        except msgspec.DecodeError:
            code = self.process.wait()
            raise GanglineError(
                f"{self.name} ended with code {code} instead of starting",
                hint=self.last_words() or "try again",
            ) from None

    def last_words(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-8:]).removeprefix("error: ")

    def end(self) -> None:
        """Ask the node to end; does not wait."""
        assert self.process.stdin is not None, "opened as a pipe"
        with contextlib.suppress(OSError):  # it has ended, and what was unsent with it
            self.process.stdin.close()

    def remove(self) -> None:
        """Remove what it may have left."""
        shutil.rmtree(self.home, ignore_errors=True)


class Children:
    """All nodes of a demo; leaving the `with` block ends them, one way or another."""

    def __init__(self) -> None:
        self.all: list[Child] = []
        self.ended: queue.Queue[Child] = queue.Queue()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, name: str, arguments: Sequence[str], hardware: bytes | None) -> Child:
        """Start one more; `ended` tells when it ends."""
        child = Child(name, arguments, hardware)
        self.all.append(child)
        threading.Thread(target=self._watch, args=(child,), daemon=True).start()
        return child

    def _watch(self, child: Child) -> None:
        child.process.wait()
        self.ended.put(child)

    def close(self) -> None:
        """Ask, then insist."""
        for child in self.all:
            child.end()
        wait_all(self.all, END_S)
        for child in self.all:
            if child.process.poll() is None:
                child.process.kill()
        wait_all(self.all, KILL_S)
        for child in self.all:
            if child.process.stdout is not None:
                child.process.stdout.close()
            child.remove()
        self.all.clear()


def wait_all(children: Iterable[Child], seconds: float) -> None:
    """Wait until all have ended, at most so long."""
    deadline_s = time.monotonic() + seconds
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):  # the caller looks who is left
            child.process.wait(max(0.0, deadline_s - time.monotonic()))
