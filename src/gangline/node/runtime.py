"""A running node: what arrives is folded, each change leads to one step, each step acts.

A step compares wanted with found (`reconcile`), acts on this node's workers, does the steward's
work and publishes this node's report. Everything runs in one asyncio loop; what users may ask of
a node is `node.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable

import msgspec

from gangline import __version__
from gangline.facts import NodeFacts, NodeId
from gangline.hardware.measure import measured_hardware
from gangline.node.config import NodeConfig, advertised_address, reached_hosts
from gangline.node.entry import Entry
from gangline.node.folding import Folding
from gangline.node.identity import Identity
from gangline.node.links import EchoResponder
from gangline.node.linkwatch import LinkWatch
from gangline.node.machinewatch import MachineWatch
from gangline.node.membership import Handlers, Membership
from gangline.node.models import Models
from gangline.node.peerwatch import watch_peers
from gangline.node.reconcile import ConnectWorker, StartWorker, StopWorker, reconcile_workers
from gangline.node.records import (
    Call,
    DescribeModel,
    Done,
    GetSnapshot,
    ModelRecord,
    NodeReport,
    Snapshot,
    UnloadModel,
)
from gangline.node.residuals import Residuals
from gangline.node.steward import Steward
from gangline.node.stored import ModelStore
from gangline.node.supervisor import Command, Supervisor
from gangline.stage.control import Load
from gangline.stage.handshake import join_address

log = logging.getLogger(__name__)

SETTLE_S = 0.005  # changes within this time are one step
HOUSEKEEPING_S = 5.0


class Runtime:
    """What a running node consists of; `notify` is called after every step."""

    def __init__(self, config: NodeConfig, command: Command, notify: Callable[[], None]) -> None:
        self._config = config
        self._command = command
        self._notify = notify
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sequence = 0  # of the last report
        self._published: NodeReport | None = None
        self._left = contextlib.AsyncExitStack()
        self.started = False

    # ---- opening and closing

    async def open(self) -> None:
        """Open the parts in the order of their dependence; `close` undoes what was done."""
        config, left = self._config, self._left
        identity = Identity.open(config.home)
        left.callback(identity.release)
        self.me = identity.id
        self._sequence = identity.first_sequence
        self.folding = Folding(self.me)
        self._store = ModelStore(config.home, config.models)
        await asyncio.to_thread(self._store.scan)
        given = config.hardware
        hardware = (
            await asyncio.to_thread(measured_hardware, config.home, config.threads, config.backend)
            if given is None
            else given
        )
        self._machine = MachineWatch(
            config.home,
            hardware,
            self._changed,
            threads=config.threads,
            backend=config.backend,
            fixed=given is not None,
        )
        left.push_async_callback(self._machine.close)
        self._advertise = advertised_address(config)
        echo = EchoResponder(config.listen, self._advertise)
        left.push_async_callback(asyncio.to_thread, echo.close)
        self._echo_address = echo.address
        self.membership = Membership(
            config,
            self.me,
            Handlers(self._on_token, self._on_report, self._on_record, self._on_call),
        )
        left.push_async_callback(self.membership.close)
        self._links = LinkWatch(config.home, self._changed, echo.turn)
        left.push_async_callback(self._links.close)
        self._supervisor = Supervisor(self._changed, self._command)
        left.push_async_callback(self._supervisor.close)
        self.entry = Entry()
        left.push_async_callback(self.entry.close)
        self._residuals = Residuals(config.home)
        self._steward = Steward(self.me, self._residuals, self._write_record)
        self.models = Models(
            self.me,
            self.folding,
            self._store,
            self.membership,
            self._steward,
            self._residuals,
            self._publish,
        )
        self.folding.apply_report(self._own_report())
        self.view = self.folding.view()
        await self.membership.open()
        self.control_endpoint = self.membership.control_endpoint
        self._tasks = [
            asyncio.create_task(self._run(), name="reconcile"),
            asyncio.create_task(self._keep_house(), name="housekeeping"),
            asyncio.create_task(watch_peers(config.peers), name="peers"),
        ]
        self.started = True
        self._changed()

    async def close(self) -> None:
        """Say goodbye, then close what was opened, the last first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.started:
            self._sequence += 1
            self.membership.publish_report(
                msgspec.structs.replace(self._own_report(), leaving=True)
            )
        await self._left.aclose()
        self._notify()

    # ---- what arrives

    def _changed(self) -> None:
        self._wake.set()

    def _news(self) -> None:
        """What others said is seen at once; what follows from it is the next step's."""
        self.view = self.folding.view()
        self._changed()

    def _on_token(self, node: NodeId, token: str, present: bool) -> None:
        if self.folding.apply_token(node, token, present, time.monotonic()):
            log.info("node %s %s", node, "joined" if present else "is gone")
            self._news()

    def _on_report(self, report: NodeReport) -> None:
        facts = report.facts
        if facts.id == self.me:
            if facts.pid != os.getpid():
                log.error(
                    "process %d on %s also uses the node id %s", facts.pid, facts.name, facts.id
                )
            return
        if self.folding.apply_report(report):
            self._news()

    def _on_record(self, record: ModelRecord) -> None:
        if self.folding.apply_record(record):
            self._news()

    async def _on_call(self, call: Call) -> msgspec.Struct:
        match call:
            case GetSnapshot():
                return Snapshot(self._published or self._own_report(), self.folding.records())
            case DescribeModel(model=model):
                return self.models.cost(model)
            case UnloadModel(model=model):
                self.models.stop(model)
                return Done()

    def _write_record(self, record: ModelRecord) -> None:
        if self.folding.apply_record(record):
            self.membership.publish_record(record)
            self.view = self.folding.view()
            self._changed()

    # ---- the loop

    async def _run(self) -> None:
        again_s: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):  # the pause is over: look again
                async with asyncio.timeout(again_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                again_s = self._step()
            except Exception:  # a cluster must not stop for one wrong step
                log.exception("a step failed; the next one tries again")
                again_s = 1.0
            await asyncio.sleep(SETTLE_S)

    def _step(self) -> float | None:
        """Compare wanted with found once, and act; seconds until a look is due anyway."""
        self._publish()
        for action in reconcile_workers(self.view, self._supervisor.own_workers()):
            match action:
                case StartWorker(record=record, index=index):
                    self._supervisor.start(self._load_message(record, index))
                case ConnectWorker(id=worker, next_address=address):
                    self._supervisor.connect(worker, address)
                case StopWorker(id=worker, why=why):
                    self._supervisor.stop(worker, why)
        again_s = self._steward.step(self.view)
        self.entry.retain(self.models.why_lost)
        self._links.follow(self.view)
        self._machine.follow(self.view)
        self._residuals.follow(self.view)
        self._notify()
        return again_s

    def _publish(self) -> None:
        """Tell the cluster of this node, if anything about it is new."""
        report = self._own_report()
        if report != self._published:
            self._sequence += 1
            report = _with_sequence(report, self._sequence)
            self.folding.apply_report(report)
            self._published = report
            self.membership.publish_report(report)
        self.view = self.folding.view()

    async def _keep_house(self) -> None:
        """Forget the long dead now and then, and see which models were copied here or removed."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            found = await asyncio.to_thread(self._store.scan)
            if self.folding.forget_dead(time.monotonic()) or found:
                self._changed()

    def _own_report(self) -> NodeReport:
        config = self._config
        facts = NodeFacts(
            id=self.me,
            name=config.name,
            api=f"http://{join_address(self._advertise, config.port)}",
            pid=os.getpid(),
            hardware=self._machine.hardware,
            version=__version__,
            sequence=self._sequence,
            links=self._links.links(),
            workers=self._supervisor.facts(),
            stored=self._store.listing(),
        )
        return NodeReport(
            facts,
            self._supervisor.details(),
            self._echo_address,
            hosts=reached_hosts(config.listen, facts.hardware.interfaces),
        )

    def _load_message(self, record: ModelRecord, index: int) -> Load:
        stage = record.plan.stages[index]
        stored = self._store.get(record.id)
        return Load(
            model=record.id,
            path=stored.model.path if stored is not None else "",
            epoch=record.epoch,
            role=stage.role,
            span=stage.span,
            index=index,
            n_stages=len(record.plan.stages),
            secret=record.secret,
            listen=self._config.listen,
            advertise=self._advertise,
            context=record.plan.context,
            lanes=record.plan.lanes,
            threads=self._config.threads or self._machine.hardware.cores,
            backend=record.request.backend or self._config.backend,
        )


def _with_sequence(report: NodeReport, sequence: int) -> NodeReport:
    facts = msgspec.structs.replace(report.facts, sequence=sequence)
    return msgspec.structs.replace(report, facts=facts)
