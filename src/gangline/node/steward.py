"""Carries out what `reconcile_model` decides: writes the records of the models it is steward of.

Plans, draws secrets and counts time; starts nothing itself, since every node starts its own
workers when it sees the record.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from gangline.errors import GanglineError
from gangline.facts import LoadRequest, ModelId, NodeId
from gangline.node.folding import View
from gangline.node.planning import plan_model, predict_again
from gangline.node.reconcile import (
    Fail,
    Forget,
    MarkReady,
    ModelAction,
    Recover,
    Replan,
    Steady,
    TakeOver,
    Wait,
    has_knock_on,
    reconcile_model,
)
from gangline.node.records import ModelRecord
from gangline.node.residuals import Residuals
from gangline.plan.shape import ModelCost

log = logging.getLogger(__name__)

SECRET_BYTES = 32


class Steward:
    """The steward's part of one node; `write` folds and publishes a record."""

    def __init__(
        self, me: NodeId, residuals: Residuals, write: Callable[[ModelRecord], None]
    ) -> None:
        self._me = me
        self._residuals = residuals
        self._write = write
        self._spells: dict[object, tuple[object, float]] = {}

    def step(self, view: View) -> float | None:
        """Take every model one step further; seconds until one wants to be looked at again."""
        now_s = time.monotonic()
        again_s: list[float] = []
        isolated_s = self._spell_s("isolated", view.isolated, now_s)
        for record in view.records.values():
            since_s = self._spell_s(record.id, record.version, now_s)
            knocked_s = self._spell_s(("knock-on", record.id), has_knock_on(record, view), now_s)
            action = reconcile_model(record, view, since_s, isolated_s, knocked_s)
            if isinstance(action, Wait):
                if action.again_s is not None:
                    again_s.append(action.again_s)
                self._foresee(record, view)
                continue
            following = self._apply(record, action, view)
            log.info("%s, epoch %d: %s", record.id, record.epoch, _describe(action))
            self._write(following)
        return min(again_s, default=None)

    def begin(
        self,
        view: View,
        model: ModelId,
        fingerprint: str,
        cost: ModelCost,
        request: LoadRequest,
        previous: ModelRecord | None,
    ) -> ModelRecord:
        """The first record of a load; raises what the planner raises."""
        plan = plan_model(view, model, fingerprint, cost, request, self._me)
        plan = self._residuals.correct(plan, fingerprint)
        record = ModelRecord(
            id=model,
            epoch=previous.epoch + 1 if previous is not None else 1,
            sequence=0,
            steward=self._me,
            state="loading",
            request=request,
            fingerprint=fingerprint,
            cost=cost,
            plan=plan,
            secret=secrets.token_bytes(SECRET_BYTES),
            created=int(time.time()),
            attempts=1,
        )
        self._write(record)
        return record

    def unload(self, record: ModelRecord) -> None:
        """Stop a model's workers; it is forgotten when they are gone."""
        self._write(_following(record, state="unloading", error=None))

    def _spell_s(self, what: object, now: object, now_s: float) -> float:
        """For how long something has been as it is now."""
        known, since_s = self._spells.get(what, (None, now_s))
        if what not in self._spells or known != now:
            self._spells[what] = (now, now_s)
            return 0.0
        return now_s - since_s

    def _foresee(self, record: ModelRecord, view: View) -> None:
        """Predict what could not be predicted yet, as soon as the hops in use are measured."""
        plan = record.plan
        if record.steward != self._me or record.state != "ready" or plan.prediction is not None:
            return
        predicted = msgspec.structs.replace(
            plan, prediction=predict_again(view, record.id, record.cost, plan)
        )
        if predicted.prediction is not None:
            corrected = self._residuals.correct(predicted, record.fingerprint)
            self._write(_following(record, plan=corrected))

    def _apply(self, record: ModelRecord, action: ModelAction, view: View) -> ModelRecord:
        match action:
            case MarkReady():
                return _following(record, state="ready", error=None)
            case Steady():
                return _following(record, attempts=0)
            case Recover(error=error):
                return _following(record, state="recovering", error=error)
            case Fail(error=error):
                return _following(record, state="failed", error=error)
            case TakeOver():
                return _following(record, steward=self._me)
            case Forget():
                return _following(record, gone=True)
            case Replan():
                return self._replan(record, view)
            case Wait():
                raise AssertionError("waiting changes nothing")

    def _replan(self, record: ModelRecord, view: View) -> ModelRecord:
        """The next epoch, planned around a head on the old one's node if that lives."""
        old_head = record.plan.stages[0].node
        asked = old_head if old_head in view.live else self._me
        try:
            plan = plan_model(
                view, record.id, record.fingerprint, record.cost, record.request, asked
            )
        except GanglineError as error:  # the lost node may come back: that was one attempt
            return _following(record, attempts=record.attempts + 1, error=error.body())
        return _following(
            record,
            epoch=record.epoch + 1,
            sequence=0,
            state="loading",
            plan=self._residuals.correct(plan, record.fingerprint),
            secret=secrets.token_bytes(SECRET_BYTES),
            attempts=record.attempts + 1,
        )


def _following(record: ModelRecord, **changes: object) -> ModelRecord:
    return msgspec.structs.replace(record, **{"sequence": record.sequence + 1, **changes})


def _describe(action: ModelAction) -> str:
    what = type(action).__name__
    error = getattr(action, "error", None)
    return f"{what}: {error.message}" if error is not None else what
