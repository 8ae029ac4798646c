"""When links are measured: once when a peer appears, rarely again, never while a model answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec

from gangline.errors import ProtocolError
from gangline.facts import Link, NodeId
from gangline.node.folding import View
from gangline.node.links import measure_link

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 900.0
RETRY_AFTER_S = 30.0  # after a failure, and while a model answers


class _Known(msgspec.Struct, frozen=True):
    address: str
    link: Link | None
    due_s: float  # by the monotonic clock


class LinkWatch:
    """The measured links of this node; `follow` is told of every change of the cluster."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._peers: dict[NodeId, str] = {}
        self._known: dict[NodeId, _Known] = {}
        self._busy = False
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="links")

    def links(self) -> tuple[Link, ...]:
        """What is known of links to live peers."""
        return tuple(
            known.link
            for peer, known in sorted(self._known.items())
            if peer in self._peers and known.link is not None
        )

    def follow(self, view: View) -> None:
        """Note who is there, and whether a model answers."""
        peers = {
            node: report.echo_address
            for node, report in view.reports.items()
            if node in view.live and node != view.me and report.echo_address
        }
        self._busy = any(
            worker.stats is not None and worker.stats.lanes_active > 0
            for facts in view.live_facts()
            for worker in facts.workers
        )
        if peers != self._peers:
            self._peers = peers
            self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self._known = {n: k for n, k in self._known.items() if self._peers.get(n) == k.address}
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

    async def _measure(self, peer: NodeId, address: str) -> None:
        before = self._known.get(peer)
        try:
            link: Link | None = await asyncio.to_thread(measure_link, peer, address)
            due_s = time.monotonic() + AGAIN_AFTER_S
        except (OSError, ProtocolError) as error:
            log.info("the link to %s was not measured: %s", peer, error)
            link = before.link if before is not None else None
            due_s = time.monotonic() + RETRY_AFTER_S
        self._known[peer] = _Known(address, link, due_s)
        if before is None or before.link != link:
            self._changed()
