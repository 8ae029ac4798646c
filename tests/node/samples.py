"""Records, reports and views for pure tests."""

from __future__ import annotations

from typing import Any

import msgspec

from gangline.errors import ErrorBody
from gangline.facts import (
    LoadRequest,
    ModelId,
    NodeFacts,
    NodeId,
    Span,
    Stage,
    StoredModel,
    WorkerFacts,
    WorkerState,
)
from gangline.node.folding import View
from gangline.node.records import ModelRecord, NodeReport, WorkerDetail
from gangline.plan.shape import ModelCost
from gangline.plan.solve import Plan
from tests.node.cluster import HARDWARE

MODEL = ModelId("tiny")
COST = ModelCost((1000,) * 6, 500, 500, 64, 32, 256)
A, B, C = NodeId("n-a"), NodeId("n-b"), NodeId("n-c")


def plan_over(*nodes: NodeId) -> Plan:
    size = COST.n_layers // len(nodes)
    spans = [Span(i * size, (i + 1) * size) for i in range(len(nodes))]
    spans[-1] = Span(spans[-1].start, COST.n_layers)
    return Plan(
        tuple(
            Stage(node, "stage" if i else "head", span)
            for i, (node, span) in enumerate(zip(nodes, spans, strict=True))
        ),
        (),
        256,
        4,
    )


def record_of(*nodes: NodeId, **changes: Any) -> ModelRecord:
    record = ModelRecord(
        id=MODEL,
        epoch=1,
        sequence=0,
        steward=nodes[0],
        state="loading",
        request=LoadRequest("tiny", spread=True),
        fingerprint="f",
        cost=COST,
        plan=plan_over(*nodes),
        secret=b"s" * 32,
        created=1,
        attempts=1,
    )
    return msgspec.structs.replace(record, **changes)


def report_of(node: NodeId, sequence: int = 1, **changes: Any) -> NodeReport:
    """`changes` may be fields of the facts or of the report."""
    stored = StoredModel(MODEL, "/models/tiny", "f", 7000, "llama", 6)
    facts = NodeFacts(
        node, f"name-{node}", "http://x:1", 1, HARDWARE, sequence=sequence, stored=(stored,)
    )
    own = {
        key: changes.pop(key) for key in ("details", "echo_address", "leaving") if key in changes
    }
    return NodeReport(msgspec.structs.replace(facts, **changes), **own)


def report_with(
    record: ModelRecord,
    index: int,
    state: WorkerState,
    hop: str = "",
    error: ErrorBody | None = None,
    knock_on: bool = False,
) -> NodeReport:
    """The report of a stage's node whose worker for `record` is in this state."""
    stage = record.plan.stages[index]
    worker = WorkerFacts(
        f"w-{index}", 100 + index, record.id, record.epoch, stage.role, stage.span, state,
        progress=1.0 if state == "ready" else 0.5, reason=error.message if error else "",
    )  # fmt: skip
    detail = WorkerDetail(f"w-{index}", record.load_key, index, hop, error=error, knock_on=knock_on)
    return report_of(stage.node, workers=(worker,), details=(detail,))


def view_of(me: NodeId, record: ModelRecord | None, *reports: NodeReport, dead: Any = ()) -> View:
    by_node = {report.facts.id: report for report in reports}
    live = frozenset({me, *by_node} - set(dead))
    return View(me, live, by_node, {record.id: record} if record is not None else {})
