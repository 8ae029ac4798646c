"""When links are measured: once when a peer appears, rarely again, never while a model answers.

What was measured is kept in `home/links.json` with the build that measured it, so that a cluster
which starts again can be planned with at once; it is measured anew all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gangline.errors import ProtocolError
from gangline.facts import Interface, Link, LinkPath, NodeId
from gangline.hardware.measure import build_name
from gangline.kept import read_kept, write_kept
from gangline.node.folding import View
from gangline.node.links import measure_path
from gangline.node.records import NodeReport
from gangline.node.ways import Way, best_first, find_ways

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 900.0
RETRY_AFTER_S = 30.0  # after a failure, and while a model answers
FILE_NAME = "links.json"


class _Known(msgspec.Struct, frozen=True):
    ways: tuple[Way, ...]
    link: Link | None
    due_s: float  # by the monotonic clock


class _Kept(msgspec.Struct, frozen=True):
    build: str
    links: tuple[Link, ...]


class LinkWatch:
    """The measured links of this node; `follow` is told of every change of the cluster."""

    def __init__(self, home: Path, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._file = home / FILE_NAME
        self._kept = {link.to: link for link in read_links(self._file)}
        self._peers: dict[NodeId, tuple[Way, ...]] = {}
        self._known: dict[NodeId, _Known] = {}
        self._busy = False
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
        self._busy = view.answering
        if peers != self._peers:
            self._peers = peers
            self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self._known = {n: k for n, k in self._known.items() if self._peers.get(n) == k.ways}
            now_s = time.monotonic()
            due = [
                node
                for node in sorted(self._peers)
                if node not in self._known or self._known[node].due_s <= now_s
            ]
            if due and not self._busy:
                await self._measure(due[0], self._peers[due[0]])
                continue
            later = [known.due_s - now_s for known in self._known.values()]
            wait_s = RETRY_AFTER_S if due else min(later, default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()

    async def _measure(self, peer: NodeId, ways: tuple[Way, ...]) -> None:
        before = self._link(peer)
        paths: list[LinkPath] = []
        interrupted = False
        for way in ways:
            if self._busy:  # an answer began: what was measured of this peer until now stands
                interrupted = True
                break
            try:
                paths.append(await asyncio.to_thread(measure_path, way.address, way.kind))
            except (OSError, ProtocolError) as error:
                log.info("the way to %s by %s was not measured: %s", peer, way.address, error)
        link = link_of(peer, paths, _today()) if paths else before
        done = bool(paths) and not interrupted
        due_s = time.monotonic() + (AGAIN_AFTER_S if done else RETRY_AFTER_S)
        self._known[peer] = _Known(ways, link, due_s)
        if link is not None and link != before:
            self._kept[peer] = link
            await asyncio.to_thread(write_links, self._file, self._kept.values())
            self._changed()


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
