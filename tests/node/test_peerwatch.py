"""Peers that were named: said once when they do not answer, and when they do."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from gangline.node import peerwatch
from gangline.node.peerwatch import watch_peers
from tests.node.cluster import run


def test_a_peer_that_does_not_answer_is_told_once_and_when_it_does(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peerwatch, "PROBE_EVERY_S", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: it refuses, and nobody else has it
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        async def scene() -> None:
            warned = asyncio.Event()
            monkeypatch.setattr(caplog.handler, "filter", lambda _: warned.set() or True)
            watching = asyncio.create_task(watch_peers([f"tcp/{address}"]))
            await warned.wait()
            taken.listen()
            await watching

        with caplog.at_level(logging.WARNING, "gangline.node.peerwatch"):
            run(scene())
    assert [record.getMessage() for record in caplog.records] == [
        f"peer tcp/{address} does not answer at {address} (connection refused); trying on",
        f"peer tcp/{address} answers now at {address}",
    ]
