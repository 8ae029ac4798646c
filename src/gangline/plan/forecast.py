"""What a model will do on given machines: the best plan, its speed, and what limits it.

Plans are pipelines of devices, where a device is one machine or a group that shares every matrix
(tensor-parallel). All groupings are searched; the one whose single answer is fastest is the plan.
Knows neither where figures come from nor how they are shown: `advice.py` puts them into words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from gangline.plan.bottleneck import least_bottleneck
from gangline.plan.catalog import LinkType
from gangline.plan.cost import (
    Step,
    Work,
    all_reduce_seconds,
    head_work,
    hidden_bytes,
    hop_seconds,
    layer_work,
    pipelined_seconds,
    prompt_steps,
    seconds,
    window_seconds,
    wire_seconds,
)
from gangline.plan.device import Device, Route
from gangline.plan.engines import EngineFit, Rates
from gangline.plan.search import least_latency
from gangline.plan.shape import LayerCost, ModelCost

Parallel = Literal["auto", "pipeline", "tensor"]
GROUP_SIZES = (1, 2, 4, 8, 16)  # machines that share a matrix: heads divide by these
WORKER_BYTES = (
    160 << 20
)  # interpreter, libraries and step buffers of a worker, measured 90..140 MiB


class Member(msgspec.Struct, frozen=True):
    """A machine as a forecast sees it."""

    name: str
    kind: str  # equal for machines that are the same: a group shares work among these
    capacity_bytes: int  # for weights, caches and a worker's own needs
    rates: Rates


class Cluster(msgspec.Struct, frozen=True):
    """Machines, the way from each to each, and what the engine spends on using several."""

    members: tuple[Member, ...]
    link: Callable[[int, int], LinkType]
    engine: EngineFit


class Wish(msgspec.Struct, frozen=True):
    """What is asked of the machines."""

    context: int  # tokens of memory for each lane
    lanes: int = 1
    prompt: int = 512  # tokens of the prompt; answers are timed behind it
    parallel: Parallel = "auto"


class StageForecast(msgspec.Struct, frozen=True):
    """A stage: the machines that run layers [start, end), and what it costs them."""

    members: tuple[int, ...]
    start: int
    end: int
    n_bytes: int  # on each machine
    seconds: float  # of one token
    reading_s: float  # of that: weights
    attending_s: float  # caches
    launching_s: float  # kernels, whatever their size
    syncing_s: float  # all-reduces


class Arrangement(msgspec.Struct, frozen=True):
    """A plan and its times."""

    stages: tuple[StageForecast, ...]
    token_s: float  # of one lane, all the way around
    hops_s: float  # of that
    prompt_s: float
    lanes_tps: float  # all lanes together
    lanes: int

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(member for stage in self.stages for member in stage.members)

    @property
    def decode_tps(self) -> float:
        return 1 / self.token_s

    @property
    def parallel(self) -> str:
        shares = max(len(stage.members) for stage in self.stages) > 1
        if len(self.stages) > 1:
            return "pipeline of tensor groups" if shares else "pipeline"
        return "tensor" if shares else "single"


Groups = tuple[tuple[int, ...], ...]


def arrange(model: ModelCost, cluster: Cluster, wish: Wish) -> list[Arrangement]:
    """The best plan of each grouping, the fastest for one answer first; empty if nothing fits."""
    found = []
    for groups in groupings(cluster, wish.parallel):
        devices, hops = devices_of(model, cluster, groups, wish)
        route = least_latency(devices, hops)
        if route is not None:
            found.append(timed(model, cluster, groups, route, wish))
    return sorted(found, key=lambda one: one.token_s)


def best_throughput(model: ModelCost, cluster: Cluster, wish: Wish) -> Arrangement | None:
    """The plan with the most tokens per second over all lanes."""
    found = arrange(model, cluster, wish)
    for groups in groupings(cluster, wish.parallel):
        devices, _ = devices_of(model, cluster, groups, wish)
        route = least_bottleneck(devices)
        if route is not None:
            found.append(timed(model, cluster, groups, route, wish))
    return max(found, key=lambda one: one.lanes_tps, default=None)


def arrange_as(
    model: ModelCost, cluster: Cluster, spans: Sequence[tuple[int, int]], wish: Wish
) -> Arrangement:
    """The times of a given plan: the first machines of the cluster, in order, run these spans."""
    singles: Groups = tuple((i,) for i in range(len(spans)))
    route = Route(tuple(range(len(spans))), tuple(end for _, end in spans), 0.0)
    return timed(model, cluster, singles, route, wish)


def groupings(cluster: Cluster, parallel: Parallel) -> list[Groups]:
    """Ways to see machines as devices: each alone, or like ones in groups that share matrices."""
    singles: Groups = tuple((i,) for i in range(len(cluster.members)))
    one_by_one = parallel == "auto" and not cluster.engine.pipelines
    found: list[Groups] = [(single,) for single in singles] if one_by_one else []
    if parallel == "pipeline" or (parallel == "auto" and not cluster.engine.shares):
        return [singles]
    by_kind: dict[str, list[int]] = {}
    for i, member in enumerate(cluster.members):
        by_kind.setdefault(member.kind, []).append(i)
    if parallel == "auto" and not one_by_one:
        found.append(singles)
    for size in GROUP_SIZES[1:]:
        groups: list[tuple[int, ...]] = []
        rest: list[tuple[int, ...]] = []
        for alike in by_kind.values():
            full = len(alike) // size * size
            groups += [tuple(alike[i : i + size]) for i in range(0, full, size)]
            rest += [(i,) for i in alike[full:]]
        if one_by_one:
            found += [(group,) for group in groups]
        elif groups:
            found.append(tuple(groups + (rest if parallel == "auto" else [])))
    return found


def devices_of(
    model: ModelCost, cluster: Cluster, groups: Groups, wish: Wish
) -> tuple[list[Device], list[list[float]]]:
    """Groups in the terms of the search, for one lane that decodes behind the prompt."""
    step = Step(1, 1, wish.prompt)
    devices = [_device(model, cluster, group, wish, step) for group in groups]
    hop_bytes = hidden_bytes(model, step)
    hops = [
        [
            hop_seconds(hop_bytes, cluster.link(a[0], b[0]), cluster.engine) if a != b else 0.0
            for b in groups
        ]
        for a in groups
    ]
    return devices, hops


def _device(
    model: ModelCost, cluster: Cluster, group: tuple[int, ...], wish: Wish, step: Step
) -> Device:
    n = len(group)
    costs = model.layer_costs
    kinds = {layer: _layer_seconds(layer, model, cluster, group, step) for layer in set(costs)}
    sizes = {layer: layer_bytes(layer, n, wish) for layer in set(costs)}
    capacity = min(cluster.members[i].capacity_bytes for i in group) - WORKER_BYTES
    return Device(
        layer_s=[kinds[layer] for layer in costs],
        layer_bytes=[sizes[layer] for layer in costs],
        head_s=_slowest(head_work(model, step), 1, cluster, group),
        head_bytes=math.ceil(model.head_bytes / n),
        capacity=max(0, capacity),
    )


def layer_bytes(layer: LayerCost, n: int, wish: Wish) -> int:
    """What a layer takes on each of `n` machines that share it."""
    cache = wish.lanes * layer.cache_bytes(wish.context) / min(n, layer.cache_parts)
    return math.ceil(layer.weight_bytes / n + cache)


def _slowest(work: Work, cache_parts: int, cluster: Cluster, group: tuple[int, ...]) -> float:
    shared = work.shared_by(len(group), cache_parts) if len(group) > 1 else work
    return max(seconds(shared, cluster.members[i].rates) for i in group)


def _layer_seconds(
    layer: LayerCost, model: ModelCost, cluster: Cluster, group: tuple[int, ...], step: Step
) -> float:
    alone = _slowest(layer_work(layer, step), layer.cache_parts, cluster, group)
    return alone + _sync_seconds(model, cluster, group, step)


def _sync_seconds(model: ModelCost, cluster: Cluster, group: tuple[int, ...], step: Step) -> float:
    """All-reduces of one layer; the slowest link of the group sets the pace."""
    n = len(group)
    if n == 1:
        return 0.0
    n_bytes = hidden_bytes(model, step)
    links = {cluster.link(a, b) for a in group for b in group if a != b}
    one = max(all_reduce_seconds(n_bytes, n, link, cluster.engine) for link in links)
    return cluster.engine.syncs_per_layer * one


def timed(
    model: ModelCost, cluster: Cluster, groups: Groups, route: Route, wish: Wish
) -> Arrangement:
    """All times of a route."""
    token = Step(1, 1, wish.prompt)
    stages = tuple(
        _stage(model, cluster, groups[device], (start, end), i == 0, token, wish)
        for i, (device, start, end) in enumerate(
            zip(route.order, route.starts, route.ends, strict=True)
        )
    )
    hops_s = sum(_hops(model, cluster, stages, token))
    return Arrangement(
        stages=stages,
        token_s=sum(stage.seconds for stage in stages) + hops_s,
        hops_s=hops_s,
        prompt_s=_prompt_seconds(model, cluster, stages, wish),
        lanes_tps=_lanes_tps(model, cluster, stages, wish),
        lanes=wish.lanes,
    )


def _stage(
    model: ModelCost,
    cluster: Cluster,
    group: tuple[int, ...],
    span: tuple[int, int],
    head: bool,
    step: Step,
    wish: Wish,
) -> StageForecast:
    layers = model.layer_costs[span[0] : span[1]]
    n = len(group)
    slowest = max((cluster.members[i].rates for i in group), key=lambda r: 1 / r.bytes_per_s)
    work = head_work(model, step).shared_by(n, 1) if head else Work()
    for layer, count in Counter(layers).items():
        one = layer_work(layer, step).shared_by(n, layer.cache_parts)
        work = work + one.times(count)
    reading = (
        work.shared_bytes / slowest.bytes_per_s + work.expert_bytes / slowest.expert_bytes_per_s
    )
    syncing = len(layers) * _sync_seconds(model, cluster, group, step)
    total = _stage_seconds(model, cluster, group, span, head, step)
    launching = work.operations * slowest.operation_s
    n_bytes = sum(layer_bytes(layer, n, wish) for layer in layers) + WORKER_BYTES
    return StageForecast(
        members=group,
        start=span[0],
        end=span[1],
        n_bytes=n_bytes + (math.ceil(model.head_bytes / n) if head else 0),
        seconds=total,
        reading_s=reading,
        attending_s=max(0.0, total - reading - syncing - launching),
        launching_s=launching,
        syncing_s=syncing,
    )


def _stage_seconds(
    model: ModelCost,
    cluster: Cluster,
    group: tuple[int, ...],
    span: tuple[int, int],
    head: bool,
    step: Step,
) -> float:
    total = _slowest(head_work(model, step), 1, cluster, group) if head else 0.0
    for layer, count in Counter(model.layer_costs[span[0] : span[1]]).items():
        total += count * _layer_seconds(layer, model, cluster, group, step)
    return total


def _messages(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], step: Step
) -> list[tuple[float, LinkType]]:
    """Bytes and link of each hop: from each stage to the next, the last one's to the head."""
    if len(stages) == 1:
        return []
    last = Step(1, step.lanes, step.depth)  # only the last rows go home
    sizes = [hidden_bytes(model, step)] * (len(stages) - 1) + [hidden_bytes(model, last)]
    ring = pairwise((*stages, stages[0]))
    links = [cluster.link(a.members[0], b.members[0]) for a, b in ring]
    return list(zip(sizes, links, strict=True))


def _hops(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], step: Step
) -> list[float]:
    """Seconds of each hop."""
    messages = _messages(model, cluster, stages, step)
    return [hop_seconds(n_bytes, link, cluster.engine) for n_bytes, link in messages]


def _wires(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], step: Step
) -> list[float]:
    """Of each hop, the seconds for which its bytes keep the link busy."""
    messages = _messages(model, cluster, stages, step)
    return [wire_seconds(n_bytes, link) for n_bytes, link in messages]


def _times(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], step: Step
) -> list[float]:
    return [
        _stage_seconds(model, cluster, stage.members, (stage.start, stage.end), i == 0, step)
        for i, stage in enumerate(stages)
    ]


def _prompt_times(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], step: Step
) -> list[float]:
    """Of a step of a prompt, whose last token alone needs the last layer's result."""
    times = _times(model, cluster, stages, step)
    if cluster.engine.skips_unwanted:
        last, group = model.layer_costs[-1], stages[-1].members
        whole = _layer_seconds(last, model, cluster, group, step)
        times[-1] -= whole - _layer_seconds(last.without_mlp(), model, cluster, group, step)
    return times


def _prompt_seconds(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], wish: Wish
) -> float:
    """Until the first token; stages of ours work on different parts of the prompt at a time.

    Nobody asked anything for a while before: the first step finds the links' windows closed.
    """
    steps = prompt_steps(wish.prompt, 0, cluster.engine.prompt_rows)
    times = [_prompt_times(model, cluster, stages, step) for step in steps]
    hops = [_hops(model, cluster, stages, step) for step in steps]
    for i, (a, b) in enumerate(pairwise(stages)):
        way = cluster.link(a.members[0], b.members[0])
        hops[0][i] += window_seconds(hidden_bytes(model, steps[0]), way)
    if not cluster.engine.overlaps_prompt and not _is_bus(cluster, stages):
        return sum(map(sum, times)) + sum(map(sum, hops))
    wires = [_wires(model, cluster, stages, step) for step in steps]
    return pipelined_seconds(times, hops, wires)


def _is_bus(cluster: Cluster, stages: Sequence[StageForecast]) -> bool:
    kinds = {cluster.link(a.members[0], b.members[0]).kind for a, b in pairwise(stages)}
    return kinds == {"bus"}


def _lanes_tps(
    model: ModelCost, cluster: Cluster, stages: Sequence[StageForecast], wish: Wish
) -> float:
    """All lanes together: dealt over as many steps in flight as there are stages.

    A step comes around after the ring's time, or after all steps in flight have passed the slowest
    stage or link, whichever is later.
    """
    best = 0.0
    for in_flight in range(1, min(len(stages), wish.lanes) + 1):
        rows = math.ceil(wish.lanes / in_flight)
        step = Step(1, rows, wish.prompt)
        times = _times(model, cluster, stages, step)
        hops = _hops(model, cluster, stages, step)
        wires = _wires(model, cluster, stages, step)
        around = max(sum(times) + sum(hops), in_flight * max(times + wires))
        best = max(best, wish.lanes / around)
    return best
