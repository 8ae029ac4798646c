"""`gangline demo` and `gangline up` as processes: however they end, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gangline.cli import demo
from gangline.cli.client import Client
from gangline.facts import ClusterState
from tests.cli.conftest import gangline
from tests.cluster import RawClient

pytestmark = pytest.mark.cluster

GONE_S = 20.0
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")


class Started:
    """A `gangline` process that has said where it answers."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        own = {"GANGLINE_HOME": str(folder / "home"), "TMPDIR": str(folder)}
        (folder / "home").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            gangline(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | own,
        )
        self.output: list[str] = []
        self.url = ""

    def read(self, pattern: str) -> re.Match[str]:
        """Read its output up to a line that matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(pattern, line):
                return found
        assert self.process.stderr is not None
        raise AssertionError(f"{self.output} {self.process.stderr.read()}")

    def state(self) -> ClusterState:
        return Client(self.url).get("/cluster/state", ClusterState)

    def pids(self) -> list[int]:
        """All processes of its cluster, nodes and workers."""
        nodes = self.state().nodes
        return [node.pid for node in nodes] + [w.pid for node in nodes for w in node.workers]

    def assert_nothing_is_left(self, pids: list[int]) -> None:
        for pid in pids:
            wait_gone(pid)
        parts = urlsplit(self.url)
        for port in (parts.port or 0, (parts.port or 0) + 1):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
        wait_until(lambda: not list(self.folder.glob("gangline-demo-*")))
        assert [path.name for path in self.folder.iterdir()] == ["home"]


def wait_gone(pid: int) -> None:
    """Wait until a process has ended that is no child of this one."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended, _, _ = select.select([descriptor], [], [], GONE_S)
        os.close(descriptor)
        assert ended, f"process {pid} goes on"
    else:
        wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, 0)
        return True
    return False


def wait_until(done: Callable[[], bool]) -> None:
    """For what no event tells: look again until it is so."""
    deadline_s = time.monotonic() + GONE_S
    while not done():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Started]:
    one = Started(folder, *arguments)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=GONE_S)


@contextmanager
def running_demo(folder: Path, n_nodes: int) -> Iterator[Started]:
    arguments = ("demo", "--nodes", str(n_nodes), "--no-browser", "--port", str(free_port()))
    with started(folder, *arguments) as one:
        one.url = one.read(r"the page: (\S+)")[1]
        yield one


def free_port() -> int:
    """A port that is free, and so is the one above it."""
    for port in range(20_000 + os.getpid() % 20_000, 60_000, 2):
        if demo.is_free(port) and demo.is_free(port + 1):
            return port
    raise AssertionError("no port is free")


def test_the_demo_answers_and_ends(tmp_path: Path) -> None:
    with running_demo(tmp_path, 3) as one:
        text = "".join(one.output)
        shape = (
            r"\n> What is 17 \+ 25\?\n.+\n"
            r"[\d.]+ ms to the first token, [\d.]+ tok/s, \d+ tokens; [\d.]+ s after start\n"
            r"\nthe page: http://127\.0\.0\.1:\d+\n"
        )
        assert re.fullmatch(shape, text), text
        state = one.state()
        assert [node.name for node in state.nodes if node.id == state.node] == ["node-1"]
        assert len(state.models[0].stages) == 3
        pids = one.pids()
        assert len(set(pids)) == 6
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(timeout=GONE_S) == 0
        one.assert_nothing_is_left(pids)


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_the_demo_ends_with_its_processes(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    with running_demo(tmp_path, 2) as one:
        pids = one.pids()
        one.process.send_signal(number)
        assert one.process.wait(timeout=GONE_S) == (-number if name == "SIGKILL" else 0)
        one.assert_nothing_is_left(pids)


@posix
def test_a_node_of_the_demo_dies(tmp_path: Path) -> None:
    with running_demo(tmp_path, 2) as one:
        pids = one.pids()
        names = {node.name: node.pid for node in one.state().nodes}
        os.kill(names["node-2"], signal.SIGKILL)
        assert one.process.stderr is not None
        lines = iter(one.process.stderr.readline, "")
        assert any("node-2 ended with code -9" in line for line in lines)
        assert Client(one.url).get("/cluster/state", ClusterState).node
        os.kill(names["node-1"], signal.SIGKILL)
        assert one.process.wait(timeout=GONE_S) == 1
        assert "error: the node that serves the page has ended" in one.process.stderr.read()
        one.assert_nothing_is_left(pids)


def test_the_demo_steps_aside_for_a_taken_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setattr(demo, "DEFAULT_PORT", port)
    assert demo.choose_port(None) == port
    with socket.create_server(("127.0.0.1", port + 1)):  # the control plane's
        other = demo.choose_port(None)
        assert other > port
        assert other != port + 1
        assert f"port {port} is in use, the demo takes {other}" in capsys.readouterr().err


def test_no_browser_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for terminal, display, shown in ((True, ":0", True), (True, "", False), (False, ":0", False)):
        monkeypatch.setattr(demo, "is_terminal", lambda stream, answer=terminal: answer)
        monkeypatch.setenv("DISPLAY", display)
        assert demo.has_display() is shown


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_ends_with_clients_connected(tmp_path: Path, number: int) -> None:
    port = free_port()
    with started(tmp_path, "up", "demo", "--port", str(port), "--no-scout") as one:
        one.url = one.read(r"answers at (\S+)")[1]
        assert one.process.stderr is not None
        lines = iter(one.process.stderr.readline, "")
        assert any("is ready" in line for line in lines)
        pids = one.pids()
        assert len(pids) == 2
        watcher, talker = RawClient(one.url), RawClient(one.url)
        watcher.socket.sendall(
            f"GET /cluster/events HTTP/1.1\r\nHost: {watcher.host}\r\n\r\n".encode()
        )
        watcher.read_until(b"event: state")
        talker.post("/v1/completions", {"model": "demo", "prompt": "a", "stream": True})
        talker.read_until(b"data: ")
        one.process.send_signal(number)
        assert one.process.wait(timeout=GONE_S) == 0
        watcher.close()
        talker.close()
        one.assert_nothing_is_left(pids)


def test_a_model_that_cannot_be_loaded_leaves_the_node_up(tmp_path: Path) -> None:
    broken = tmp_path / "home" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    with started(tmp_path, "up", str(broken), "--port", "0", "--no-scout") as one:
        one.url = one.read(r"answers at (\S+)")[1]
        assert one.process.stderr is not None
        lines = iter(one.process.stderr.readline, "")
        assert any(line.startswith("error: ") for line in lines)
        assert one.state().models == ()
