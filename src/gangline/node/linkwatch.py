"""When links are measured: once when a peer appears, rarely again, never while a model answers.

A node that measures another, or is measured, has no time for a third: that one comes back soon, and
sooner than after a failure. An answer that begins breaks a measurement off.

What was measured is kept in `home/links.json` with the build that measured it, so that a cluster
which starts again can be planned with at once; it is measured anew all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gangline.errors import ProtocolError
from gangline.facts import Interface, Link, LinkPath, NodeId
from gangline.hardware.measure import build_name
from gangline.kept import read_kept, write_kept
from gangline.node.folding import View
from gangline.node.links import Interrupted, PeerBusy, measure_path
from gangline.node.records import NodeReport
from gangline.node.ways import Way, best_first, find_ways

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 900.0
BUSY_AGAIN_S = (0.1, 2.0)  # first and longest pause before a busy peer is asked again
FAILED_AGAIN_S = (1.0, 60.0)  # the same after a failure
QUIET_S = 2.0  # after an answer: often the next one follows
FILE_NAME = "links.json"


class _Known(msgspec.Struct, frozen=True):
    ways: tuple[Way, ...]
    link: Link | None
    due_s: float  # by the monotonic clock
    n_busy: int = 0  # tries in a row that found the peer or this node busy
    n_failed: int = 0  # others since the last success


class _Kept(msgspec.Struct, frozen=True):
    build: str
    links: tuple[Link, ...]


class LinkWatch:
    """The measured links of this node; `follow` is told of every change of the cluster."""

    def __init__(self, home: Path, changed: Callable[[], None], turn: threading.Lock) -> None:
        """`turn` is held while this node measures or is measured."""
        self._changed = changed
        self._turn = turn
        self._file = home / FILE_NAME
        self._kept = {link.to: link for link in read_links(self._file)}
        self._peers: dict[NodeId, tuple[Way, ...]] = {}
        self._known: dict[NodeId, _Known] = {}
        self._busy = threading.Event()  # while a model answers
        self._quiet_from_s = 0.0
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="links")

    def links(self) -> tuple[Link, ...]:
        """What is known of links to live peers."""
        links = (self._link(peer) for peer in sorted(self._peers))
        return tuple(link for link in links if link is not None)

    def _link(self, peer: NodeId) -> Link | None:
        known = self._known.get(peer)
        return known.link if known is not None else self._kept.get(peer)

    def follow(self, view: View) -> None:
        """Note who is there, and whether a model answers."""
        own = view.reports.get(view.me)
        interfaces = own.facts.hardware.interfaces if own is not None else ()
        peers = {
            node: ways_to(interfaces, report)
            for node, report in view.reports.items()
            if node in view.live and node != view.me and report.echo_address
        }
        if peers != self._peers:
            self._peers = peers
            self._wake.set()
        if view.answering:
            self._busy.set()
        elif self._busy.is_set():
            self._busy.clear()
            self._quiet_from_s = time.monotonic() + QUIET_S
            self._wake.set()

    async def close(self) -> None:
        self._busy.set()  # breaks off what is under way
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self._known = {n: k for n, k in self._known.items() if self._peers.get(n) == k.ways}
            due = min((self._due_s(peer), peer) for peer in self._peers) if self._peers else None
            wait_s = None if due is None or self._busy.is_set() else due[0] - time.monotonic()
            if due is not None and wait_s is not None and wait_s <= 0:
                await self._measure(due[1], self._peers[due[1]])
                continue
            with contextlib.suppress(TimeoutError):  # then something is due
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()

    def _due_s(self, peer: NodeId) -> float:
        """When a peer is to be measured, by the monotonic clock."""
        known = self._known.get(peer)
        return max(0.0 if known is None else known.due_s, self._quiet_from_s)

    async def _measure(self, peer: NodeId, ways: tuple[Way, ...]) -> None:
        known = self._known.get(peer) or _Known(ways, self._kept.get(peer), 0.0)
        link, n_busy, n_failed = known.link, 0, 0
        try:
            found = await asyncio.to_thread(self._measure_ways, ways)
        except (PeerBusy, Interrupted) as error:
            log.debug("%s is not measured now: %s", peer, error)
            n_busy, n_failed = known.n_busy + 1, known.n_failed
            again_s = pause_s(BUSY_AGAIN_S, known.n_busy, random.random())
        else:
            if found:
                link, again_s = link_of(peer, found, _today()), AGAIN_AFTER_S
            else:
                n_failed = known.n_failed + 1
                again_s = pause_s(FAILED_AGAIN_S, known.n_failed, random.random())
        was = self._link(peer)
        self._known[peer] = _Known(ways, link, time.monotonic() + again_s, n_busy, n_failed)
        if link is not None and link != was:
            self._kept[peer] = link
            await asyncio.to_thread(write_links, self._file, self._kept.values())
            self._changed()

    def _measure_ways(self, ways: tuple[Way, ...]) -> list[LinkPath]:
        """Measure each; PeerBusy, Interrupted. A way that leads nowhere is left out."""
        found: list[LinkPath] = []
        for way in ways:
            try:
                found.append(measure_path(way.address, way.kind, self._turn, self._busy))
            except (PeerBusy, Interrupted):
                raise  # the others would have to do without the best way, perhaps
            except (OSError, ProtocolError) as error:
                log.info("the way by %s was not measured: %s", way.address, error)
        return found


def pause_s(bounds: tuple[float, float], n_tries: int, chance: float) -> float:
    """Seconds before the next try: twice as long each time, spread by `chance` from 0 to 1.

    Two nodes that disturbed each other must not come back at the same time.
    """
    first_s, longest_s = bounds
    return min(longest_s, first_s * 2.0 ** min(n_tries, 16)) * (0.5 + chance)


def ways_to(interfaces: Iterable[Interface], report: NodeReport) -> tuple[Way, ...]:
    """The ways to a peer; the one that it names where its others cannot be read."""
    try:
        return tuple(find_ways(interfaces, report.echo_address, report.hosts))
    except (ValueError, ProtocolError) as error:
        log.info("addresses of %s cannot be read: %s", report.facts.id, error)
        return (Way(report.echo_address, None),)


def link_of(peer: NodeId, paths: Iterable[LinkPath], day: str) -> Link:
    """The link by its best path; at least one was measured."""
    ordered = best_first(paths)
    best = ordered[0]
    return Link(
        to=peer,
        rtt_us=best.rtt_us,
        gbps=best.gbps,
        address=best.address,
        kind=best.kind,
        paths=ordered,
        measured_at=day,
    )


def read_links(file: Path) -> tuple[Link, ...]:
    """The links of the last run; none where the file is damaged or of another build."""
    kept = read_kept(file, _Kept)
    return kept.links if kept is not None and kept.build == build_name() else ()


def write_links(file: Path, links: Iterable[Link]) -> None:
    """Keep what was measured; a folder that cannot be written only costs the next start."""
    write_kept(file, _Kept(build_name(), tuple(sorted(links, key=lambda link: link.to))))


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
