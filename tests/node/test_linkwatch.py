"""Links are measured when a peer appears, by every way, not while a model answers, and kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.facts import Interface, Link, LinkPath, WorkerStats
from gangline.node import linkwatch
from gangline.node.folding import View
from gangline.node.links import EchoResponder, PeerBusy, measure_path
from gangline.node.linkwatch import LinkWatch, link_of, read_links, write_links
from tests.node.cluster import HARDWARE, run
from tests.node.samples import A, B, record_of, report_of, report_with, view_of

LOOPBACK = Interface("lo", "virtual", None, False, ("127.0.0.1/8",))


@pytest.fixture
def responder() -> Iterator[EchoResponder]:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    yield responder
    responder.close()


def view_with(responder: EchoResponder) -> View:
    hardware = msgspec.structs.replace(HARDWARE, interfaces=(LOOPBACK,))
    own = report_of(A, hardware=hardware)
    return view_of(A, None, own, report_of(B, echo_address=responder.address))


async def measured_once(home: Path, responder: EchoResponder) -> tuple[Link, ...]:
    """The links once the first measurement has come."""
    changed = asyncio.Event()
    watch = LinkWatch(home, changed.set, threading.Lock())
    watch.follow(view_with(responder))
    await changed.wait()
    await watch.close()
    return watch.links()


def test_a_peer_is_measured_and_the_result_kept(tmp_path: Path, responder: EchoResponder) -> None:
    (link,) = run(measured_once(tmp_path, responder))
    assert (link.to, link.address, link.kind) == (B, "127.0.0.1", "virtual")
    assert link.rtt_us is not None and link.gbps is not None and link.measured_at is not None
    assert [path.address for path in link.paths] == ["127.0.0.1"]
    assert read_links(tmp_path / "links.json") == (link,)


def test_a_busy_peer_is_asked_again_until_it_has_time(
    tmp_path: Path, responder: EchoResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    monkeypatch.setattr(linkwatch, "BUSY_AGAIN_S", (0.001, 0.01))

    async def scene() -> tuple[Link, ...]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def measure(*arguments: Any) -> LinkPath:
            try:
                return measure_path(*arguments)
            except PeerBusy:
                loop.call_soon_threadsafe(refused.set)
                raise

        monkeypatch.setattr(linkwatch, "measure_path", measure)
        with responder.turn:
            watch = LinkWatch(tmp_path, changed.set, threading.Lock())
            watch.follow(view_with(responder))
            await refused.wait()
            assert watch.links() == ()
        await changed.wait()
        await watch.close()
        return watch.links()

    assert [link.to for link in run(scene())] == [B]


def test_an_unreachable_peer_is_tried_again_soon(
    tmp_path: Path, responder: EchoResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linkwatch, "FAILED_AGAIN_S", (0.001, 0.01))
    calls = 0

    def measure(*arguments: Any) -> LinkPath:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ConnectionRefusedError("not yet")
        return measure_path(*arguments)

    monkeypatch.setattr(linkwatch, "measure_path", measure)

    assert [link.to for link in run(measured_once(tmp_path, responder))] == [B]


@given(st.integers(0, 2000), st.floats(0, 1))
def test_pauses_grow_up_to_a_bound_and_differ(n_tries: int, chance: float) -> None:
    for first_s, longest_s in (linkwatch.BUSY_AGAIN_S, linkwatch.FAILED_AGAIN_S):
        pause_s = linkwatch.pause_s((first_s, longest_s), n_tries, chance)
        assert first_s / 2 <= pause_s <= 1.5 * longest_s
        assert pause_s <= linkwatch.pause_s((first_s, longest_s), n_tries + 1, chance)
        assert linkwatch.pause_s((first_s, longest_s), n_tries, 0.0) * (1 + 2 * chance) == (
            pytest.approx(pause_s)
        )


def test_kept_links_are_shown_until_they_are_measured_anew(
    tmp_path: Path, responder: EchoResponder
) -> None:
    old = Link(B, 123.0, 4.5, "127.0.0.1")
    write_links(tmp_path / "links.json", [old])

    async def scene() -> tuple[Link, ...]:
        watch = LinkWatch(tmp_path, lambda: None, threading.Lock())
        assert watch.links() == (), "B is not there"
        record = record_of(B)
        answering = report_with(record, 0, "ready")
        (worker,) = answering.facts.workers
        worker = msgspec.structs.replace(worker, stats=WorkerStats(lanes_active=1))
        facts = msgspec.structs.replace(answering.facts, workers=(worker,))
        report = msgspec.structs.replace(answering, facts=facts, echo_address=responder.address)
        watch.follow(view_of(A, record, report_of(A), report))
        await asyncio.sleep(0)
        links = watch.links()
        await watch.close()
        return links

    assert run(scene()) == (old,), "a model answers, so nothing was measured"


def test_the_best_path_is_the_link() -> None:
    wifi = LinkPath("192.168.1.3", "wifi", 5000.0, 0.6)
    cable = LinkPath("10.0.0.3", "ethernet", 200.0, 0.94)
    link = link_of(B, [wifi, cable], "2026-11-20")
    assert link == Link(
        B, 200.0, 0.94, "10.0.0.3", "ethernet", (cable, wifi), measured_at="2026-11-20"
    )


def test_links_of_another_build_or_a_damaged_file_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "links.json"
    write_links(file, [Link(B, 1.0, 1.0)])
    assert read_links(file) == (Link(B, 1.0, 1.0),)
    monkeypatch.setattr(linkwatch, "build_name", lambda: "another build")
    assert read_links(file) == ()
    monkeypatch.undo()
    file.write_text('{"build": "')
    assert read_links(file) == ()
