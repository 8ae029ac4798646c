"""From the cluster's view to a planner's input: which nodes may run a model, and with what."""

from __future__ import annotations

import msgspec

from gangline.errors import NotFound, UsageError
from gangline.facts import LoadRequest, ModelId, NodeFacts, NodeId
from gangline.node.folding import View
from gangline.plan.advice import Advice, LeftOutAdvice, Question, advise
from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.fleet import Fleet
from gangline.plan.forecast import Wish, arrange_as
from gangline.plan.shape import ModelCost, bits_of
from gangline.plan.solve import (
    GIB,
    Machine,
    Plan,
    PlanRequest,
    available_bytes,
    cluster_of,
    plan_spread,
)


def plan_model(
    view: View,
    model: ModelId,
    fingerprint: str,
    cost: ModelCost,
    request: LoadRequest,
    asked: NodeId,
) -> Plan:
    """A plan on the live nodes. Nodes that a request names are all used; DoesNotFit, NotFound."""
    machines = machines_for(view, model, fingerprint, cost, request)
    if all(machine.excluded for machine in machines):
        reasons = "; ".join(f"{m.node} {m.excluded}" for m in machines)
        raise NotFound(
            f"no live node can run `{model}`: {reasons}",
            hint="start a node that stores it, or name other nodes",
        )
    spread = request.spread or request.nodes is not None
    return plan_spread(cost, machines, PlanRequest(asked, request.context, request.lanes, spread))


def machines_for(
    view: View, model: ModelId, fingerprint: str, cost: ModelCost, request: LoadRequest
) -> list[Machine]:
    """The live nodes for the planner, with why some cannot take part; UsageError, NotFound."""
    check_request(request, cost)
    named = find_nodes(view, request.nodes) if request.nodes is not None else None
    return [
        machine_of(facts, model, _excluded(facts, model, fingerprint, named))
        for facts in view.live_facts()
    ]


class ForecastPlan(Plan, frozen=True):
    """The body of `GET /cluster/plan`: the plan, and what to expect of it."""

    forecast: Advice | None = None


def with_forecast(
    plan: Plan, view: View, cost: ModelCost, machines: list[Machine], model: ModelId, prompt: int
) -> ForecastPlan:
    """A plan and what is to be expected of it, behind a prompt of `prompt` tokens."""
    order = [stage.node for stage in plan.stages]
    usable = [machine for machine in machines if not machine.excluded]
    usable.sort(key=lambda m: order.index(m.node) if m.node in order else len(order))
    cluster = cluster_of(usable)
    spans = [(stage.span.start, stage.span.end) for stage in plan.stages]
    wish = Wish(plan.context, plan.lanes, max(1, min(prompt, plan.context)), "pipeline")
    fleet = Fleet(
        machines=tuple(_as_sold(machine, view.name(machine.node)) for machine in usable),
        link=MEASURED_LINK,
        measured=tuple(member.rates for member in cluster.members),
        ways=tuple(
            tuple(cluster.link(a, b) if a != b else MEASURED_LINK for b in range(len(usable)))
            for a in range(len(usable))
        ),
    )
    question = Question(model, lambda _: cost, bits_of(cost), fleet, "ours", wish)
    timed = arrange_as(cost, cluster, spans, wish)
    forecast = advise(question, timed)
    excluded = [LeftOutAdvice(view.name(m.node), m.excluded) for m in machines if m.excluded]
    if plan.prediction is not None:  # corrected by what was measured before
        forecast = msgspec.structs.replace(
            forecast,
            decode_tps=round(timed.decode_tps * plan.prediction.scale, 3),
            decode_tps_error=plan.prediction.error,
            left_out=(*forecast.left_out, *excluded),
        )
    return ForecastPlan(**msgspec.structs.asdict(plan), forecast=forecast)


MEASURED_LINK = LinkType(
    id="measured", name="measured", kind="ethernet", gbps=1.0, rtt_us=0.0, per_message_us=0.0,
    source="between the nodes",
)  # fmt: skip


def _as_sold(machine: Machine, name: str) -> MachineType:
    """A live node in the terms of the catalogue: what it can give, and nothing of its price."""
    return MachineType(
        id=name,
        name=name,
        vendor="",
        kind="cpu",
        chip="",
        memory_gb=available_bytes(machine) / GIB,
        usable_fraction=1.0,
        memory_gbps=(machine.read_bytes_per_s or 0.0) / 1e9,
        source="measured",
    )


def check_request(request: LoadRequest, cost: ModelCost) -> None:
    """Raise UsageError for sizes that no plan could give."""
    if request.context is not None and not 1 <= request.context <= cost.max_context:
        raise UsageError(
            f"a context of {request.context} tokens is outside 1..{cost.max_context}",
            param="context",
            hint=f"`{request.model}` was trained for {cost.max_context} tokens",
        )
    if request.lanes is not None and not 1 <= request.lanes <= 1024:
        raise UsageError(f"{request.lanes} lanes are outside 1..1024", param="lanes")
    if request.nodes is not None and not request.nodes:
        raise UsageError("the list of nodes is empty", param="nodes")


def find_nodes(view: View, wanted: tuple[str, ...]) -> set[NodeId]:
    """The nodes with these ids or names, dead ones included; NotFound names what there is."""
    found: set[NodeId] = set()
    for name in wanted:
        matching = {n for n, r in view.reports.items() if name in (n, r.facts.name)}
        if not matching:
            known = ", ".join(f"{f.name} ({f.id})" for f in view.live_facts())
            raise NotFound(f"there is no node `{name}`", hint=f"known nodes: {known}")
        found |= matching
    return found


def machine_of(facts: NodeFacts, model: ModelId, excluded: str) -> Machine:
    """A node for the planner; what workers of this model hold counts as free, since they go."""
    held = sum(worker.weight_bytes for worker in facts.workers if worker.model == model)
    hardware = facts.hardware
    return Machine(
        node=facts.id,
        memory_bytes=hardware.memory_bytes,
        free_bytes=min(hardware.memory_bytes, hardware.free_bytes + held),
        read_bytes_per_s=hardware.read_bytes_per_s,
        excluded=excluded,
        operations_per_s=hardware.operations_per_s,
        layer_s=hardware.layer_s,
        links=facts.links,
        cache_bytes_per_s=hardware.cache_bytes_per_s,
        attention_operations_per_s=hardware.attention_operations_per_s,
        step_s=hardware.step_s,
    )


def _excluded(facts: NodeFacts, model: ModelId, fingerprint: str, named: set[NodeId] | None) -> str:
    if named is not None and facts.id not in named:
        return "is not named in the request"
    stored = next((stored for stored in facts.stored if stored.id == model), None)
    if stored is None:
        return "does not store the model"
    if not stored.supported:
        return f"cannot run its copy: {stored.reason}"
    if stored.fingerprint != fingerprint:
        return f"stores other files as `{model}`"
    return ""
