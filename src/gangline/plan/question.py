"""What is asked about a fleet of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gangline.plan.engines import Engine
from gangline.plan.fleet import Fleet
from gangline.plan.forecast import Cluster, Wish
from gangline.plan.shape import ModelCost

ShapeAt = Callable[[float], ModelCost]  # the model at other bits per weight


class Question(msgspec.Struct, frozen=True):
    """What is asked about a fleet of the catalogue."""

    name: str
    shape: ShapeAt
    bits: float
    fleet: Fleet
    engine: Engine
    wish: Wish

    @property
    def model(self) -> ModelCost:
        return self.shape(self.bits)

    @property
    def cluster(self) -> Cluster:
        return self.fleet.cluster(self.engine, self.bits)
