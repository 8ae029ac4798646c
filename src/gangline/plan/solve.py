"""Which node runs which layers: a pure function of the facts, with its reasons.

A load takes the plan whose single answer is fastest, hops included: a machine that would slow it
down is left out, and told why. `spread` takes every machine that can hold a layer, and cuts layers
in proportion to measured memory bandwidth, bounded by memory: of all cuts that fit, the one with
the least sum of (bytes read per token)^2 / bandwidth.

Memory of a stage = weights + keys and values for context x lanes + a worker's own needs; a reserve
stays free for the operating system.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from gangline.errors import DoesNotFit
from gangline.facts import LeftOut, NodeId, Prediction, Role, Span, Stage
from gangline.plan.cost import hop_seconds
from gangline.plan.engines import published_fit
from gangline.plan.forecast import (
    WORKER_BYTES,
    Arrangement,
    Cluster,
    Wish,
    arrange,
    arrange_as,
)
from gangline.plan.live import GIB, Machine, available_bytes, cluster_of, is_measured
from gangline.plan.shape import ModelCost

DEFAULT_CONTEXT = 4096  # tokens, where the request names none and the model allows it
SAME = 1.02  # times that differ by less are the same
LANE_CHOICES = (32, 16, 8, 4, 2, 1)  # tried in this order where the request names none


class PlanRequest(msgspec.Struct, frozen=True):
    """What is asked of a plan."""

    asked: NodeId  # the node that was asked; it becomes the head if it can
    context: int | None = None  # tokens per lane
    lanes: int | None = None
    spread: bool = False  # True: every machine that can; False: those that make it fastest


class Plan(msgspec.Struct, frozen=True):
    """Who runs what, and why; stage 0 is the head."""

    stages: tuple[Stage, ...]
    left_out: tuple[LeftOut, ...]
    context: int
    lanes: int
    why: str = ""
    prediction: Prediction | None = None  # None: a machine or hop in use was not measured yet


def plan_spread(model: ModelCost, machines: Iterable[Machine], request: PlanRequest) -> Plan:
    """The plan for `model` on `machines`, whatever their order; raises DoesNotFit."""
    known = sorted(machines, key=lambda machine: machine.node)
    usable = [machine for machine in known if not machine.excluded]
    excluded = [LeftOut(machine.node, machine.excluded) for machine in known if machine.excluded]
    context = request.context or min(model.max_context, DEFAULT_CONTEXT)
    if request.spread:
        chosen = _spread(model, usable, request, context)
    else:
        chosen = _fastest(model, usable, request, context)
    if chosen is not None:
        sizes, order, spans, left_out, why = chosen
        stages = tuple(
            Stage(machine.node, _role(i), span, sizes.explain(machine, span, i == 0))
            for i, (machine, span) in enumerate(zip(order, spans, strict=True))
        )
        left = tuple(excluded + left_out)
        prediction = predict(model, order, spans, context)
        return Plan(stages, left, context, sizes.lanes, why, prediction)
    least = Sizes(model, context, request.lanes or LANE_CHOICES[-1])
    raise _does_not_fit(least, usable, excluded)


def predict(
    model: ModelCost, order: Sequence[Machine], spans: Sequence[Span], context: int
) -> Prediction | None:
    """How fast one answer will be; None where a machine or hop was not measured: no guesses."""
    hops = [(a, b) for a, b in pairwise([*order, order[0]]) if a is not b]
    if not all(machine.read_bytes_per_s for machine in order):
        return None
    if not all(is_measured(a, b) for a, b in hops):
        return None
    cuts = [(span.start, span.end) for span in spans]
    timed = arrange_as(model, cluster_of(order), cuts, Wish(context))
    error = published_fit().errors["ours"]
    return Prediction(
        decode_tps=timed.decode_tps, error=error.decode if len(order) == 1 else error.cluster
    )


class Sizes:
    """Bytes of any span of one model at one context and number of lanes."""

    def __init__(self, model: ModelCost, context: int, lanes: int) -> None:
        self.model = model
        self.context = context
        self.lanes = lanes
        self._sums = [0]
        self._caches = [0]
        for n_bytes, layer in zip(model.layer_bytes, model.layer_costs, strict=True):
            self._sums.append(self._sums[-1] + n_bytes)
            self._caches.append(self._caches[-1] + lanes * layer.cache_bytes(context))

    def needed(self, span: Span, is_head: bool) -> int:
        """Memory of a stage, in bytes."""
        weights = self._sums[span.end] - self._sums[span.start]
        head = self.model.head_bytes if is_head else 0
        cache = self._caches[span.end] - self._caches[span.start]
        return weights + head + cache + WORKER_BYTES

    def read_per_token(self, span: Span, is_head: bool) -> int:
        """Weights that a stage reads for each token, in bytes."""
        head = self.model.head_read_bytes if is_head else 0
        return self._sums[span.end] - self._sums[span.start] + head

    def fits(self, machine: Machine, span: Span, is_head: bool) -> bool:
        return self.needed(span, is_head) <= available_bytes(machine)

    def reach(self, machine: Machine, start: int, limit: int, is_head: bool) -> int:
        """The largest end <= limit for which [start, end) fits; `start` if nothing does."""
        end = start
        while end < limit and self.fits(machine, Span(start, end + 1), is_head):
            end += 1
        return end

    def explain(self, machine: Machine, span: Span, is_head: bool) -> str:
        speed = machine.read_bytes_per_s
        return (
            f"{len(span)} of {self.model.n_layers} layers, "
            f"{self.needed(span, is_head) / GIB:.2f} of {available_bytes(machine) / GIB:.2f} GiB, "
            + (f"reads {speed / 1e9:.1f} GB/s" if speed else "bandwidth not measured")
        )


class _Choice(NamedTuple):
    sizes: Sizes
    order: list[Machine]
    spans: list[Span]
    left_out: list[LeftOut]
    why: str


def _role(index: int) -> Role:
    return "head" if index == 0 else "stage"


def _speed(machine: Machine, machines: Sequence[Machine]) -> float:
    """Measured bandwidth; where there is none, the average of the others (equal if nobody has)."""
    if machine.read_bytes_per_s:
        return machine.read_bytes_per_s
    known = [other.read_bytes_per_s for other in machines if other.read_bytes_per_s]
    return sum(known) / len(known) if known else 1.0


def _ranked(machines: Sequence[Machine], asked: NodeId) -> list[Machine]:
    """The asked node first, then by bandwidth, memory and id."""
    return sorted(
        machines,
        key=lambda m: (m.node != asked, -_speed(m, machines), -available_bytes(m), m.node),
    )


def _fastest(
    model: ModelCost, usable: list[Machine], request: PlanRequest, context: int
) -> _Choice | None:
    """The machines and spans whose single answer is fastest.

    Where the request names no lanes, as many as leave it that fast: cache for more lanes may need
    more machines, and a further hop slows each answer down.
    """
    ranked = _ranked(usable, request.asked)
    cluster = cluster_of(ranked)
    best: tuple[int, Arrangement] | None = None
    for lanes in (request.lanes,) if request.lanes else reversed(LANE_CHOICES):
        plans = arrange(model, cluster, Wish(context, lanes, parallel="pipeline"))
        if not plans or (best is not None and plans[0].token_s > SAME * best[1].token_s):
            break
        best = (lanes, plans[0])
    if best is None:
        return None
    lanes, plan = best
    order = [ranked[i] for i in plan.used]
    spans = [Span(stage.start, stage.end) for stage in plan.stages]
    sizes = Sizes(model, context, lanes)
    alone = len(order) == 1
    nodes = "1 node holds" if alone else f"{len(order)} nodes hold"
    why = f"{nodes} the model; a further hop would slow each token down"
    left_out = [
        LeftOut(machine.node, _why_not(sizes, cluster, ranked, order, machine, why))
        for machine in usable
        if machine not in order
    ]
    return _Choice(sizes, order, spans, left_out, why)


def _why_not(
    sizes: Sizes,
    cluster: Cluster,
    ranked: list[Machine],
    order: list[Machine],
    machine: Machine,
    why: str,
) -> str:
    """What a machine that is left out would cost."""
    layer = min(range(sizes.model.n_layers), key=lambda one: sizes.model.layer_bytes[one])
    if not sizes.fits(machine, Span(layer, layer + 1), False):
        return _no_room(sizes, machine, layer)
    ring = [ranked.index(order[-1]), ranked.index(machine), ranked.index(order[0])]
    hops_s = sum(hop_seconds(0, cluster.link(a, b), cluster.engine) for a, b in pairwise(ring))
    speed = machine.read_bytes_per_s
    reads = f", and it reads {speed / 1e9:.1f} GB/s" if speed else ""
    hops_ms = hops_s * 1e3
    words = f"{hops_ms:.0f}" if hops_ms >= 10 else f"{hops_ms:.2g}"
    return f"not needed: {why}, by {words} ms to it and on{reads}"


def _no_room(sizes: Sizes, machine: Machine, layer: int) -> str:
    needed = sizes.needed(Span(layer, layer + 1), False)
    return (
        f"has {available_bytes(machine) / GIB:.2f} GiB to give, "
        f"one layer needs {needed / GIB:.2f} GiB"
    )


def _spread(
    model: ModelCost, usable: list[Machine], request: PlanRequest, context: int
) -> _Choice | None:
    """Every machine that can, with as many lanes as fit."""
    for lanes in (request.lanes,) if request.lanes else LANE_CHOICES:
        chosen = _most(Sizes(model, context, lanes), usable, request)
        if chosen is not None:
            return chosen
    return None


def _most(sizes: Sizes, usable: list[Machine], request: PlanRequest) -> _Choice | None:
    """Every machine that can hold a layer, the fastest first where there are more than layers."""
    n_layers = sizes.model.n_layers
    smallest = min(range(n_layers), key=lambda layer: sizes.model.layer_bytes[layer])
    one_layer = Span(smallest, smallest + 1)
    able = [machine for machine in usable if sizes.fits(machine, one_layer, False)]
    left_out = [
        LeftOut(machine.node, _no_room(sizes, machine, smallest))
        for machine in usable
        if machine not in able
    ]
    ranked = _ranked(able, request.asked)
    for count in range(min(len(ranked), n_layers), 0, -1):
        for head in ranked:
            order = [head, *[machine for machine in ranked if machine is not head]][:count]
            spans = _cut(sizes, order)
            if spans is not None:
                why = f"spread over {count} nodes as asked"
                surplus = f"{count} nodes are enough for {n_layers} layers, and this is the slowest"
                left_out += [LeftOut(m.node, surplus) for m in ranked if m not in order]
                return _Choice(sizes, order, spans, left_out, why)
    return None


def _cut(sizes: Sizes, order: Sequence[Machine]) -> list[Span] | None:
    """Spans for machines in this order, each of at least one layer; None if they do not fit.

    best[layers] is the least cost at which the machines so far hold the first `layers` layers.
    """
    n_layers, n_machines = sizes.model.n_layers, len(order)
    together = sizes.needed(Span(0, n_layers), True) + (n_machines - 1) * WORKER_BYTES
    if sum(available_bytes(machine) for machine in order) < together:
        return None
    best: list[float] = [0.0] + [math.inf] * n_layers
    cuts: list[list[int]] = []
    for i, machine in enumerate(order):
        speed = _speed(machine, order)
        reached = [math.inf] * (n_layers + 1)
        origin = [-1] * (n_layers + 1)
        last_end = n_layers - (n_machines - 1 - i)  # leaves a layer for each machine to come
        for start in range(i, n_layers):
            if best[start] == math.inf:
                continue
            limit = sizes.reach(machine, start, last_end, i == 0)
            for end in range(start + 1, limit + 1):
                n_bytes = sizes.read_per_token(Span(start, end), i == 0)
                cost = best[start] + n_bytes * n_bytes / speed
                if cost < reached[end]:
                    reached[end], origin[end] = cost, start
        best = reached
        cuts.append(origin)
    if best[n_layers] == math.inf:
        return None
    spans: list[Span] = []
    end = n_layers
    for origin in reversed(cuts):
        spans.append(Span(origin[end], end))
        end = origin[end]
    return spans[::-1]


def _does_not_fit(sizes: Sizes, usable: list[Machine], excluded: list[LeftOut]) -> DoesNotFit:
    needed = sizes.needed(Span(0, sizes.model.n_layers), True) / GIB
    available = sum(available_bytes(machine) for machine in usable) / GIB
    who = "1 node has" if len(usable) == 1 else f"{len(usable)} nodes have"
    reasons = "; ".join(f"{out.node} {out.why}" for out in excluded)
    return DoesNotFit(
        f"the model needs {needed:.2f} GiB at {sizes.context} tokens x {sizes.lanes} lanes, "
        f"the {who} {available:.2f} GiB to give" + (f" ({reasons})" if reasons else ""),
        hint="free memory, add a node, or ask for a smaller --context",
    )
