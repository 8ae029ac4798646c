"""Other ways to use the same machines, with what they would give; pure.

A plan is chosen for the speed of one answer. What serves prompts or many lanes better, or needs
what an engine does not do, stands beside it with its numbers.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gangline.plan.forecast import Arrangement, Cluster, Wish, arrange, best_throughput
from gangline.plan.numbers import rate
from gangline.plan.shape import ModelCost

WORTH = 1.1  # an alternative is named if it is better by so much in what it is for

Kind = Literal["prefill elsewhere", "replicas", "throughput", "shared matrices"]


class Alternative(msgspec.Struct, frozen=True):
    """A way to use the machines that is better than the chosen plan in one thing."""

    kind: Kind
    machines: tuple[str, ...]
    ttft_s: float  # of a prompt that waits for no other
    decode_tps: float  # of one lane
    throughput_tps: float  # of all lanes
    why: str


def alternatives(
    model: ModelCost, cluster: Cluster, wish: Wish, best: Arrangement, engine: str
) -> tuple[Alternative, ...]:
    """All that are worth their trouble beside `best`."""
    found = (
        prefill_elsewhere(model, cluster, wish, best),
        replicas(model, cluster, wish, best),
        for_throughput(model, cluster, wish, best),
        shared_matrices(model, cluster, wish, best, engine),
    )
    return tuple(one for one in found if one is not None)


def prefill_elsewhere(
    model: ModelCost, cluster: Cluster, wish: Wish, best: Arrangement
) -> Alternative | None:
    """Prompts are read on a machine that is free, and their cache sent to those that answer.

    The first token comes when all of the cache is there: nothing is sent while the prompt is read.
    """
    cache_bits = 8 * sum(layer.cache_bytes(wish.prompt) for layer in model.layer_costs)
    timed = []
    for i in set(range(len(cluster.members))) - set(best.used):
        alone = _alone(model, cluster, i, wish)
        if alone is not None:
            link = cluster.link(i, best.used[0])
            sending_s = cache_bits / (link.gbps * 1e9) + link.rtt_us / 2 * 1e-6
            timed.append((alone.prompt_s + sending_s, sending_s, i))
    if not timed or min(timed)[0] * WORTH > best.prompt_s:
        return None
    ttft_s, sending_s, reader = min(timed)
    names = [cluster.members[i].name for i in (reader, *best.used)]
    answering = names[1] if len(best.used) == 1 else f"the {len(best.used)} machines of the plan"
    return Alternative(
        kind="prefill elsewhere",
        machines=tuple(names),
        ttft_s=round(ttft_s, 4),
        decode_tps=round(best.decode_tps, 3),
        throughput_tps=round(best.lanes_tps, 3),
        why=f"Reading prompts on {names[0]} and answering on {answering} would give the first "
        f"token after {rate(ttft_s)} s instead of {rate(best.prompt_s)} s, of which sending the "
        f"cache takes {rate(sending_s)} s; Gangline does not do that yet.",
    )


def replicas(
    model: ModelCost, cluster: Cluster, wish: Wish, best: Arrangement
) -> Alternative | None:
    """Each machine that can holds all of the model and has its share of the lanes."""
    holding = [i for i in range(len(cluster.members)) if _alone(model, cluster, i, wish)]
    copies = []
    n = min(len(holding), wish.lanes)
    fastest = sorted(holding, key=lambda i: -cluster.members[i].rates.bytes_per_s)[:n]
    for rank, i in enumerate(fastest):
        lanes = wish.lanes // n + (rank < wish.lanes % n)
        copy = _alone(model, cluster, i, msgspec.structs.replace(wish, lanes=lanes))
        if copy is not None:
            copies.append(copy)
    together = sum(copy.lanes_tps for copy in copies)
    if n < 2 or together < WORTH * best.lanes_tps:
        return None
    return Alternative(
        kind="replicas",
        machines=tuple(cluster.members[i].name for i in fastest),
        ttft_s=round(max(copy.prompt_s for copy in copies), 4),
        decode_tps=round(min(copy.decode_tps for copy in copies), 3),
        throughput_tps=round(together, 3),
        why=f"{n} copies of the model would serve {rate(together)} tokens/s to {wish.lanes} lanes "
        f"together instead of {rate(best.lanes_tps)}.",
    )


def for_throughput(
    model: ModelCost, cluster: Cluster, wish: Wish, best: Arrangement
) -> Alternative | None:
    """The plan of one copy that serves all lanes together best."""
    if wish.lanes == 1:
        return None
    other = best_throughput(model, cluster, wish)
    if other is None or other.lanes_tps < WORTH * best.lanes_tps:
        return None
    return _of(
        "throughput",
        cluster,
        other,
        f"For throughput a {other.parallel} over {len(other.used)} machines is better: "
        f"{rate(other.lanes_tps)} tokens/s for {wish.lanes} lanes together.",
    )


def shared_matrices(
    model: ModelCost, cluster: Cluster, wish: Wish, best: Arrangement, engine: str
) -> Alternative | None:
    """What tensor-parallel groups, alone or in a pipeline, would gain if the engine had them."""
    if cluster.engine.shares or wish.parallel != "auto":
        return None
    able = msgspec.structs.replace(cluster.engine, shares=True)
    plans = arrange(model, msgspec.structs.replace(cluster, engine=able), wish)
    if not plans or plans[0].decode_tps < WORTH * best.decode_tps:
        return None
    gain = plans[0].decode_tps / best.decode_tps - 1
    return _of(
        "shared matrices",
        cluster,
        plans[0],
        f"A {plans[0].parallel} plan over {len(plans[0].used)} machines would answer {gain:.0%} "
        f"faster; {engine} does not share matrices among machines.",
    )


def _alone(model: ModelCost, cluster: Cluster, index: int, wish: Wish) -> Arrangement | None:
    """The whole model on one machine; None where it does not fit."""
    one = Cluster((cluster.members[index],), cluster.link, cluster.engine)
    plans = arrange(model, one, msgspec.structs.replace(wish, parallel="auto"))
    return plans[0] if plans else None


def _of(kind: Kind, cluster: Cluster, plan: Arrangement, why: str) -> Alternative:
    return Alternative(
        kind=kind,
        machines=tuple(cluster.members[i].name for i in plan.used),
        ttft_s=round(plan.prompt_s, 4),
        decode_tps=round(plan.decode_tps, 3),
        throughput_tps=round(plan.lanes_tps, 3),
        why=why,
    )
