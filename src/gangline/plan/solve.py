"""Which node runs which layers: a pure function of the facts, with its reasons.

Layers are cut into contiguous spans in proportion to measured memory bandwidth, bounded by memory:
of all cuts that fit, the one with the least sum of (bytes read per token)^2 / bandwidth, whose
minimum without bounds is exactly the proportional share. Hops are not weighed yet; a planner that
does so replaces `plan_spread` behind the same types.

Memory of a stage = weights + keys and values for context x lanes + a worker's own needs; a reserve
stays free for the operating system.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from gangline.errors import DoesNotFit
from gangline.facts import LeftOut, NodeId, Prediction, Role, Span, Stage
from gangline.plan.shape import ModelCost

GIB = 1 << 30
WORKER_BYTES = (
    160 << 20
)  # interpreter, libraries and step buffers of a worker, measured 90..140 MiB
RESERVE_FRACTION = 0.05  # of a machine's memory, left to its operating system
RESERVE_MIN_BYTES = 256 << 20
DEFAULT_CONTEXT = 4096  # tokens, where the request names none and the model allows it
LANE_CHOICES = (32, 16, 8, 4, 2, 1)  # tried in this order where the request names none


class Machine(msgspec.Struct, frozen=True):
    """A node as a planner sees it."""

    node: NodeId
    memory_bytes: int
    free_bytes: int
    read_bytes_per_s: float | None = None  # None: not measured
    excluded: str = ""  # why it cannot take part: "does not store the model"


class PlanRequest(msgspec.Struct, frozen=True):
    """What is asked of a plan."""

    asked: NodeId  # the node that was asked; it becomes the head if it can
    context: int | None = None  # tokens per lane
    lanes: int | None = None
    spread: bool = False  # True: every machine that can; False: the fewest that fit


class Plan(msgspec.Struct, frozen=True):
    """Who runs what, and why; stage 0 is the head."""

    stages: tuple[Stage, ...]
    left_out: tuple[LeftOut, ...]
    context: int
    lanes: int
    why: str = ""
    prediction: Prediction | None = None  # None: nothing was predicted


def plan_spread(model: ModelCost, machines: Iterable[Machine], request: PlanRequest) -> Plan:
    """The plan for `model` on `machines`, whatever their order; raises DoesNotFit."""
    known = sorted(machines, key=lambda machine: machine.node)
    usable = [machine for machine in known if not machine.excluded]
    excluded = [LeftOut(machine.node, machine.excluded) for machine in known if machine.excluded]
    context = request.context or min(model.max_context, DEFAULT_CONTEXT)
    for lanes in (request.lanes,) if request.lanes else LANE_CHOICES:
        sizes = Sizes(model, context, lanes)
        chosen = (
            _most(sizes, usable, request) if request.spread else _fewest(sizes, usable, request)
        )
        if chosen is not None:
            order, spans, left_out, why = chosen
            stages = tuple(
                Stage(machine.node, _role(i), span, sizes.explain(machine, span, i == 0))
                for i, (machine, span) in enumerate(zip(order, spans, strict=True))
            )
            return Plan(stages, tuple(excluded + left_out), context, lanes, why)
    least = Sizes(model, context, request.lanes or LANE_CHOICES[-1])
    raise _does_not_fit(least, usable, excluded)


class Sizes:
    """Bytes of any span of one model at one context and number of lanes."""

    def __init__(self, model: ModelCost, context: int, lanes: int) -> None:
        self.model = model
        self.context = context
        self.lanes = lanes
        self.cache_bytes_per_layer = model.kv_bytes_per_token * context * lanes
        self._sums = [0]
        for n_bytes in model.layer_bytes:
            self._sums.append(self._sums[-1] + n_bytes)

    def needed(self, span: Span, is_head: bool) -> int:
        """Memory of a stage, in bytes."""
        weights = self._sums[span.end] - self._sums[span.start]
        head = self.model.head_bytes if is_head else 0
        return weights + head + len(span) * self.cache_bytes_per_layer + WORKER_BYTES

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


def available_bytes(machine: Machine) -> int:
    """What a plan may use of a machine: free memory less the operating system's reserve."""
    reserve = max(RESERVE_MIN_BYTES, int(machine.memory_bytes * RESERVE_FRACTION))
    return max(0, machine.free_bytes - reserve)


_Choice = tuple[list[Machine], list[Span], list[LeftOut], str]


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


def _fewest(sizes: Sizes, usable: list[Machine], request: PlanRequest) -> _Choice | None:
    """The fewest machines that hold the model: every hop that is spared makes a token faster."""
    ranked = _ranked(usable, request.asked)
    by_memory = sorted(ranked, key=lambda machine: -available_bytes(machine))
    for count in range(1, min(len(ranked), sizes.model.n_layers) + 1):
        for head in ranked:
            others = [machine for machine in by_memory if machine is not head][: count - 1]
            order = [head, *sorted(others, key=ranked.index)]
            spans = _cut(sizes, order)
            if spans is not None:
                nodes = "1 node holds" if count == 1 else f"{count} nodes hold"
                why = f"{nodes} the model; a further hop would slow each token down"
                left_out = [LeftOut(m.node, f"not needed: {why}") for m in usable if m not in order]
                return order, spans, left_out, why
    return None


def _most(sizes: Sizes, usable: list[Machine], request: PlanRequest) -> _Choice | None:
    """Every machine that can hold a layer, the fastest first where there are more than layers."""
    n_layers = sizes.model.n_layers
    smallest = min(range(n_layers), key=lambda layer: sizes.model.layer_bytes[layer])
    one_layer = Span(smallest, smallest + 1)
    able = [machine for machine in usable if sizes.fits(machine, one_layer, False)]
    left_out = [
        LeftOut(
            machine.node,
            f"has {available_bytes(machine) / GIB:.2f} GiB to give, "
            f"one layer needs {sizes.needed(one_layer, False) / GIB:.2f} GiB",
        )
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
                return order, spans, left_out, why
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
