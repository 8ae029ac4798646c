"""The process on each machine, as `serve` and `cli` use it: see, load, unload, generate.

How a node does it is `runtime.py`. Everything runs in one asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from gangline.errors import (
    NotFound,
    Unavailable,
    error_from_body,
)
from gangline.facts import (
    ClusterState,
    LoadRequest,
    ModelFacts,
    ModelId,
    NodeId,
    StoredModel,
)
from gangline.head.requests import Accepted, Finished, Submit, Tokens
from gangline.node.config import NodeConfig, check_config
from gangline.node.folding import View, cluster_state, model_facts
from gangline.node.planning import ForecastPlan
from gangline.node.runtime import Runtime
from gangline.node.supervisor import Command, worker_command

log = logging.getLogger(__name__)

CHANGES_EVERY_S = 0.2


class Node:
    """One node of a cluster. `start` it once, `close` it once or more."""

    def __init__(self, config: NodeConfig, command: Command = worker_command) -> None:
        check_config(config)
        self.config = config
        self.id = NodeId("")  # known once started
        self.control_endpoint = ""
        self._command = command
        self._closing: asyncio.Task[None] | None = None
        self._runtime: Runtime | None = None
        self._watchers: set[asyncio.Event] = set()

    # ---- life

    async def start(self) -> None:
        """Join the cluster and publish what this node is."""
        assert self._runtime is None, "a node starts once"
        runtime = Runtime(self.config, self._command, self._notify)
        self._runtime = runtime
        try:
            await runtime.open()
        except BaseException:
            await self.close()
            raise
        self.id = runtime.me
        self.control_endpoint = runtime.control_endpoint

    async def close(self) -> None:
        """Stop the workers and leave; no process, port or file of this node is left."""
        if self._closing is None:
            if self._runtime is None:
                return
            self._closing = asyncio.create_task(self._runtime.close())
        await asyncio.shield(self._closing)

    # ---- what there is

    def state(self) -> ClusterState:
        """The whole cluster as seen here."""
        return cluster_state(self._running().view, self.config.cluster)

    async def changes(self) -> AsyncGenerator[ClusterState, None]:
        """The state at once, then after each change, at most five times a second."""
        async with contextlib.aclosing(self._views(CHANGES_EVERY_S)) as views:
            async for view in views:
                yield cluster_state(view, self.config.cluster)

    def models(self) -> tuple[StoredModel, ...]:
        """The models that live nodes store, each once, ordered by id."""
        found: dict[tuple[ModelId, str], StoredModel] = {}
        view = self._running().view
        for facts in sorted(view.live_facts(), key=lambda facts: facts.id != self.id):
            for stored in facts.stored:
                found.setdefault((stored.id, stored.fingerprint), stored)
        return tuple(found[key] for key in sorted(found))

    def resolve(self, model: str) -> ModelFacts:
        """A model that answers now; NotFound, or Unavailable while it does not."""
        runtime = self._running()
        return model_facts(runtime.view, runtime.models.ready(model))

    # ---- what can be asked

    async def plan(self, request: LoadRequest, prompt: int | None = None) -> ForecastPlan:
        """What `load` would do, and what to expect of it behind `prompt` tokens (`None`: usual)."""
        return await self._running().models.plan(request, prompt)

    async def load(self, request: LoadRequest) -> ModelFacts:
        """Begin to load a model; its workers start when this returns."""
        return await self._running().models.load(request)

    async def unload(self, model: ModelId) -> None:
        """Stop a model on all nodes; returns when its steward has begun."""
        await self._running().models.unload(model)

    async def wait_ready(self, model: ModelId) -> ModelFacts:
        """Wait until a model answers; raises what made it fail."""
        async with contextlib.aclosing(self._views(0.0)) as views:
            async for view in views:
                record = view.records.get(model)
                if record is None or record.state == "unloading":
                    raise NotFound(f"the model `{model}` is not loaded")
                if record.state == "failed" and record.error is not None:
                    raise error_from_body(record.error)
                if record.state == "ready":
                    return model_facts(view, record)
        raise Unavailable("the node ends")

    async def generate(
        self, model: str, submit: Submit
    ) -> AsyncGenerator[Accepted | Tokens | Finished, None]:
        """Answer a request by whichever node holds the head; close this early to cancel it."""
        runtime = self._running()
        door = runtime.models.door(runtime.models.ready(model))
        async with contextlib.aclosing(runtime.entry.generate(door, submit)) as answers:
            async for answer in answers:
                yield answer

    def _running(self) -> Runtime:
        if self._runtime is None or not self._runtime.started or self._closing is not None:
            raise Unavailable("the node is not running")
        return self._runtime

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    async def _views(self, every_s: float) -> AsyncGenerator[View, None]:
        """The view at once and after each change, until the node closes."""
        runtime = self._running()
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            while self._closing is None:
                changed.clear()
                yield runtime.view
                await asyncio.sleep(every_s)
                await changed.wait()
        finally:
            self._watchers.discard(changed)
