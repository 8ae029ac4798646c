"""Why a plan is as it is, in words: what fits, what limits it, what would help."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gangline.plan import catalog
from gangline.plan.alternatives import WORTH
from gangline.plan.engines import class_of, published_fit
from gangline.plan.forecast import Arrangement, arrange
from gangline.plan.numbers import gib, rate
from gangline.plan.question import Question


def reasons(question: Question, plans: Sequence[Arrangement]) -> list[str]:
    """What fits, how the work is divided, what limits it, what would help, how sure this is."""
    best = plans[0]
    model, wish = question.model, question.wish
    cache = wish.lanes * sum(layer.cache_bytes(wish.context) for layer in model.layer_costs)
    machines = question.fleet.machines
    have = sum(one.usable_bytes for one in machines)
    lanes = "1 lane" if wish.lanes == 1 else f"{wish.lanes} lanes"
    found = [
        f"It fits: {gib(model.weight_bytes)} of weights at {question.bits:g} bits and {gib(cache)} "
        f"of cache for {lanes} of {wish.context} tokens, in {gib(have)} that models can have."
    ]
    found += _division(question, best)
    limit = _limit(best)
    found.append(f"What limits it is {_LIMITS[limit[0]].format(limit[1])}.")
    found += _help(question, best, limit[0])
    found += _unmeasured(question, best)
    fit = published_fit().errors[question.engine]
    error = fit.decode if len(best.used) == 1 else fit.cluster
    base = "what was measured of the machines" if question.fleet.measured else "specifications"
    found.append(
        f"Predicted from {base}: four of five published measurements lie within {error:.0%} of "
        "such a prediction."
    )
    return found


def _division(question: Question, best: Arrangement) -> list[str]:
    n, stages = len(best.used), len(best.stages)
    if n == 1:
        alone = len(question.fleet.machines) == 1
        return [] if alone else ["One machine holds it, and every hop would slow a token down."]
    found = []
    if best.parallel == "pipeline":
        members = question.cluster.members
        each_s = sorted(members[i].rates.bytes_per_s / 1e9 for i in best.used)
        speeds = list(dict.fromkeys(map(rate, each_s)))
        each = f"{speeds[0]} GB/s of one machine"
        if len(speeds) > 1:
            each = f"{', '.join(speeds[:-1])} or {speeds[-1]} GB/s of the machine that it is in"
        found.append(
            f"The memory of {n} machines adds up, their speed does not: a token passes one after "
            f"the other, so it is read at the {each}, not at the sum of all."
        )
        machines = question.fleet.machines
        if len({one.id for one in machines}) == 1 and not question.fleet.measured:
            size, count = machines[0].memory_gb, len(machines)
            found.append(
                f"So {count} x {size:g} GB hold what one machine of {count * size:g} GB holds, "
                "less what each keeps for itself, and answer no faster than one of them would."
            )
    else:
        found.append(
            f"{n} machines read their share of each matrix at the same time, and add up their "
            f"results {2 * question.model.n_layers} times a token."
        )
    if not question.cluster.engine.shares and best.parallel != "pipeline":
        found.append(f"{question.engine} cannot do that today: this is what it would give.")
    if stages > 1 and question.wish.lanes < stages:
        found.append(
            f"With one conversation only one of {stages} stages works at a time; "
            f"{stages} or more keep all of them busy."
        )
    return found


_LIMITS = {
    "reading": "memory bandwidth: reading the weights takes {:.0%} of a token's time",
    "attending": "the context: reading and attending to it takes {:.0%} of a token's time",
    "launching": "the number of kernels, not their size: starting them takes {:.0%} of a "
    "token's time, so faster memory would help little",
    "network": "the link: the network takes {:.0%} of a token's time",
}
# What would help where nothing that can be bought besides would.
_OTHERWISE = {
    "reading": "More machines of the kind would not make one answer faster, faster memory would.",
    "attending": "More machines of the kind would not make one answer faster; a shorter context "
    "or faster memory would.",
    "launching": "More machines of the kind would not make one answer faster; a model of fewer "
    "layers or experts would, or several conversations at a time, which share that cost.",
    "network": "What would help most is a link that answers sooner; more machines would not.",
}


def _limit(best: Arrangement) -> tuple[str, float]:
    """What takes most of a token's time, a key of _LIMITS, and the share that it takes."""
    shares = {
        "reading": sum(stage.reading_s for stage in best.stages) / best.token_s,
        "attending": sum(stage.attending_s for stage in best.stages) / best.token_s,
        "launching": sum(stage.launching_s for stage in best.stages) / best.token_s,
        "network": (best.hops_s + sum(stage.syncing_s for stage in best.stages)) / best.token_s,
    }
    return max(shares.items(), key=lambda item: item[1])


def _unmeasured(question: Question, best: Arrangement) -> list[str]:
    """A warning where nobody published a speed of the engine on such hardware."""
    on = published_fit().engines[question.engine].measured_on
    if question.fleet.measured or not on:
        return []
    machines = {question.fleet.machines[i] for i in best.used}
    unknown = sorted({one.chip for one in machines if class_of(one.chip, one.kind) not in on})
    if not unknown:
        return []
    return [
        f"No published measurement of {question.engine} on {', '.join(unknown)} is among those "
        "that this rests on: the engine may be slower there, or not run at all."
    ]


def _help(question: Question, best: Arrangement, limit: str) -> list[str]:
    """The change that would make answers fastest, of those that are worth it."""
    found: list[tuple[float, str]] = []

    def consider(other: Question, words: str) -> None:
        plans = arrange(other.model, other.cluster, other.wish)
        if plans and plans[0].decode_tps > WORTH * best.decode_tps:
            faster = plans[0].decode_tps
            found.append((faster, f"{words} would give {rate(faster)} tokens/s."))

    if question.bits > 5:
        fewer = msgspec.structs.replace(question, bits=4.5)
        consider(fewer, "4 bits per weight instead of " + f"{question.bits:g}")
    if len(best.used) > 1:
        for link in catalog.links():
            quicker = link.gbps >= question.fleet.link.gbps and link.rtt_us < 100
            ports = {port for i in best.used for port in question.fleet.machines[i].ports}
            if quicker and link.id in ports and link.id != question.fleet.link.id:
                fleet = msgspec.structs.replace(question.fleet, link=link)
                consider(msgspec.structs.replace(question, fleet=fleet), f"{link.name}")
    sharing = question.cluster.engine.shares and question.wish.parallel == "auto"
    if sharing and len(question.fleet.machines) <= 8 and not question.fleet.ways:
        doubled = msgspec.structs.replace(
            question.fleet, machines=question.fleet.machines + question.fleet.machines
        )
        consider(msgspec.structs.replace(question, fleet=doubled), "Twice as many machines")
    if found:
        return ["What would help most: " + max(found)[1]]
    return [_OTHERWISE[limit]]
