"""Who may take part in a plan, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gangline.errors import DoesNotFit, NotFound, UsageError
from gangline.facts import Gpu, Link, LoadRequest, NodeFacts, Span, WorkerFacts
from gangline.node.folding import View
from gangline.node.planning import (
    GUESSED,
    find_nodes,
    machine_of,
    machines_for,
    plan_model,
    predict_again,
    with_forecast,
)
from gangline.plan.advice import Advice
from gangline.plan.live import GIB
from gangline.plan.residual import Scale, scale_prediction
from gangline.plan.solve import Plan
from tests.node.samples import COST, MODEL, A, B, C, report_of, view_of


def plan(view: View, **request: Any) -> Plan:
    return plan_model(view, MODEL, "f", COST, LoadRequest("tiny", **request), A)


def test_nodes_are_left_out_with_their_reasons() -> None:
    (stored,) = report_of(A).facts.stored
    others = msgspec.structs.replace(stored, fingerprint="g")
    view = view_of(A, None, report_of(A), report_of(B, stored=()), report_of(C, stored=(others,)))
    made = plan(view, spread=True)
    assert [stage.node for stage in made.stages] == [A]
    assert {out.node: out.why for out in made.left_out} == {
        B: "does not store the model",
        C: "stores other files as `tiny`",
    }


def test_named_nodes_are_all_used_and_the_dead_are_not() -> None:
    view = view_of(A, None, report_of(A), report_of(B), report_of(C), dead=[C])
    assert [stage.node for stage in plan(view, nodes=("n-b", "name-n-a")).stages] == [A, B]
    assert [stage.node for stage in plan(view, nodes=("n-b",)).stages] == [B]
    assert [stage.node for stage in plan(view, nodes=("n-b", "n-c")).stages] == [B]
    assert len(plan(view).stages) == 1, "nobody is named: the fewest that fit"


def test_what_no_plan_can_give() -> None:
    view = view_of(A, None, report_of(A))
    for request in ({"context": 257}, {"context": 0}, {"lanes": 0}, {"nodes": ()}):
        with pytest.raises(UsageError):
            plan(view, **request)
    with pytest.raises(NotFound, match="n-x"):
        plan(view, nodes=("n-x",))
    with pytest.raises(NotFound, match="does not store"):
        plan(view_of(A, None, report_of(A, stored=())))


def test_what_was_not_measured_is_not_predicted() -> None:
    link = Link(B, rtt_us=100.0, gbps=10.0)
    unknown = view_of(A, None, report_of(A), report_of(B))
    known = view_of(A, None, report_of(A, links=(link,)), report_of(B))
    assert plan(unknown, spread=True).prediction is None
    assert plan(unknown).prediction is not None, "one node needs no link"
    made = plan(known, spread=True)
    assert made.prediction is not None
    assert predict_again(known, MODEL, COST, made) == made.prediction
    assert predict_again(unknown, MODEL, COST, made) is None
    assert predict_again(view_of(A, None, report_of(A)), MODEL, COST, made) is None
    assert GUESSED in forecast(unknown, plan(unknown, spread=True)).why
    assert GUESSED not in forecast(known, made).why


def test_a_corrected_forecast_compares_single_answers_alike() -> None:
    view = view_of(A, None, report_of(A), report_of(B))
    made = plan(view)
    assert made.prediction is not None
    slower = scale_prediction(made.prediction, Scale(0.5, 0.1))
    before = forecast(view, made)
    after = forecast(view, msgspec.structs.replace(made, prediction=slower))
    assert before.decode_tps and before.runner_up and after.runner_up
    assert after.decode_tps == pytest.approx(before.decode_tps / 2, rel=1e-3)
    assert after.runner_up.decode_tps == pytest.approx(before.runner_up.decode_tps / 2, rel=1e-3)
    assert after.runner_up.decode_tps <= after.decode_tps


def forecast(view: View, made: Plan) -> Advice:
    machines = machines_for(view, MODEL, "f", COST, LoadRequest("tiny"))
    found = with_forecast(made, view, COST, machines, MODEL, 64).forecast
    assert found is not None
    return found


def test_a_name_may_mean_several_nodes() -> None:
    view = view_of(A, None, report_of(A, name="pi"), report_of(B, name="pi"), report_of(C))
    assert find_nodes(view, ("pi",)) == {A, B}


def test_what_an_older_load_holds_counts_as_free() -> None:
    worker = WorkerFacts("w", 1, MODEL, 1, "head", Span(0, 6), "ready", weight_bytes=GIB)
    facts = report_of(A, workers=(worker,)).facts
    hardware = msgspec.structs.replace(facts.hardware, free_bytes=2 * GIB)
    facts = msgspec.structs.replace(facts, hardware=hardware)
    assert machine_of(facts, MODEL, "").free_bytes == 3 * GIB


def with_card(read_bytes_per_s: float | None = 8e11) -> NodeFacts:
    """A node with 64 GiB whose workers compute on a card of 24 GiB, 20 of them free."""
    worker = WorkerFacts(
        "w", 1, MODEL, 1, "head", Span(0, 6), "ready", weight_bytes=GIB, cache_bytes=GIB
    )
    facts = report_of(A, workers=(worker,)).facts
    hardware = msgspec.structs.replace(
        facts.hardware,
        memory_bytes=64 * GIB,
        free_bytes=50 * GIB,
        gpus=(Gpu("RTX 4090", 24 * GIB, False, 20 * GIB),),
        backend="torch",
        device="RTX 4090",
        read_bytes_per_s=read_bytes_per_s,
    )
    return msgspec.structs.replace(facts, hardware=hardware)


def test_a_node_with_a_card_gives_the_cards_memory() -> None:
    machine = machine_of(with_card(), MODEL, "")
    assert (machine.memory_bytes, machine.free_bytes) == (24 * GIB, 22 * GIB)
    assert machine.read_bytes_per_s == 8e11
    on_processor = machine_of(with_card(), MODEL, "", "cpu")
    assert (on_processor.memory_bytes, on_processor.free_bytes) == (64 * GIB, 51 * GIB)
    assert on_processor.read_bytes_per_s is None


def test_a_model_larger_than_the_card_is_not_given_to_it() -> None:
    """But is to the processor of the same machine, where the load says so."""
    large = msgspec.structs.replace(COST, layer_bytes=(6 * GIB,) * len(COST.layer_bytes))
    report = msgspec.structs.replace(report_of(A), facts=with_card())
    view = view_of(A, None, report)
    with pytest.raises(DoesNotFit, match=r"20\.80 GiB"):
        plan_model(view, MODEL, "f", large, LoadRequest("tiny"), A)
    made = plan_model(view, MODEL, "f", large, LoadRequest("tiny", backend="cpu"), A)
    assert [stage.node for stage in made.stages] == [A]
