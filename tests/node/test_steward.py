"""What a steward writes besides what `reconcile_model` decides."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gangline.facts import Link
from gangline.node.records import ModelRecord, NodeReport
from gangline.node.residuals import Residuals
from gangline.node.steward import Steward
from tests.node.samples import A, B, record_of, report_with, view_of


def test_a_prediction_waits_for_the_links_in_use(tmp_path: Path) -> None:
    """A load right after two nodes met promises nothing; a moment later it does."""
    written: list[ModelRecord] = []
    steward = Steward(A, Residuals(tmp_path), written.append)
    record = record_of(A, B, state="ready", attempts=0)
    assert record.plan.prediction is None

    def look(record: ModelRecord, *links: Link) -> None:
        steward.step(view_of(A, record, head(record, *links), report_with(record, 1, "ready")))

    look(record)
    assert written == [], "nothing is guessed"
    look(record, Link(B, rtt_us=5000.0, gbps=1.0))
    (slow,) = written
    assert slow.plan.prediction is not None and slow.sequence == record.sequence + 1
    assert slow.plan.prediction.decode_tps < 200, "a round trip of 5 ms"
    assert msgspec.structs.replace(slow.plan, prediction=None) == record.plan
    look(slow, Link(B, rtt_us=50.0, gbps=10.0))
    assert written == [slow], "a promise that was made stays"


def head(record: ModelRecord, *links: Link) -> NodeReport:
    report = report_with(record, 0, "ready")
    hardware = msgspec.structs.replace(report.facts.hardware, read_bytes_per_s=50e9)
    facts = msgspec.structs.replace(report.facts, links=links, hardware=hardware)
    return msgspec.structs.replace(report, facts=facts)
