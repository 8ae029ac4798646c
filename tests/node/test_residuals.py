"""A node notes what its predictions were wrong by, once per answer, and plans with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gangline.facts import Prediction, WorkerStats
from gangline.node.folding import View, model_facts
from gangline.node.residuals import Residuals
from tests.node.samples import A, B, plan_over, record_of, report_with, view_of

PREDICTED = msgspec.structs.replace(plan_over(A, B), prediction=Prediction(20.0, 0.3))


def view_with(stats: WorkerStats | None) -> View:
    record = record_of(A, B, state="ready", plan=PREDICTED)
    head = report_with(record, 0, "ready")
    (worker,) = head.facts.workers
    worker = msgspec.structs.replace(worker, stats=stats)
    facts = msgspec.structs.replace(head.facts, workers=(worker,))
    return view_of(
        A,
        record,
        msgspec.structs.replace(head, facts=facts),
        report_with(record, 1, "ready"),
    )


def test_an_answer_teaches_once_and_outlives_the_node(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    assert residuals.correct(PREDICTED, "f") == PREDICTED
    residuals.follow(view_with(None))
    residuals.follow(view_with(WorkerStats(decode_tps=16.0, decode_steps=64, lanes_active=1)))
    assert residuals.known == (), "it still answers"
    ended = view_with(WorkerStats(decode_tps=16.0, decode_steps=64))
    residuals.follow(ended)
    residuals.follow(ended)
    (known,) = residuals.known
    assert (known.fingerprint, known.machines, known.ratio) == ("f", (A, B), 0.8)

    again = Residuals(tmp_path)
    corrected = again.correct(PREDICTED, "f").prediction
    assert corrected is not None and corrected.decode_tps == pytest.approx(16)
    assert again.correct(plan_over(A), "f").prediction is None, "nothing was predicted"


def test_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "residuals.json").write_text('{"residuals": [{"ratio": ')
    assert Residuals(tmp_path).known == ()


def test_the_state_shows_the_prediction_beside_the_measurement() -> None:
    view = view_with(WorkerStats(decode_tps=16.0, decode_steps=64))
    (record,) = view.records.values()
    facts = model_facts(view, record)
    assert facts.prediction == Prediction(20.0, 0.3)
    assert facts.stats is not None and facts.stats.decode_tps == 16.0
