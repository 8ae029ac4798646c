"""The cluster as one node sees it: reports, records and liveliness folded into one view.

Folding is pure: the newest report of a node and the newest record of a model win, whatever the
order in which they arrive. Knows no network; times are given by the caller.
"""

from __future__ import annotations

import msgspec

from gangline import __version__
from gangline.errors import ErrorBody
from gangline.facts import (
    ClusterState,
    Link,
    ModelFacts,
    ModelId,
    NodeFacts,
    NodeId,
    Stage,
    WorkerFacts,
)
from gangline.node.records import BUSY, ModelRecord, NodeReport, WorkerDetail

FORGET_DEAD_AFTER_S = 600.0  # how long a node that died is still shown


class StageView(msgspec.Struct, frozen=True):
    """A stage of a record and the worker that runs it, as far as it is known."""

    stage: Stage
    alive: bool  # whether the stage's node is
    worker: WorkerFacts | None = None
    detail: WorkerDetail | None = None


class View(msgspec.Struct, frozen=True):
    """The cluster at one moment, as `me` sees it."""

    me: NodeId
    live: frozenset[NodeId]
    reports: dict[NodeId, NodeReport]
    records: dict[ModelId, ModelRecord]

    @property
    def isolated(self) -> bool:
        """Whether most nodes vanished: they died together, or this one was cut off or asleep."""
        known = self.live | set(self.reports)
        return len(known) > 1 and 2 * len(self.live) <= len(known)

    @property
    def answering(self) -> bool:
        """Whether a model answers somebody, as far as its head has said so."""
        return any(
            worker.stats is not None and worker.stats.lanes_active > 0
            for facts in self.live_facts()
            for worker in facts.workers
        )

    @property
    def working(self) -> bool:
        """Whether a model answers or is being loaded: no time for measuring a machine."""
        return self.answering or any(record.state in BUSY for record in self.records.values())

    def stages(self, record: ModelRecord) -> list[StageView]:
        """The workers of exactly this load, in the order of the stages."""
        return [self._stage(record, i) for i in range(len(record.plan.stages))]

    def _stage(self, record: ModelRecord, index: int) -> StageView:
        stage = record.plan.stages[index]
        alive = stage.node in self.live
        report = self.reports.get(stage.node)
        for detail in report.details if report is not None else ():
            if (detail.load_key, detail.index) == (record.load_key, index):
                assert report is not None, "it has details"
                worker = next((w for w in report.facts.workers if w.id == detail.id), None)
                return StageView(stage, alive, worker, detail)
        return StageView(stage, alive)

    def live_facts(self) -> list[NodeFacts]:
        """Facts of the live nodes, ordered by id."""
        return [self.reports[node].facts for node in sorted(self.live) if node in self.reports]

    def link(self, start: NodeId, end: NodeId) -> Link | None:
        """What `start` says of its way to `end`."""
        report = self.reports.get(start)
        links = report.facts.links if report is not None else ()
        return next((link for link in links if link.to == end), None)

    def name(self, node: NodeId) -> str:
        """A node as a user knows it."""
        report = self.reports.get(node)
        return report.facts.name if report is not None else node


class Folding:
    """What has arrived so far."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._tokens: dict[NodeId, set[str]] = {}
        self._reports: dict[NodeId, NodeReport] = {}
        self._records: dict[ModelId, ModelRecord] = {}
        self._died_s: dict[NodeId, float] = {}

    def apply_report(self, report: NodeReport) -> bool:
        """Fold a report; whether it was news."""
        node = report.facts.id
        known = self._reports.get(node)
        if known is not None and known.facts.sequence >= report.facts.sequence:
            return False
        self._reports[node] = report
        return True

    def apply_record(self, record: ModelRecord) -> bool:
        """Fold a record; whether it was news."""
        known = self._records.get(record.id)
        if known is not None and known.version >= record.version:
            return False
        self._records[record.id] = record
        return True

    def apply_token(self, node: NodeId, token: str, present: bool, now_s: float) -> bool:
        """Fold a liveliness token, one per session of a node; whether the node came or went."""
        tokens = self._tokens.setdefault(node, set())
        was_alive = bool(tokens)
        (tokens.add if present else tokens.discard)(token)
        if tokens:
            self._died_s.pop(node, None)
        elif was_alive:
            self._died_s[node] = now_s
        return bool(tokens) != was_alive

    def forget_dead(self, now_s: float) -> bool:
        """Drop nodes that have been dead for long; whether there were any."""
        old = [node for node, s in self._died_s.items() if now_s - s >= FORGET_DEAD_AFTER_S]
        for node in old:
            del self._died_s[node]
            self._tokens.pop(node, None)
            self._reports.pop(node, None)
        return bool(old)

    def record(self, model: ModelId) -> ModelRecord | None:
        """The newest record of a model, also of one that is gone."""
        return self._records.get(model)

    def records(self) -> tuple[ModelRecord, ...]:
        return tuple(self._records.values())

    def is_alive(self, node: NodeId) -> bool:
        report = self._reports.get(node)
        if report is not None and report.leaving:
            return False
        return node == self._me or bool(self._tokens.get(node))

    def view(self) -> View:
        """The cluster now. Nodes that said goodbye are not in it."""
        present = {node: report for node, report in self._reports.items() if not report.leaving}
        live = frozenset({self._me, *(node for node in self._tokens if self.is_alive(node))})
        return View(
            self._me, live, present, {r.id: r for r in self._records.values() if not r.gone}
        )


def cluster_state(view: View, cluster: str) -> ClusterState:
    """The view as it is shown to users."""
    nodes = tuple(
        msgspec.structs.replace(view.reports[node].facts, alive=node in view.live)
        for node in sorted(view.reports)
    )
    models = tuple(model_facts(view, view.records[model]) for model in sorted(view.records))
    return ClusterState(cluster, view.me, nodes, models, __version__)


def model_facts(view: View, record: ModelRecord) -> ModelFacts:
    """A record and what its workers say, as it is shown to users."""
    stages = view.stages(record)
    n_layers = record.cost.n_layers
    loaded = sum(s.worker.progress * len(s.stage.span) for s in stages if s.worker is not None)
    head = stages[0].worker if stages else None
    return ModelFacts(
        id=record.id,
        state=record.state,
        epoch=record.epoch,
        steward=record.steward,
        stages=record.plan.stages,
        left_out=record.plan.left_out,
        progress=1.0 if record.state == "ready" else round(loaded / max(1, n_layers), 3),
        reason=_reason(record.error),
        context=record.plan.context,
        lanes=record.plan.lanes,
        n_layers=n_layers,
        stats=head.stats if head is not None else None,
        created=record.created,
        prediction=record.plan.prediction,
    )


def _reason(error: ErrorBody | None) -> str:
    if error is None:
        return ""
    hint = error.hint[:1].upper() + error.hint[1:]
    return f"{error.message}. {hint}" if hint else error.message
