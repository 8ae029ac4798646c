"""What to do next: two pure functions of the view, called after every change.

`reconcile_model` is the steward's part: is everybody there, is the model ready, does it need a
new plan? `reconcile_workers` is every node's part: which workers of its own shall start, meet
their neighbour, or stop? Both are level-triggered: they compare what is wanted with what is, so a
lost message or a new steward needs no special case. No clock, socket or random number here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from gangline.errors import (
    CheckpointError,
    DoesNotFit,
    ErrorBody,
    NotFound,
    UnsupportedParameter,
    UsageError,
    WorkerLost,
)
from gangline.facts import ModelId
from gangline.node.folding import StageView, View
from gangline.node.records import RUNNING, ModelRecord
from gangline.node.ways import by_best_way

HEAL_WITHIN_S = 3.0  # who lost most nodes at once may have been asleep: let links come back
START_WITHIN_S = 20.0  # a live node that has not even started its worker by then has lost it
CAUSE_WITHIN_S = 1.0  # a ring dies together: the first one's node may be the last to say why
BACKOFF_S = (0.0, 1.0, 4.0)  # before each new plan; as many attempts as there are entries
STEADY_AFTER_S = 30.0  # ready for so long, the count of attempts begins anew
_FINAL = frozenset(  # errors that another attempt would meet again
    kind.code for kind in (CheckpointError, DoesNotFit, NotFound, UsageError, UnsupportedParameter)
)


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do now, and why; look again after `again_s` even if nothing changes."""

    reason: str
    again_s: float | None = None


class MarkReady(msgspec.Struct, frozen=True):
    """Every worker has met its neighbours."""


class Recover(msgspec.Struct, frozen=True):
    """A worker or node is lost: stop the others, then plan anew."""

    error: ErrorBody


class Replan(msgspec.Struct, frozen=True):
    """Load on the nodes that live now, with the next epoch."""


class Fail(msgspec.Struct, frozen=True):
    """Give up; the record stays, so that the reason can be read."""

    error: ErrorBody


class TakeOver(msgspec.Struct, frozen=True):
    """The steward is dead and this node is next."""


class Forget(msgspec.Struct, frozen=True):
    """The unloaded model's workers have ended."""


class Steady(msgspec.Struct, frozen=True):
    """It has been ready for long: earlier failures no longer count."""


ModelAction = MarkReady | Recover | Replan | Fail | TakeOver | Forget | Steady | Wait


def reconcile_model(
    record: ModelRecord,
    view: View,
    since_s: float,
    isolated_s: float = math.inf,
    knocked_s: float = math.inf,
) -> ModelAction:
    """The steward's next move.

    `since_s` is how long the record has been in this version, `isolated_s` how long the view has
    been isolated, `knocked_s` how long it `has_knock_on`. A node that wakes from sleep must not
    plan alone what others planned meanwhile.
    """
    needed = {record.steward, *(stage.node for stage in record.plan.stages)}
    if view.isolated and isolated_s < HEAL_WITHIN_S and not needed <= view.live:
        return Wait("most nodes vanished at once", HEAL_WITHIN_S - isolated_s)
    if record.steward not in view.live:
        heir = min(view.live)
        return TakeOver() if heir == view.me else Wait(f"{heir} takes over")
    if record.steward != view.me:
        return Wait(f"{record.steward} is the steward")
    if record.state in RUNNING:
        return _running(record, view, since_s, knocked_s)
    return _BY_STATE[record.state](record, view, since_s)


def has_knock_on(record: ModelRecord, view: View) -> bool:
    """Whether a worker ended since another one did, as it says."""
    return any(_is_knock_on(stage) for stage in view.stages(record))


def _is_knock_on(seen: StageView) -> bool:
    return seen.alive and seen.detail is not None and seen.detail.knock_on


def _running(record: ModelRecord, view: View, since_s: float, knocked_s: float) -> ModelAction:
    stages = view.stages(record)
    losses = [(stage, _loss(record, stage, view, since_s)) for stage in stages]
    causes = [error for stage, error in losses if error is not None and not _is_knock_on(stage)]
    errors = causes or [error for _, error in losses if error is not None]
    if errors and not causes and knocked_s < CAUSE_WITHIN_S:
        return Wait("a hop was closed: who is lost?", CAUSE_WITHIN_S - knocked_s)
    if errors:
        error = next((one for one in errors if one.code in _FINAL), errors[0])
        return Fail(error) if error.code in _FINAL else Recover(error)
    if record.state == "ready":
        if record.attempts == 0:
            return Wait("ready")
        left_s = STEADY_AFTER_S - since_s
        return Steady() if left_s <= 0 else Wait("ready", left_s)
    waiting = [s.stage.node for s in stages if s.worker is None or s.worker.state != "ready"]
    if not waiting:
        return MarkReady()
    starting = any(s.worker is None for s in stages)
    return Wait(
        f"loading on {', '.join(waiting)}",
        max(0.0, START_WITHIN_S - since_s) if starting else None,
    )


def _loss(record: ModelRecord, seen: StageView, view: View, since_s: float) -> ErrorBody | None:
    """Why this stage is lost; None while it is not."""
    name = view.name(seen.stage.node)
    layers = f"layers {seen.stage.span.start}..{seen.stage.span.end - 1} of {record.id}"
    if not seen.alive:
        return WorkerLost(f"node {name} with {layers} is gone").body()
    if seen.worker is None:
        if record.state == "ready" or since_s >= START_WITHIN_S:
            return WorkerLost(f"node {name} no longer runs {layers}").body()
        return None
    if seen.worker.state == "failed":
        error = seen.detail.error if seen.detail is not None else None
        reason = f"{name}: {seen.worker.reason}"
        if error is None:
            return WorkerLost(reason).body()
        return msgspec.structs.replace(error, message=reason)
    return None


def _recovering(record: ModelRecord, view: View, since_s: float) -> ModelAction:
    if record.attempts >= len(BACKOFF_S):
        last = record.error or WorkerLost("the reason is not known").body()
        message = f"gave up after {record.attempts} attempts; the last: {last.message}"
        return Fail(msgspec.structs.replace(last, message=message))
    left_s = BACKOFF_S[record.attempts] - since_s
    return Replan() if left_s <= 0 else Wait("recovering", left_s)


def _unloading(record: ModelRecord, view: View, since_s: float) -> ModelAction:
    busy = [f.id for f in view.live_facts() if any(w.model == record.id for w in f.workers)]
    return Wait(f"{', '.join(busy)} unload") if busy else Forget()


def _failed(record: ModelRecord, view: View, since_s: float) -> ModelAction:
    return Wait("failed")


_BY_STATE = {
    "recovering": _recovering,
    "failed": _failed,
    "unloading": _unloading,
}


class OwnWorker(msgspec.Struct, frozen=True):
    """A worker of this node, as its supervisor knows it."""

    id: str
    model: ModelId
    load_key: str
    index: int
    loaded: bool  # weights in memory, ports open
    connected: bool  # it was told its neighbour
    stopping: bool = False


class StartWorker(msgspec.Struct, frozen=True):
    record: ModelRecord
    index: int


class ConnectWorker(msgspec.Struct, frozen=True):
    id: str
    next_address: str


class StopWorker(msgspec.Struct, frozen=True):
    id: str
    why: str


WorkerAction = StartWorker | ConnectWorker | StopWorker


def reconcile_workers(view: View, workers: Iterable[OwnWorker]) -> list[WorkerAction]:
    """What this node has to do with its own workers."""
    actions: list[WorkerAction] = []
    mine = {(worker.load_key, worker.index): worker for worker in workers}
    wanted = {
        record.load_key: record for record in view.records.values() if record.state in RUNNING
    }
    for (key, _), worker in mine.items():
        if key not in wanted and not worker.stopping:
            actions.append(StopWorker(worker.id, _why_stop(view, worker)))
    for key, record in wanted.items():
        stages = view.stages(record)
        for index, seen in enumerate(stages):
            if seen.stage.node != view.me:
                continue
            own = mine.get((key, index))
            following = stages[(index + 1) % len(stages)]
            if own is None:
                if record.state == "loading":
                    actions.append(StartWorker(record, index))
            elif len(stages) > 1 and own.loaded and not (own.connected or own.stopping):
                address = following.detail.hop_address if following.detail is not None else ""
                if address:
                    link = view.link(view.me, following.stage.node)
                    actions.append(ConnectWorker(own.id, by_best_way(address, link)))
    return actions


def _why_stop(view: View, worker: OwnWorker) -> str:
    record = view.records.get(worker.model)
    if record is None:
        return "the model was unloaded"
    if record.state in RUNNING:
        return f"epoch {record.epoch} replaces it"
    return f"the model is {record.state}"
