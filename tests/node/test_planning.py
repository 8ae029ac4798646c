"""Who may take part in a plan, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gangline.errors import NotFound, UsageError
from gangline.facts import LoadRequest, Span, WorkerFacts
from gangline.node.folding import View
from gangline.node.planning import find_nodes, machine_of, plan_model
from gangline.plan.solve import GIB, Plan
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


def test_a_name_may_mean_several_nodes() -> None:
    view = view_of(A, None, report_of(A, name="pi"), report_of(B, name="pi"), report_of(C))
    assert find_nodes(view, ("pi",)) == {A, B}


def test_what_an_older_load_holds_counts_as_free() -> None:
    worker = WorkerFacts("w", 1, MODEL, 1, "head", Span(0, 6), "ready", weight_bytes=GIB)
    facts = report_of(A, workers=(worker,)).facts
    hardware = msgspec.structs.replace(facts.hardware, free_bytes=2 * GIB)
    facts = msgspec.structs.replace(facts, hardware=hardware)
    assert machine_of(facts, MODEL, "").free_bytes == 3 * GIB
