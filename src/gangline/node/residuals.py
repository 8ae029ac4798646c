"""What this node has learnt from predictions: kept in `home/residuals.json`, used by the next plan.

A ready model's measured pace is compared with what its plan promised each time that an answer has
ended. Every node does so for itself, since any of them may be asked to plan next.
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import msgspec

from gangline.facts import NodeId
from gangline.kept import read_kept, write_kept
from gangline.node.folding import View
from gangline.node.records import ModelRecord
from gangline.plan.residual import (
    Residual,
    find_scale,
    note_measurement,
    scale_prediction,
)
from gangline.plan.solve import Plan

log = logging.getLogger(__name__)

FILE_NAME = "residuals.json"


class _Kept(msgspec.Struct, frozen=True):
    residuals: tuple[Residual, ...] = ()


class Residuals:
    """The residuals that this node knows."""

    def __init__(self, home: Path) -> None:
        self._file = home / FILE_NAME
        self.known = (read_kept(self._file, _Kept) or _Kept()).residuals
        self._noted: dict[str, int] = {}  # by load: the steps that were in the last note

    def correct(self, plan: Plan, fingerprint: str) -> Plan:
        """The plan with its prediction scaled by what was measured before."""
        if plan.prediction is None:
            return plan
        scale = find_scale(self.known, fingerprint, machines_of(plan))
        return msgspec.structs.replace(plan, prediction=scale_prediction(plan.prediction, scale))

    def follow(self, view: View) -> None:
        """Note what was measured since the last answer ended."""
        for record in view.records.values():
            if record.state == "ready":
                self._follow_model(view, record)
        loads = {record.load_key for record in view.records.values()}
        self._noted = {key: n for key, n in self._noted.items() if key in loads}

    def _follow_model(self, view: View, record: ModelRecord) -> None:
        prediction = record.plan.prediction
        head = view.stages(record)[0].worker
        stats = head.stats if head is not None else None
        if prediction is None or stats is None or stats.decode_tps is None or stats.lanes_active:
            return
        if stats.decode_steps <= self._noted.get(record.load_key, 0):
            return
        self._noted[record.load_key] = stats.decode_steps
        self.known = note_measurement(
            self.known,
            record.fingerprint,
            machines_of(record.plan),
            prediction,
            stats.decode_tps,
            datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        log.info(
            "%s decodes %.1f tokens/s, %.1f were predicted",
            record.id, stats.decode_tps, prediction.decode_tps,
        )  # fmt: skip
        write_kept(self._file, _Kept(self.known))


def machines_of(plan: Plan) -> tuple[NodeId, ...]:
    """The nodes of a plan in the order of its stages."""
    return tuple(stage.node for stage in plan.stages)
