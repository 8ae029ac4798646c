"""`gangline chat` at a terminal: Ctrl-C ends an answer, Ctrl-D the conversation."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import LONG_CONTEXT, SINGLE, Cluster, make_model, running_cluster

PATIENCE_S = 60.0  # without anything new on the screen

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
]


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[Cluster]:
    """A model on one lane whose answers go on and on."""
    make_model(tmp_path / SINGLE)
    with running_cluster(1, tmp_path) as cluster:
        cluster.load(model=SINGLE, context=LONG_CONTEXT, lanes=1)
        yield cluster


class Terminal:
    """A command at a pseudo-terminal, and a user who reads and types."""

    def __init__(self, *command: str) -> None:
        self.screen, inside = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gangline", *command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=os.environ | {"TERM": "dumb", "NO_COLOR": "1"},
            # A shell starts its background jobs deaf to Ctrl-C; these tests may be one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(inside)
        self.unread = b""

    def read(self, mark: bytes, at_least: int = 0) -> bytes:
        """What is shown, up to and with `mark`."""
        while mark not in self.unread or len(self.unread) < at_least:
            ready, _, _ = select.select([self.screen], [], [], PATIENCE_S)
            assert ready, f"waited for {mark!r}, shown: {self.unread!r}"
            self.unread += os.read(self.screen, 4096)
        shown, found, self.unread = self.unread.partition(mark)
        return shown + found

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())


def test_a_conversation(talkative: Cluster) -> None:
    terminal = Terminal("chat", "--temperature", "0", "--url", talkative.urls[0])
    try:
        terminal.read(b"/help lists")
        terminal.read(b"> ")
        terminal.type("hello\n")
        terminal.read(b"hello", at_least=300)  # the echo, then the answer
        terminal.process.send_signal(signal.SIGINT)
        terminal.read(b"(stopped)")
        terminal.type("/clear\n/model\n")
        terminal.read(b"single*")
        terminal.read(b"> ")
        stats = talkative.wait_stats(
            SINGLE, lambda stats: stats.tokens_total > 0 and not stats.lanes_active
        )
        assert stats.tokens_total < LONG_CONTEXT // 2
        terminal.process.send_signal(signal.SIGINT)
        terminal.read(b"(/quit or Ctrl-D ends)")
        terminal.read(b"> ")  # until then ^D would be read as a zero byte
        terminal.type("\x04")
        assert terminal.process.wait(timeout=20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.screen)
