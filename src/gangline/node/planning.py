"""From the cluster's view to a planner's input: which nodes may run a model, and with what."""

from __future__ import annotations

import msgspec

from gangline.errors import NotFound, UsageError
from gangline.facts import LoadRequest, ModelId, NodeFacts, NodeId, Prediction
from gangline.hardware.device import computing_gpu, seen_by
from gangline.node.folding import View
from gangline.plan.advice import Advice, LeftOutAdvice, advise
from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.fleet import Fleet
from gangline.plan.forecast import Wish, arrange_as
from gangline.plan.live import (
    GIB,
    UNMEASURED_GBPS,
    UNMEASURED_RTT_US,
    Machine,
    available_bytes,
    cluster_of,
)
from gangline.plan.question import Question
from gangline.plan.shape import ModelCost, bits_of
from gangline.plan.solve import Plan, PlanRequest, plan_spread, predict

USUAL_PROMPT = 512  # tokens, where a question about a plan names none


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
        machine_of(facts, model, _excluded(facts, model, fingerprint, named), request.backend)
        for facts in view.live_facts()
    ]


def predict_again(view: View, model: ModelId, cost: ModelCost, plan: Plan) -> Prediction | None:
    """What a plan promises by what is measured now; None while something in use is not."""
    facts = {one.id: one for one in view.live_facts()}
    order = [
        machine_of(facts[stage.node], model, "") for stage in plan.stages if stage.node in facts
    ]
    if len(order) < len(plan.stages):
        return None
    return predict(cost, order, [stage.span for stage in plan.stages], plan.context)


class ForecastPlan(Plan, frozen=True):
    """The body of `GET /cluster/plan`: the plan, and what to expect of it."""

    forecast: Advice | None = None


def prompt_within(context: int, prompt: int | None) -> int:
    """Tokens of the prompt to plan for; UsageError for more than the context holds."""
    if prompt is None:
        return min(USUAL_PROMPT, context)
    if prompt > context:
        raise UsageError(
            f"a prompt of {prompt} tokens is longer than the context of {context}",
            hint="ask for a longer context, or a shorter prompt",
            param="prompt",
        )
    return prompt


def with_forecast(
    plan: Plan,
    view: View,
    cost: ModelCost,
    machines: list[Machine],
    model: ModelId,
    prompt: int | None,
) -> ForecastPlan:
    """A plan and what is to be expected of it, behind `prompt` tokens (`None`: usual)."""
    order = [stage.node for stage in plan.stages]
    usable = [machine for machine in machines if not machine.excluded]
    usable.sort(key=lambda m: order.index(m.node) if m.node in order else len(order))
    cluster = cluster_of(usable)
    spans = [(stage.span.start, stage.span.end) for stage in plan.stages]
    wish = Wish(plan.context, plan.lanes, prompt_within(plan.context, prompt), "pipeline")
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
    forecast = advise(question, arrange_as(cost, cluster, spans, wish))
    excluded = [LeftOutAdvice(view.name(m.node), m.excluded) for m in machines if m.excluded]
    forecast = msgspec.structs.replace(forecast, left_out=(*forecast.left_out, *excluded))
    if plan.prediction is not None:
        forecast = _corrected(forecast, plan.prediction)
    else:
        forecast = msgspec.structs.replace(forecast, why=(*forecast.why, GUESSED))
    return ForecastPlan(**msgspec.structs.asdict(plan), forecast=forecast)


GUESSED = (
    "Not everything in use was measured yet, and what was not is taken for usual: links for "
    f"{UNMEASURED_GBPS:g} Gbit/s and {UNMEASURED_RTT_US / 1000:g} ms. Ask again in a moment."
)


def _corrected(forecast: Advice, prediction: Prediction) -> Advice:
    """The forecast by what was measured before: all single answers alike, so that they compare."""
    factor = prediction.scale
    assert forecast.decode_tps is not None, "it is the forecast of a plan"
    second = forecast.runner_up
    if second is not None:
        second = msgspec.structs.replace(second, decode_tps=round(second.decode_tps * factor, 3))
    return msgspec.structs.replace(
        forecast,
        decode_tps=round(forecast.decode_tps * factor, 3),
        decode_tps_error=prediction.error,
        stages=tuple(
            msgspec.structs.replace(stage, ms_per_token=round(stage.ms_per_token / factor, 4))
            for stage in forecast.stages
        ),
        runner_up=second,
        alternatives=tuple(
            msgspec.structs.replace(other, decode_tps=round(other.decode_tps * factor, 3))
            for other in forecast.alternatives
        ),
    )


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


def machine_of(
    facts: NodeFacts, model: ModelId, excluded: str, backend: str | None = None
) -> Machine:
    """A node for the planner, with the memory that workers of this back end compute in.

    What workers of this model hold counts as free, since they go; a processor's caches were touched
    in part only, and graphics took theirs at once.
    """
    hardware = seen_by(facts.hardware, backend)
    gpu = computing_gpu(facts.hardware, backend)
    held = sum(
        worker.weight_bytes + (0 if gpu is None else worker.cache_bytes)
        for worker in facts.workers
        if worker.model == model
    )
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
