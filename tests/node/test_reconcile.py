"""What to do next, for every state of a model and of its workers."""

from __future__ import annotations

import pytest

from gangline.errors import CheckpointError, WorkerLost
from gangline.node.reconcile import (
    BACKOFF_S,
    CAUSE_WITHIN_S,
    HEAL_WITHIN_S,
    START_WITHIN_S,
    STEADY_AFTER_S,
    ConnectWorker,
    Fail,
    Forget,
    MarkReady,
    OwnWorker,
    Recover,
    Replan,
    StartWorker,
    Steady,
    StopWorker,
    TakeOver,
    Wait,
    reconcile_model,
    reconcile_workers,
)
from gangline.node.records import ModelRecord
from tests.node.samples import MODEL, A, B, C, record_of, report_of, report_with, view_of

# ---- the steward's part


def test_a_model_is_ready_when_every_worker_is() -> None:
    record = record_of(A, B)
    head, stage = report_with(record, 0, "ready"), report_with(record, 1, "ready")
    half = view_of(A, record, head, report_with(record, 1, "loading"))
    assert isinstance(reconcile_model(record, half, 1.0), Wait)
    assert reconcile_model(record, view_of(A, record, head, stage), 1.0) == MarkReady()


@pytest.mark.parametrize("state", ["loading", "ready"])
def test_a_dead_node_is_recovered_from(state: str) -> None:
    record = record_of(A, B, state=state)
    view = view_of(
        A, record, report_with(record, 0, "ready"), report_with(record, 1, "ready"), dead=[B]
    )
    action = reconcile_model(record, view, 0.0)
    assert isinstance(action, Recover)
    assert action.error.message == "node name-n-b with layers 3..5 of tiny is gone"


def test_a_crashed_worker_is_recovered_from_and_a_broken_file_is_not() -> None:
    record = record_of(A, B, state="ready")
    head = report_with(record, 0, "ready")
    lost = report_with(record, 1, "failed", error=WorkerLost("killed").body())
    action = reconcile_model(record, view_of(A, record, head, lost), 0.0)
    assert isinstance(action, Recover)
    assert action.error.message == "name-n-b: killed"
    broken = report_with(record, 1, "failed", error=CheckpointError("cut off").body())
    action = reconcile_model(record, view_of(A, record, head, broken), 0.0)
    assert isinstance(action, Fail)
    assert action.error.code == CheckpointError.code


def test_the_first_cause_is_told_and_not_what_it_brought_about() -> None:
    record = record_of(A, B, C, state="ready")
    closed = WorkerLost("the previous stage closed its hop").body()
    head = report_with(record, 0, "failed", error=closed, knock_on=True)
    last = report_with(record, 2, "failed", error=closed, knock_on=True)
    healthy = report_with(record, 1, "ready")
    killed = report_with(record, 1, "failed", error=WorkerLost("killed").body())
    early = reconcile_model(record, view_of(A, record, head, healthy, last), 9.0, knocked_s=0.25)
    assert early == Wait("a hop was closed: who is lost?", CAUSE_WITHIN_S - 0.25)
    for report, dead, why in (
        (killed, [], "name-n-b: killed"),
        (healthy, [B], "node name-n-b with layers 2..3 of tiny is gone"),
    ):
        view = view_of(A, record, head, report, last, dead=dead)
        action = reconcile_model(record, view, 9.0, knocked_s=0.25)
        assert isinstance(action, Recover)
        assert action.error.message == why
    late = reconcile_model(record, view_of(A, record, head, healthy, last), 9.0)
    assert isinstance(late, Recover), "a hop may break between two that live"
    broken = report_with(record, 2, "failed", error=CheckpointError("cut off").body())
    final = reconcile_model(record, view_of(A, record, head, killed, broken), 9.0)
    assert isinstance(final, Fail), "another attempt would meet the broken file again"


def test_a_worker_that_vanished_is_lost_but_one_may_take_time_to_start() -> None:
    record = record_of(A, B)
    head, idle = report_with(record, 0, "ready"), report_of(B)
    waiting = reconcile_model(record, view_of(A, record, head, idle), 1.0)
    assert waiting == Wait("loading on n-b", START_WITHIN_S - 1.0)
    late = reconcile_model(record, view_of(A, record, head, idle), START_WITHIN_S)
    assert isinstance(late, Recover)
    running = record_of(A, B, state="ready")
    head = report_with(running, 0, "ready")
    restarted = reconcile_model(running, view_of(A, running, head, idle), 1.0)
    assert isinstance(restarted, Recover)


def test_recovering_waits_longer_each_time_and_ends() -> None:
    for attempts, backoff_s in enumerate(BACKOFF_S):
        record = record_of(A, state="recovering", attempts=attempts)
        view = view_of(A, record, report_of(A))
        assert reconcile_model(record, view, backoff_s) == Replan()
        if backoff_s:
            early = reconcile_model(record, view, backoff_s / 2)
            assert early == Wait("recovering", backoff_s / 2)
    error = WorkerLost("killed").body()
    record = record_of(A, state="recovering", attempts=len(BACKOFF_S), error=error)
    action = reconcile_model(record, view_of(A, record, report_of(A)), 0.0)
    assert isinstance(action, Fail)
    assert action.error.message == "gave up after 3 attempts; the last: killed"


def test_what_was_steady_may_fail_anew() -> None:
    record = record_of(A, state="ready")
    view = view_of(A, record, report_with(record, 0, "ready"))
    assert reconcile_model(record, view, 1.0) == Wait("ready", STEADY_AFTER_S - 1.0)
    assert reconcile_model(record, view, STEADY_AFTER_S) == Steady()
    settled = record_of(A, state="ready", attempts=0)
    view = view_of(A, settled, report_with(settled, 0, "ready"))
    assert reconcile_model(settled, view, 9e9) == Wait("ready")


def test_unloading_ends_with_the_last_worker() -> None:
    record = record_of(A, B, state="unloading")
    busy = view_of(A, record, report_of(A), report_with(record, 1, "stopping"))
    assert isinstance(reconcile_model(record, busy, 0.0), Wait)
    assert reconcile_model(record, view_of(A, record, report_of(A), report_of(B)), 0.0) == Forget()
    dead = view_of(A, record, report_of(A), report_with(record, 1, "ready"), dead=[B])
    assert reconcile_model(record, dead, 0.0) == Forget()


@pytest.mark.parametrize("state", ["loading", "ready", "recovering", "failed", "unloading"])
def test_only_the_steward_acts_and_the_smallest_id_inherits(state: str) -> None:
    record = record_of(B, C, state=state)
    reports = [report_of(node) for node in (A, B, C)]
    assert isinstance(reconcile_model(record, view_of(A, record, *reports), 0.0), Wait)
    orphaned = view_of(A, record, *reports, dead=[B])
    assert reconcile_model(record, orphaned, 0.0) == TakeOver()
    orphaned = view_of(C, record, *reports, dead=[B])
    assert reconcile_model(record, orphaned, 0.0) == Wait("n-a takes over")


@pytest.mark.parametrize("state", ["loading", "ready", "recovering"])
def test_who_lost_most_nodes_at_once_waits_for_them_to_come_back(state: str) -> None:
    record = record_of(A, B, C, state=state)
    reports = [report_with(record, i, "ready") for i in range(3)]
    asleep = view_of(A, record, *reports, dead=[B, C])
    assert isinstance(reconcile_model(record, asleep, 9.0, HEAL_WITHIN_S - 1.0), Wait)
    assert not isinstance(reconcile_model(record, asleep, 9.0, HEAL_WITHIN_S), Wait)
    orphaned = view_of(B, record, *reports, dead=[A, C])
    assert isinstance(reconcile_model(record, orphaned, 9.0, 0.0), Wait)
    one_died = view_of(A, record, *reports, dead=[C])
    assert not isinstance(reconcile_model(record, one_died, 9.0, 0.0), Wait)


def test_a_failed_model_stays_as_it_is() -> None:
    record = record_of(A, state="failed")
    assert reconcile_model(record, view_of(A, record, report_of(A)), 9e9) == Wait("failed")


# ---- every node's part


def own(record: ModelRecord, index: int, **changes: object) -> OwnWorker:
    fields: dict[str, object] = {"loaded": True, "connected": False, **changes}
    return OwnWorker(f"w-{index}", MODEL, record.load_key, index, **fields)


def test_a_node_starts_its_own_stages_only_and_once() -> None:
    record = record_of(A, B)
    view = view_of(B, record, report_of(A), report_of(B))
    assert reconcile_workers(view, []) == [StartWorker(record, 1)]
    assert reconcile_workers(view, [own(record, 1, loaded=False)]) == []


@pytest.mark.parametrize("state", ["ready", "recovering", "failed", "unloading"])
def test_nothing_starts_for_a_model_that_is_not_loading(state: str) -> None:
    record = record_of(A, B, state=state)
    assert reconcile_workers(view_of(A, record, report_of(A)), []) == []


def test_a_loaded_worker_meets_the_next_one_and_the_last_one_the_head() -> None:
    record = record_of(A, B)
    head, stage = report_with(record, 0, "loading", "a:1"), report_with(record, 1, "loading", "b:2")
    view = view_of(A, record, head, stage)
    assert reconcile_workers(view, [own(record, 0)]) == [ConnectWorker("w-0", "b:2")]
    view = view_of(B, record, head, stage)
    assert reconcile_workers(view, [own(record, 1)]) == [ConnectWorker("w-1", "a:1")]
    assert reconcile_workers(view, [own(record, 1, connected=True)]) == []
    assert reconcile_workers(view, [own(record, 1, loaded=False)]) == []
    lonely = view_of(B, record, report_with(record, 0, "loading"), stage)
    assert reconcile_workers(lonely, [own(record, 1)]) == []


def test_a_single_stage_has_no_neighbour() -> None:
    record = record_of(A)
    view = view_of(A, record, report_with(record, 0, "ready", "a:1"))
    assert reconcile_workers(view, [own(record, 0)]) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (None, "the model was unloaded"),
        (record_of(A, epoch=2, secret=b"t" * 32), "epoch 2 replaces it"),
        (record_of(A, state="recovering"), "the model is recovering"),
        (record_of(A, state="unloading"), "the model is unloading"),
    ],
)
def test_workers_that_nobody_wants_stop(now: ModelRecord | None, why: str) -> None:
    before = record_of(A)
    actions = reconcile_workers(view_of(A, now, report_of(A)), [own(before, 0)])
    assert StopWorker("w-0", why) in actions
    stopping = reconcile_workers(view_of(A, now, report_of(A)), [own(before, 0, stopping=True)])
    assert not any(isinstance(action, StopWorker) for action in stopping)
