"""The workers of this node: what each was told, how far it is, and how it ended.

Starts and stops processes as it is told; whether they are wanted is `reconcile.py`'s business.
A failed worker is kept in the list, with its reason, until it is stopped for good.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gangline.checkpoint.faults import REDOWNLOAD
from gangline.errors import CheckpointError, ErrorBody, GanglineError, ProtocolError, WorkerLost
from gangline.facts import Role, WorkerFacts
from gangline.node.process import WorkerProcess
from gangline.node.reconcile import OwnWorker
from gangline.node.records import WorkerDetail, load_key
from gangline.node.stored import stamp_of, why_unreadable
from gangline.stage.control import (
    Connect,
    Connected,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Progress,
    Stats,
)

log = logging.getLogger(__name__)

Command = Callable[[Role], list[str]]


def worker_command(role: Role) -> list[str]:
    """How a worker is started; -P keeps the current folder out of its import path."""
    return [sys.executable, "-P", "-m", f"gangline.{role}"]


class _Worker:
    """A worker's process (None while it starts, and once it has failed) and what it said."""

    def __init__(self, worker_id: str, load: Load) -> None:
        self.load = load
        self.files = stamp_of(Path(load.path))  # as they are before it maps them
        self.process: WorkerProcess | None = None
        self.task: asyncio.Task[None] | None = None
        self.connected = False
        self.facts = WorkerFacts(
            id=worker_id,
            pid=0,
            model=load.model,
            epoch=load.epoch,
            role=load.role,
            span=load.span,
            state="starting",
            backend=load.backend,
        )
        self.detail = WorkerDetail(worker_id, load_key(load.secret), load.index)

    def change(self, **changes: object) -> None:
        self.facts = msgspec.structs.replace(self.facts, **changes)

    def fail(self, error: ErrorBody, *, knock_on: bool = False) -> None:
        self.change(state="failed", reason=error.message, stats=None)
        self.detail = msgspec.structs.replace(
            self.detail, error=error, knock_on=knock_on, hop_address="", front_address=""
        )


class Supervisor:
    """Runs workers; `changed` is called whenever `facts()` or `details()` would differ."""

    def __init__(self, changed: Callable[[], None], command: Command = worker_command) -> None:
        self._changed = changed
        self._command = command
        self._numbers = itertools.count(1)
        self._workers: dict[str, _Worker] = {}
        self._closed = False

    def start(self, load: Load) -> None:
        """Start a worker and load its stage; progress and failure show in its facts."""
        if self._closed:
            return
        worker = _Worker(f"w-{next(self._numbers)}", load)
        self._workers[worker.facts.id] = worker
        worker.task = asyncio.create_task(self._run(worker), name=worker.facts.id)
        worker.task.add_done_callback(lambda _: self._forget(worker))
        self._changed()

    def connect(self, worker_id: str, next_address: str) -> None:
        """Tell a loaded worker its neighbour."""
        worker = self._workers[worker_id]
        if worker.process is not None:
            worker.connected = True
            worker.process.send(Connect(next_address))

    def stop(self, worker_id: str, why: str) -> None:
        """Begin to stop a worker; it leaves the list when it is gone."""
        worker = self._workers[worker_id]
        if worker.facts.state == "stopping":
            return
        log.info("stopping %s: %s", _name(worker), why)
        worker.change(state="stopping", reason=why)
        assert worker.task is not None, "it was started"
        worker.task.cancel()
        self._changed()

    async def close(self) -> None:
        """Stop all workers; returns when no process is left."""
        self._closed = True
        for worker_id in list(self._workers):
            self.stop(worker_id, "the node ends")
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def facts(self) -> tuple[WorkerFacts, ...]:
        return tuple(worker.facts for worker in self._workers.values())

    def details(self) -> tuple[WorkerDetail, ...]:
        return tuple(worker.detail for worker in self._workers.values())

    def own_workers(self) -> list[OwnWorker]:
        """The workers as `reconcile_workers` sees them."""
        return [
            OwnWorker(
                id=worker.facts.id,
                model=worker.load.model,
                load_key=worker.detail.load_key,
                index=worker.load.index,
                loaded=bool(worker.detail.hop_address or worker.detail.front_address),
                connected=worker.connected,
                stopping=worker.facts.state == "stopping",
            )
            for worker in self._workers.values()
        ]

    async def _run(self, worker: _Worker) -> None:
        """The life of one worker, until it is stopped: a failed one waits for that here."""
        try:
            try:
                worker.process = await WorkerProcess.start(
                    self._command(worker.load.role), _name(worker)
                )
            except OSError as error:
                worker.fail(WorkerLost(f"the worker could not be started: {error}").body())
            else:
                await self._follow(worker, worker.process)
            log.warning("%s failed: %s", _name(worker), worker.facts.reason)
            self._changed()
            await asyncio.Event().wait()  # until `stop` cancels us
        finally:
            if worker.process is not None:
                await worker.process.stop()

    def _forget(self, worker: _Worker) -> None:
        del self._workers[worker.facts.id]
        self._changed()

    async def _follow(self, worker: _Worker, process: WorkerProcess) -> None:
        """Apply what the worker says until it ends, then note how that was."""
        worker.change(pid=process.pid, state="loading")
        self._changed()
        process.send(worker.load)
        try:
            async for message in process.messages():
                self._apply(worker, message)
                self._changed()
        except ProtocolError as error:
            worker.fail(error.body())
        end = await process.end()
        if worker.facts.state != "failed":
            worker.fail(_loss(worker, process, end).body())

    def _apply(self, worker: _Worker, message: FromWorker) -> None:
        match message:
            case Progress(fraction=fraction):
                worker.change(progress=round(min(1.0, max(0.0, fraction)), 3))
            case Loaded():
                alone = worker.load.n_stages == 1
                worker.change(
                    progress=1.0,
                    state="ready" if alone else "loading",
                    weight_bytes=message.weight_bytes,
                    cache_bytes=message.cache_bytes,
                    backend=message.backend,
                )
                worker.detail = msgspec.structs.replace(
                    worker.detail,
                    hop_address=message.hop_address,
                    front_address=message.front_address,
                )
            case Connected():
                worker.change(state="ready")
            case Stats(stats=stats):
                worker.change(stats=stats)
            case Failed(error=error, knock_on=knock_on):
                worker.fail(error, knock_on=knock_on)


def _loss(worker: _Worker, process: WorkerProcess, end: str) -> GanglineError:
    """What became of a worker that did not say so itself."""
    if process.could_not_read:
        why = why_unreadable(Path(worker.load.path), worker.files)
        return CheckpointError(f"{why} ({end})", hint=REDOWNLOAD)
    return WorkerLost(end)


def _name(worker: _Worker) -> str:
    facts = worker.facts
    return f"{facts.id} ({facts.model} {facts.role} {facts.span.start}..{facts.span.end})"
