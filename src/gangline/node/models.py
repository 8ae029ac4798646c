"""The models of a cluster, as one node answers for them: find, load, unload, reach, lose.

Every question is answered from the view; what has to happen then is written into the model's
record, which the steward and all nodes act upon.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from gangline.errors import (
    Conflict,
    GanglineError,
    NotFound,
    Unavailable,
    UsageError,
    WorkerLost,
)
from gangline.facts import LoadRequest, ModelFacts, ModelId, NodeId, check_backend
from gangline.node.entry import Door
from gangline.node.folding import Folding, View, model_facts
from gangline.node.membership import Membership
from gangline.node.planning import ForecastPlan, machines_for, plan_model, with_forecast
from gangline.node.records import RUNNING, DescribeModel, Done, ModelRecord, UnloadModel
from gangline.node.residuals import Residuals
from gangline.node.steward import Steward
from gangline.node.stored import ModelStore
from gangline.plan.shape import ModelCost


class Models:
    """What can be asked of models; `publish` tells the cluster what this node stores by now."""

    def __init__(
        self,
        me: NodeId,
        folding: Folding,
        store: ModelStore,
        membership: Membership,
        steward: Steward,
        residuals: Residuals,
        publish: Callable[[], None],
    ) -> None:
        self._me = me
        self._folding = folding
        self._store = store
        self._membership = membership
        self._steward = steward
        self._residuals = residuals
        self._publish = publish

    async def plan(self, request: LoadRequest, prompt: int | None = None) -> ForecastPlan:
        """What `load` would do, and what to expect of it behind `prompt` tokens (`None`: usual)."""
        check_backend(request.backend or "auto")
        model, fingerprint, cost = await self._find(request.model)
        view = self._view()
        plan = plan_model(view, model, fingerprint, cost, request, self._me)
        plan = self._residuals.correct(plan, fingerprint)
        machines = machines_for(view, model, fingerprint, cost, request)
        return with_forecast(plan, view, cost, machines, model, prompt)

    async def _find(self, name: str) -> tuple[ModelId, str, ModelCost]:
        """Id, fingerprint and cost of a model by its id or its path on this node."""
        if name.startswith("~") or os.sep in name or "/" in name:
            model = await asyncio.to_thread(self._store.add, Path(name))
        else:
            model = ModelId(name)
            await asyncio.to_thread(self._store.scan)
        self._publish()
        own = self._store.get(model)
        if own is not None and own.cost is not None:
            return model, own.model.fingerprint, own.cost
        unusable = own.model.reason if own is not None else ""
        for facts in self._view().live_facts():
            for stored in facts.stored:
                if stored.id == model and stored.supported and facts.id != self._me:
                    cost = await self._membership.call(facts.id, DescribeModel(model), ModelCost)
                    return model, stored.fingerprint, cost
        if unusable:
            raise UsageError(f"`{model}` cannot be run: {unusable}")
        known = sorted({s.id for f in self._view().live_facts() for s in f.stored if s.supported})
        raise NotFound(
            f"no node stores a model `{name}`",
            hint=f"stored: {', '.join(known)}" if known else "name the folder of a model",
        )

    async def load(self, request: LoadRequest) -> ModelFacts:
        """Become the steward of a model and begin to load it."""
        check_backend(request.backend or "auto")
        model, fingerprint, cost = await self._find(request.model)
        previous = self._folding.record(model)
        if previous is not None and not previous.gone and previous.state != "failed":
            leaving = previous.state == "unloading"
            raise Conflict(
                f"`{model}` is already {previous.state}",
                hint="try again in a moment"
                if leaving
                else f"first: gangline unload {shlex.quote(model)}",
            )
        record = self._steward.begin(self._view(), model, fingerprint, cost, request, previous)
        return model_facts(self._view(), record)

    async def unload(self, model: ModelId) -> None:
        """Have its steward stop a model; nothing to do where another has asked for that already."""
        record = self._loaded(model)
        if record.state == "unloading":
            return
        steward = record.steward
        if steward not in self._view().live:
            steward = min(self._view().live)
        if steward == self._me:
            self._steward.unload(record)
        else:
            await self._membership.call(steward, UnloadModel(model), Done)

    def ready(self, model: str) -> ModelRecord:
        """The record of a model that answers now; NotFound, Unavailable."""
        record = self._view().records.get(ModelId(model))
        if record is None:
            running = ", ".join(sorted(self._view().records)) or "none"
            raise NotFound(
                f"the model `{model}` is not loaded; loaded: {running}",
                hint=f"load it: gangline load {shlex.quote(model)}",
                param="model",
            )
        if record.state != "ready":
            reason = f": {record.error.message}" if record.error is not None else ""
            raise Unavailable(
                f"the model `{model}` is {record.state}{reason}", hint="try again in a moment"
            )
        return record

    def door(self, record: ModelRecord) -> Door:
        """Where the head of a ready model is reached."""
        head = self._view().stages(record)[0]
        if not head.alive or head.detail is None or not head.detail.front_address:
            raise WorkerLost(
                f"the head of `{record.id}` is not there", hint="send the request again"
            )
        return Door(
            record.id, record.epoch, record.load_key, head.detail.front_address, record.secret
        )

    def why_lost(self, door: Door) -> GanglineError | None:
        """Why requests to this head cannot end; None while they can."""
        record = self._view().records.get(door.model)
        hint = "send the request again"
        if record is None or record.state == "unloading":
            return WorkerLost(f"`{door.model}` was unloaded while it answered")
        if record.load_key != door.load_key:
            return WorkerLost(f"`{door.model}` was loaded anew while it answered", hint=hint)
        if record.state not in RUNNING:
            reason = record.error.message if record.error is not None else record.state
            return WorkerLost(f"`{door.model}` lost a part of itself: {reason}", hint=hint)
        lost = [seen.stage.node for seen in self._view().stages(record) if not seen.alive]
        if lost:
            names = ", ".join(self._view().name(node) for node in lost)
            return WorkerLost(f"`{door.model}` lost a part of itself: {names} is gone", hint=hint)
        return None

    def cost(self, model: ModelId) -> ModelCost:
        """What a model that this node stores costs; NotFound."""
        stored = self._store.get(model)
        if stored is None or stored.cost is None:
            raise NotFound(f"node {self._me} does not store `{model}`")
        return stored.cost

    def _loaded(self, model: ModelId) -> ModelRecord:
        record = self._view().records.get(model)
        if record is None:
            loaded = ", ".join(sorted(self._view().records)) or "none"
            raise NotFound(f"the model `{model}` is not loaded; loaded: {loaded}")
        return record

    def stop(self, model: ModelId) -> None:
        """Stop a model as its steward."""
        self._steward.unload(self._loaded(model))

    def _view(self) -> View:
        return self._folding.view()
