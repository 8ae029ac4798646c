"""The cluster API on real nodes: state, events, plans, loading and unloading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from gangline.cli.client import Client
from gangline.cli.common import unload
from gangline.errors import Conflict, GanglineError, NotFound, UsageError
from gangline.facts import (
    ClusterState,
    LoadRequest,
    ModelFacts,
    ModelId,
    ModelState,
    NodeId,
    StoredModel,
)
from gangline.plan.solve import Plan
from gangline.serve.cluster import ill
from gangline.serve.streams import with_heartbeat
from tests.cluster import MODEL, N_LAYERS, SINGLE, Cluster


@pytest.mark.cluster
def test_every_node_tells_the_same_of_the_cluster(cluster: Cluster) -> None:
    states = [Client(url).get("/cluster/state", ClusterState) for url in cluster.urls]
    assert [state.node for state in states] == [node_at(states[0], url) for url in cluster.urls]
    for state in states:
        assert {node.id for node in state.nodes} == {node.id for node in states[0].nodes}
        assert [model.id for model in state.models] == [MODEL]
        spans = [stage.span for stage in state.models[0].stages]
        assert (spans[0].start, spans[0].end, spans[1].end) == (0, spans[1].start, N_LAYERS)
        assert all(node.alive and node.pid in cluster.pids for node in state.nodes)


def node_at(state: ClusterState, url: str) -> str:
    return next(node.id for node in state.nodes if node.api == url)


@pytest.mark.cluster
def test_events_begin_with_the_state(cluster: Cluster) -> None:
    event = next(cluster.client.events("GET", "/cluster/events"))
    assert event.kind == "state"
    state = msgspec.json.decode(event.data, type=ClusterState)
    assert [model.id for model in state.models] == [MODEL]


@pytest.mark.cluster
def test_stored_models(cluster: Cluster) -> None:
    stored = cluster.client.get("/cluster/models", list[StoredModel])
    assert {MODEL, SINGLE, "demo"} <= {model.id for model in stored}


@pytest.mark.cluster
def test_a_plan_says_what_a_load_would_do(cluster: Cluster) -> None:
    names = [node.name for node in cluster.state().nodes]
    path = f"/cluster/plan?model={SINGLE}&nodes={','.join(names)}&lanes=2&context=100"
    plan = cluster.client.get(path, Plan)
    assert len(plan.stages) == 2
    assert (plan.lanes, plan.context) == (2, 100)
    assert plan.stages[-1].span.end == N_LAYERS
    assert len(cluster.client.get(f"/cluster/plan?model={SINGLE}&spread=0", Plan).stages) == 1


@pytest.mark.cluster
def test_load_and_unload(cluster: Cluster) -> None:
    ready = cluster.load(model=SINGLE, context=64, lanes=2)
    assert (ready.state, ready.context, ready.lanes) == ("ready", 64, 2)
    with pytest.raises(Conflict):
        cluster.load(model=SINGLE)
    unload(cluster.client, SINGLE)
    assert [model.id for model in cluster.state().models] == [MODEL]
    with pytest.raises(NotFound):
        unload(cluster.client, SINGLE)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("request_body", "kind"),
    [
        (LoadRequest("none"), NotFound),
        (LoadRequest(SINGLE, nodes=("none",)), NotFound),
        (LoadRequest(SINGLE, context=0), UsageError),
        (LoadRequest(SINGLE, lanes=-1), UsageError),
        ({"model": SINGLE, "speed": 1}, UsageError),
        ({"model": 1}, UsageError),
        ({}, UsageError),
    ],
)
def test_loads_that_are_refused(
    cluster: Cluster, request_body: object, kind: type[GanglineError]
) -> None:
    with pytest.raises(GanglineError) as caught:
        cluster.client.post("/cluster/models", request_body, ModelFacts, 30)
    assert caught.value.http_status == kind.http_status
    assert [model.id for model in cluster.state().models] == [MODEL]


def test_what_is_ill() -> None:
    def model(state: ModelState, reason: str = "") -> ModelFacts:
        return ModelFacts(ModelId("m"), state, 1, NodeId("n"), reason=reason)

    assert ill(()) == []
    assert ill((model("ready"), model("loading"), model("unloading"))) == []
    assert ill((model("failed", "no memory"), model("recovering"))) == [
        "model `m` is failed: no memory",
        "model `m` is recovering",
    ]


async def numbers(*gaps: asyncio.Event) -> AsyncIterator[int]:
    for number, gap in enumerate(gaps):
        await gap.wait()
        yield number


def test_heartbeats_fill_the_pauses() -> None:
    """No value is lost to a heartbeat, and the stream ends with the values."""

    async def collect() -> list[int | None]:
        gaps = [asyncio.Event(), asyncio.Event()]
        seen: list[int | None] = []
        async with aclosing(with_heartbeat(numbers(*gaps), 0.001)) as values:
            async for value in values:
                seen.append(value)
                for gap, _ in zip(gaps, [None for one in seen if one is None], strict=False):
                    gap.set()
        return seen

    seen = asyncio.run(collect())
    assert [value for value in seen if value is not None] == [0, 1]
    assert seen[0] is None
    assert seen[-1] == 1
