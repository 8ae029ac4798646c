"""Worker processes: progress, every kind of end, and no orphan ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gangline.errors import CheckpointError, ProtocolError, WorkerLost
from gangline.facts import ModelId, Role, Span, WorkerFacts
from gangline.node import process
from gangline.node.stored import stamp_of, why_unreadable
from gangline.node.supervisor import Supervisor
from gangline.stage.control import Load
from tests.make_checkpoint import write_safetensors
from tests.node.cluster import run
from tests.node.node_process import double_command

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def load_of(n_stages: int = 1, index: int = 0, path: str = "") -> Load:
    return Load(
        model=ModelId("tiny"),
        path=path,
        epoch=1,
        role="stage" if index else "head",
        span=Span(index, index + 1),
        index=index,
        n_stages=n_stages,
        secret=b"s" * 32,
        listen="127.0.0.1",
        advertise="127.0.0.1",
        context=16,
        lanes=1,
        threads=1,
    )


class Watched:
    """A supervisor and every facts of its first worker."""

    def __init__(self, behaviour: str) -> None:
        self._event = asyncio.Event()
        self.supervisor = Supervisor(self._event.set, double_command(behaviour))

    async def until(self, holds: Callable[[WorkerFacts], bool]) -> WorkerFacts:
        while True:
            self._event.clear()
            for facts in self.supervisor.facts():
                if holds(facts):
                    return facts
            await self._event.wait()

    async def empty(self) -> None:
        while self.supervisor.facts():
            self._event.clear()
            await self._event.wait()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_loads_connects_and_stops() -> None:
    async def scene() -> None:
        watched = Watched("good")
        watched.supervisor.start(load_of(n_stages=2))
        facts = await watched.until(lambda facts: facts.progress == 1.0)
        assert (facts.state, facts.weight_bytes, facts.cache_bytes) == ("loading", 100, 200)
        assert facts.backend == "double"
        (detail,) = watched.supervisor.details()
        assert (detail.hop_address, detail.front_address) == ("127.0.0.1:1000", "127.0.0.1:999")
        watched.supervisor.connect(facts.id, "127.0.0.1:1001")
        await watched.until(lambda facts: facts.state == "ready")
        watched.supervisor.stop(facts.id, "enough")
        await watched.empty()
        assert is_gone(facts.pid)

    run(scene())


def test_a_worker_alone_is_ready_once_loaded() -> None:
    async def scene() -> None:
        watched = Watched("good")
        watched.supervisor.start(load_of())
        await watched.until(lambda facts: facts.state == "ready")
        await watched.supervisor.close()

    run(scene())


@posix
@pytest.mark.parametrize(
    ("behaviour", "code", "reason"),
    [
        ("crash", WorkerLost.code, "killed by SIGABRT: about to dereference a null pointer"),
        ("fail", CheckpointError.code, "layer 3 is missing"),
        ("babble", ProtocolError.code, "cannot be read"),
        ("boast", ProtocolError.code, "a message of 4294967295 bytes"),
        ("no such behaviour", WorkerLost.code, "KeyError: 'no such behaviour'"),
    ],
)
def test_every_failure_has_its_reason(behaviour: str, code: str, reason: str) -> None:
    async def scene() -> None:
        watched = Watched(behaviour)
        watched.supervisor.start(load_of())
        facts = await watched.until(lambda facts: facts.state == "failed")
        assert reason in facts.reason
        (detail,) = watched.supervisor.details()
        assert detail.error is not None
        assert detail.error.code == code
        await watched.supervisor.close()
        assert watched.supervisor.facts() == ()
        assert is_gone(facts.pid)

    run(scene())


@posix
def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    """What is mapped and gone ends a process by a signal; the node says which file it was."""
    weights = tmp_path / "model.safetensors"
    write_safetensors(weights, {"model.norm.weight": np.zeros(200_000, np.uint16)})

    async def scene() -> None:
        watched = Watched("tear")
        watched.supervisor.start(load_of(path=str(tmp_path)))
        facts = await watched.until(lambda facts: facts.state == "failed")
        assert f"the file {weights} changed or was cut while it was read" in facts.reason
        (detail,) = watched.supervisor.details()
        assert detail.error is not None
        assert detail.error.code == CheckpointError.code
        await watched.supervisor.close()

    run(scene())


def test_what_could_not_be_read_although_no_file_changed(tmp_path: Path) -> None:
    """A disk that fails ends a worker by the same signal."""
    assert "its disk or network share failed" in why_unreadable(tmp_path, stamp_of(tmp_path))


def test_a_program_that_is_not_there() -> None:
    async def scene() -> None:
        def command(role: Role) -> list[str]:
            return ["/no/such/python"]

        event = asyncio.Event()
        supervisor = Supervisor(event.set, command)
        supervisor.start(load_of())
        while supervisor.facts()[0].state != "failed":
            event.clear()
            await event.wait()
        assert "could not be started" in supervisor.facts()[0].reason
        await supervisor.close()

    run(scene())


@posix
def test_a_ready_worker_that_is_killed_is_seen() -> None:
    async def scene() -> None:
        watched = Watched("good")
        watched.supervisor.start(load_of())
        facts = await watched.until(lambda facts: facts.state == "ready")
        os.kill(facts.pid, signal.SIGKILL)
        facts = await watched.until(lambda facts: facts.state == "failed")
        assert facts.reason == "the worker was killed by SIGKILL"
        await watched.supervisor.close()

    run(scene())


@posix
def test_a_worker_that_hangs_or_is_frozen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_WITHIN_S", 0.1)

    async def scene() -> None:
        hanging = Watched("hang")
        hanging.supervisor.start(load_of())
        first = await hanging.until(lambda facts: facts.progress == 0.25)
        frozen = Watched("good")
        frozen.supervisor.start(load_of())
        second = await frozen.until(lambda facts: facts.state == "ready")
        os.kill(second.pid, signal.SIGSTOP)
        await asyncio.gather(hanging.supervisor.close(), frozen.supervisor.close())
        assert is_gone(first.pid)
        assert is_gone(second.pid)

    run(scene())


def test_stopping_at_any_moment_of_the_start_leaves_nothing() -> None:
    async def scene() -> None:
        supervisor = Supervisor(lambda: None, double_command("good"))
        pids: set[int] = set()
        for n_turns in range(12):
            supervisor.start(load_of())
            for _ in range(n_turns):
                await asyncio.sleep(0)
            pids |= {facts.pid for facts in supervisor.facts() if facts.pid}
            for facts in supervisor.facts():
                supervisor.stop(facts.id, "at once")
        await supervisor.close()
        assert supervisor.facts() == ()
        assert all(is_gone(pid) for pid in pids)
        supervisor.start(load_of())
        assert supervisor.facts() == (), "a closed supervisor starts nothing"

    run(scene())


@posix
def test_long_lines_in_the_log_harm_nothing() -> None:
    async def scene() -> None:
        watched = Watched("shout")
        watched.supervisor.start(load_of())
        await watched.until(lambda facts: facts.state == "ready")
        await watched.supervisor.close()

    run(scene())
