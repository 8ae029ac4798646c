"""Facts add up to the same cluster in whatever order they arrive."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.errors import NotFound
from gangline.facts import NodeId
from gangline.node.folding import FORGET_DEAD_AFTER_S, Folding, cluster_state, model_facts
from gangline.node.records import ModelRecord, NodeReport
from tests.node.samples import A, B, C, record_of, report_of, report_with, view_of

reports = st.builds(
    lambda node, sequence: report_of(NodeId(node), sequence, pid=sequence),
    st.sampled_from(["n-a", "n-b", "n-c"]),
    st.integers(0, 5),
)
records = st.builds(
    lambda epoch, sequence, steward, secret, gone: record_of(
        A, B, epoch=epoch, sequence=sequence, steward=steward, secret=secret * 32, gone=gone
    ),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from([A, B]),
    st.sampled_from([b"s", b"t"]),
    st.just(False),
)


def fold(messages: list[NodeReport | ModelRecord]) -> Folding:
    folding = Folding(A)
    for message in messages:
        if isinstance(message, NodeReport):
            folding.apply_report(message)
        else:
            folding.apply_record(message)
    return folding


@settings(max_examples=200)
@given(st.lists(st.one_of(reports, records), max_size=12), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matters(
    messages: list[NodeReport | ModelRecord], shuffler: random.Random
) -> None:
    shuffled = messages + messages[: len(messages) // 2]
    shuffler.shuffle(shuffled)
    assert fold(messages).view() == fold(shuffled).view()


def test_the_newest_report_wins() -> None:
    folding = Folding(A)
    assert folding.apply_report(report_of(B, 5, pid=55))
    assert not folding.apply_report(report_of(B, 4, pid=44))
    assert not folding.apply_report(report_of(B, 5, pid=66))
    assert folding.view().reports[B].facts.pid == 55


def test_a_greater_epoch_beats_a_greater_sequence() -> None:
    folding = Folding(A)
    folding.apply_record(record_of(A, epoch=2, sequence=0))
    assert not folding.apply_record(record_of(A, epoch=1, sequence=9))
    assert folding.apply_record(record_of(A, epoch=2, sequence=1))


def test_an_unloaded_model_does_not_come_back() -> None:
    folding = Folding(A)
    folding.apply_record(record_of(A, sequence=3, gone=True))
    assert not folding.apply_record(record_of(A, sequence=2))
    assert folding.view().records == {}


def test_a_node_lives_as_long_as_one_of_its_sessions() -> None:
    folding = Folding(A)
    folding.apply_report(report_of(B))
    assert folding.apply_token(B, "first", True, 0.0)
    assert not folding.apply_token(B, "second", True, 1.0), "it was alive before"
    assert not folding.apply_token(B, "first", False, 2.0), "a late goodbye of the old session"
    assert folding.is_alive(B)
    assert folding.apply_token(B, "second", False, 3.0)
    assert not folding.is_alive(B)
    shown = {facts.id: facts.alive for facts in cluster_state(folding.view(), "c").nodes}
    assert shown == {B: False}, "the dead are shown"


def test_the_dead_are_forgotten_at_last_and_the_leaving_at_once() -> None:
    folding = Folding(A)
    for node in (B, C):
        folding.apply_report(report_of(node))
        folding.apply_token(node, "t", True, 0.0)
    folding.apply_token(B, "t", False, 10.0)
    assert not folding.forget_dead(10.0 + FORGET_DEAD_AFTER_S - 1)
    assert folding.forget_dead(10.0 + FORGET_DEAD_AFTER_S)
    assert set(folding.view().reports) == {C}
    folding.apply_report(report_of(C, 2, leaving=True))
    assert folding.view().reports == {}
    assert folding.view().live == {A}


def test_the_node_itself_is_alive_without_a_token() -> None:
    assert Folding(A).is_alive(A)


def test_progress_is_weighed_by_layers() -> None:
    record = record_of(A, B, C)
    view = view_of(A, record, report_with(record, 0, "ready"), report_with(record, 1, "loading"))
    state = cluster_state(view, "c")
    assert state.models[0].progress == 0.5
    assert state.models[0].stages == record.plan.stages


def test_a_worker_of_another_load_is_not_ours() -> None:
    record = record_of(A, B)
    older = record_of(A, B, secret=b"o" * 32)
    view = view_of(A, record, report_with(older, 0, "ready"))
    assert view.stages(record)[0].worker is None


def test_a_reason_is_two_sentences() -> None:
    error = NotFound("tokenizer.json does not exist", hint="download the model again").body()
    record = record_of(A, state="failed", error=error)
    facts = model_facts(view_of(A, record), record)
    assert facts.reason == "tokenizer.json does not exist. Download the model again"
