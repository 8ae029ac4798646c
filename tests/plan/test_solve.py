"""Every plan is a partition that fits, whatever the order of its facts."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gangline.errors import DoesNotFit
from gangline.facts import Link, NodeId, Span
from gangline.plan.live import GIB, Machine, available_bytes
from gangline.plan.shape import ModelCost
from gangline.plan.solve import LANE_CHOICES, SAME, Plan, PlanRequest, Sizes, plan_spread


def model_of(n_layers: int, layer_bytes: int = 100 << 20, **changes: object) -> ModelCost:
    fields: dict[str, object] = {
        "layer_bytes": (layer_bytes,) * n_layers,
        "embedding_bytes": 50 << 20,
        "output_bytes": 50 << 20,
        "kv_bytes_per_token": 2048,
        "hidden_size": 2048,
        "max_context": 8192,
    }
    return ModelCost(**{**fields, **changes})


def machine(
    name: str, gib: float = 16.0, speed: float | None = 20e9, excluded: str = ""
) -> Machine:
    return Machine(NodeId(name), int(gib * GIB), int(gib * GIB), speed, excluded)


machines = st.lists(
    st.tuples(
        st.integers(0, 40),  # GiB free
        st.one_of(st.none(), st.floats(1e8, 1e12)),
        st.sampled_from(["", "", "", "does not store the model"]),
    ),
    min_size=1,
    max_size=16,
).map(
    lambda rows: [machine(f"n-{i:02}", gib, speed, why) for i, (gib, speed, why) in enumerate(rows)]
)
models = st.builds(
    lambda layers, embedding, output, kv: ModelCost(
        tuple(layers), embedding, output, kv, 1024, 4096
    ),
    st.lists(st.integers(1, 3 * GIB), min_size=1, max_size=128),
    st.integers(0, GIB),
    st.integers(0, GIB),
    st.integers(0, 1 << 14),
)
requests = st.builds(
    PlanRequest,
    asked=st.integers(0, 16).map(lambda i: NodeId(f"n-{i:02}")),
    context=st.one_of(st.none(), st.integers(1, 4096)),
    lanes=st.one_of(st.none(), st.integers(1, 64)),
    spread=st.booleans(),
)


def plan_or_none(model: ModelCost, nodes: list[Machine], request: PlanRequest) -> Plan | None:
    try:
        return plan_spread(model, nodes, request)
    except DoesNotFit:
        return None


def pace(plan: Plan) -> float:
    assert plan.prediction is not None
    return plan.prediction.decode_tps


@settings(max_examples=150, deadline=None)
@given(models, machines, requests)
def test_every_plan_is_a_partition_that_fits(
    model: ModelCost, nodes: list[Machine], request: PlanRequest
) -> None:
    plan = plan_or_none(model, nodes, request)
    if plan is None:
        return
    ends = [0, *(stage.span.end for stage in plan.stages)]
    assert [stage.span.start for stage in plan.stages] == ends[:-1]
    assert ends[-1] == model.n_layers
    assert all(len(stage.span) >= 1 for stage in plan.stages)
    assert [stage.role for stage in plan.stages] == ["head"] + ["stage"] * (len(plan.stages) - 1)

    used = [stage.node for stage in plan.stages]
    left_out = [out.node for out in plan.left_out]
    assert sorted(used + left_out) == sorted(node.node for node in nodes)
    assert all(out.why for out in plan.left_out)

    by_id = {node.node: node for node in nodes}
    sizes = Sizes(model, plan.context, plan.lanes)
    for i, stage in enumerate(plan.stages):
        assert sizes.needed(stage.span, i == 0) <= available_bytes(by_id[stage.node])
        assert not by_id[stage.node].excluded


@settings(max_examples=60, deadline=None)
@given(models, machines, requests, st.randoms(use_true_random=False))
def test_the_order_of_the_machines_does_not_matter(
    model: ModelCost, nodes: list[Machine], request: PlanRequest, shuffler: random.Random
) -> None:
    shuffled = nodes[:]
    shuffler.shuffle(shuffled)
    assert plan_or_none(model, nodes, request) == plan_or_none(model, shuffled, request)


def linked(nodes: list[Machine]) -> list[Machine]:
    """The machines with measured ways between all of them: nothing is predicted over others."""
    return [
        msgspec.structs.replace(
            node, links=tuple(Link(other.node, 300.0, 0.9) for other in nodes if other is not node)
        )
        for node in nodes
    ]


# A split over slow machines, faster than one of them: its hops have to be measured to compare.
@example(
    ModelCost((1, 615716939), 0, 21816760, 166, 1024, 4096),
    linked([machine("n-00", 1, 100009143.0), machine("n-01", 2, 1e8)]),
    PlanRequest(NodeId("n-00")),
)
@settings(max_examples=100, deadline=None)
@given(models, machines.map(linked), requests)
def test_a_model_that_fits_one_machine_is_never_refused(
    model: ModelCost, nodes: list[Machine], request: PlanRequest
) -> None:
    context = request.context or min(model.max_context, 4096)
    whole = Sizes(model, context, request.lanes or LANE_CHOICES[-1])
    fits = [
        node
        for node in nodes
        if not node.excluded and whole.fits(node, Span(0, model.n_layers), True)
    ]
    if fits:
        plan = plan_or_none(model, nodes, request)
        assert plan is not None
        if not request.spread and all(node.read_bytes_per_s for node in nodes):
            asked = msgspec.structs.replace(request, lanes=request.lanes or 1)
            alone = [plan_spread(model, [node], asked) for node in fits]
            assert all(pace(plan) >= pace(one) / SAME for one in alone)


def test_layers_go_by_bandwidth() -> None:
    model = model_of(30, embedding_bytes=0, output_bytes=0)
    nodes = [machine("a", speed=10e9), machine("b", speed=20e9), machine("c", speed=30e9)]
    plan = plan_spread(model, nodes, PlanRequest(NodeId("a"), spread=True, lanes=1))
    assert {stage.node: len(stage.span) for stage in plan.stages} == {"a": 5, "b": 10, "c": 15}
    assert plan.stages[0].node == "a", "the asked node is the head"


def test_memory_bounds_what_bandwidth_would_give() -> None:
    model = model_of(30, layer_bytes=GIB, kv_bytes_per_token=0)
    nodes = [machine("fast", gib=8, speed=900e9), machine("large", gib=64, speed=10e9)]
    plan = plan_spread(model, nodes, PlanRequest(NodeId("large"), spread=True))
    spans = {stage.node: len(stage.span) for stage in plan.stages}
    assert spans == {"large": 23, "fast": 7}


def test_an_unmeasured_machine_counts_as_the_average() -> None:
    model = model_of(30, embedding_bytes=0, output_bytes=0)
    nodes = [machine("a", speed=10e9), machine("b", speed=30e9), machine("c", speed=None)]
    plan = plan_spread(model, nodes, PlanRequest(NodeId("a"), spread=True, lanes=1))
    assert {stage.node: len(stage.span) for stage in plan.stages} == {"a": 5, "b": 15, "c": 10}
    assert "not measured" in next(stage.why for stage in plan.stages if stage.node == "c")


def test_the_fastest_nodes_are_used_and_the_others_are_told_why() -> None:
    nodes = [machine("a", speed=1e9), machine("b", speed=100e9), machine("c", excluded="is full")]
    plan = plan_spread(model_of(8), nodes, PlanRequest(NodeId("a")))
    assert [stage.node for stage in plan.stages] == ["b"]
    assert {out.node: out.why for out in plan.left_out} == {
        "a": "not needed: 1 node holds the model; a further hop would slow each token down, by "
        "0.48 ms to it and on, and it reads 1.0 GB/s",
        "c": "is full",
    }


def test_of_equal_nodes_the_asked_one_is_the_head() -> None:
    nodes = [machine("a"), machine("b"), machine("c")]
    plan = plan_spread(model_of(8), nodes, PlanRequest(NodeId("b")))
    assert [stage.node for stage in plan.stages] == ["b"]


def test_a_machine_behind_a_slow_link_is_left_out() -> None:
    """Any two hold the model; the pair with the quick link is taken, of slower memory."""
    model = model_of(30, layer_bytes=GIB // 2, kv_bytes_per_token=0)

    def nodes(rtt_us: float) -> list[Machine]:
        quick = Link(NodeId("b"), rtt_us=100.0, gbps=10.0)
        to_c = Link(NodeId("c"), rtt_us=rtt_us, gbps=10.0)
        return [
            msgspec.structs.replace(machine("a", gib=10), links=(quick, to_c)),
            msgspec.structs.replace(machine("b", gib=10, speed=19e9), links=(to_c,)),
            machine("c", gib=10, speed=22e9),
        ]

    request = PlanRequest(NodeId("a"), lanes=1)
    far, near = (plan_spread(model, nodes(rtt_us), request) for rtt_us in (80_000.0, 100.0))
    assert [stage.node for stage in far.stages] == ["a", "b"]
    assert "80 ms to it and on" in far.left_out[0].why
    assert {stage.node for stage in near.stages} == {"a", "c"}


def test_another_node_is_the_head_where_the_asked_one_cannot() -> None:
    model = model_of(8, embedding_bytes=4 * GIB)
    nodes = [machine("small", gib=2), machine("large", gib=32)]
    plan = plan_spread(model, nodes, PlanRequest(NodeId("small"), spread=True))
    assert [stage.node for stage in plan.stages] == ["large", "small"]


def test_more_nodes_than_layers() -> None:
    nodes = [machine(f"n-{i}", speed=(i + 1) * 1e9) for i in range(5)]
    plan = plan_spread(model_of(3), nodes, PlanRequest(NodeId("n-0"), spread=True))
    assert sorted(stage.node for stage in plan.stages) == ["n-0", "n-3", "n-4"]
    assert {out.node for out in plan.left_out} == {"n-1", "n-2"}


def test_lanes_shrink_until_the_cache_fits() -> None:
    model = model_of(8, kv_bytes_per_token=1 << 17)
    plan = plan_spread(model, [machine("a", gib=40)], PlanRequest(NodeId("a"), context=4096))
    assert plan.lanes == 8
    with pytest.raises(DoesNotFit):
        plan_spread(model, [machine("a", gib=40)], PlanRequest(NodeId("a"), context=4096, lanes=16))


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    model = model_of(8, layer_bytes=10 * GIB)
    nodes = [machine("a", gib=16), machine("b", excluded="does not store the model")]
    with pytest.raises(DoesNotFit) as caught:
        plan_spread(model, nodes, PlanRequest(NodeId("a"), context=1024, lanes=2))
    assert caught.value.message == (
        "the model needs 80.29 GiB at 1024 tokens x 2 lanes, the 1 node has 15.20 GiB to give "
        "(b does not store the model)"
    )
    assert caught.value.hint


def test_the_reserve_of_the_operating_system_stays_free() -> None:
    assert available_bytes(Machine(NodeId("pi"), GIB, GIB)) == GIB - (256 << 20)
    assert available_bytes(Machine(NodeId("pi"), GIB, 100 << 20)) == 0
    assert available_bytes(Machine(NodeId("big"), 100 * GIB, 50 * GIB)) == 45 * GIB
