"""Why a plan is as it is, in words: what fits, what limits it, what would help, what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from gangline.plan import catalog
from gangline.plan.alternatives import WORTH
from gangline.plan.engines import published_fit
from gangline.plan.fleet import Fleet
from gangline.plan.forecast import WORKER_BYTES, Arrangement, Wish, arrange
from gangline.plan.question import Question

GIB = 1 << 30


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
    found.append(_limit(question, best))
    found += _help(question, best)
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
        each = ", ".join(
            sorted({f"{members[i].rates.bytes_per_s / 1e9:.3g} GB/s" for i in best.used})
        )
        found.append(
            f"The memory of {n} machines adds up, their speed does not: a token passes one after "
            f"the other, so it is read at the {each} of one machine, not at the sum of all."
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


def _limit(question: Question, best: Arrangement) -> str:
    total = best.token_s
    shares = {
        "reading": sum(stage.reading_s for stage in best.stages) / total,
        "attending": sum(stage.attending_s for stage in best.stages) / total,
        "launching": sum(stage.launching_s for stage in best.stages) / total,
        "network": (best.hops_s + sum(stage.syncing_s for stage in best.stages)) / total,
    }
    most = max(shares, key=lambda name: shares[name])
    text = {
        "reading": "memory bandwidth: reading the weights takes {:.0%} of a token's time",
        "attending": "the context: reading and attending to it takes {:.0%} of a token's time",
        "launching": "the number of kernels, not their size: starting them takes {:.0%} of a "
        "token's time, so faster memory would help little",
        "network": "the link: the network takes {:.0%} of a token's time",
    }[most]
    return f"What limits it is {text.format(shares[most])}."


def _help(question: Question, best: Arrangement) -> list[str]:
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
    if sharing and len(question.fleet.machines) <= 8:
        doubled = msgspec.structs.replace(
            question.fleet, machines=question.fleet.machines + question.fleet.machines
        )
        consider(msgspec.structs.replace(question, fleet=doubled), "Twice as many machines")
    if found:
        return ["What would help most: " + max(found)[1]]
    network_s = best.hops_s + sum(stage.syncing_s for stage in best.stages)
    if network_s > best.token_s / 2:
        return ["What would help most is a link that answers sooner; more machines would not."]
    return ["More machines of the kind would not make one answer faster, faster memory would."]


def missing(question: Question) -> list[str]:
    """What does not fit, and what would be enough."""
    model, wish, machines = question.model, question.wish, question.fleet.machines
    cache = wish.lanes * sum(layer.cache_bytes(wish.context) for layer in model.layer_costs)
    needed = model.weight_bytes + cache + WORKER_BYTES
    have = sum(one.usable_bytes for one in machines)
    n = len(machines)
    who = f"the {n} machines have" if n > 1 else f"{machines[0].name} has"
    found = [
        f"It does not fit: it needs {gib(needed)} ({gib(model.weight_bytes)} of weights at "
        f"{question.bits:g} bits, {gib(cache)} of cache), {who} {gib(have)} that models can have."
    ]
    if have >= needed:
        found[0] += " Together that would be enough, but the pieces do not fit each machine."
    for bits in (4.5, 3.5, 2.5):
        if bits < question.bits:
            other = msgspec.structs.replace(question, bits=bits)
            if arrange(other.model, other.cluster, wish):
                size = gib(other.model.weight_bytes + cache)
                found.append(f"At {bits:g} bits per weight it needs {size} and fits.")
                break
    kind = max(machines, key=lambda one: one.usable_bytes)
    for count in range(n + 1, 65):
        fleet = Fleet((kind,) * count, question.fleet.link)
        enough = needed + (count - 1) * WORKER_BYTES <= count * kind.usable_bytes
        if enough and arrange(
            model, fleet.cluster(question.engine, question.bits), _pipeline(wish)
        ):
            found.append(f'{count} of {kind.name} would be enough (`--on "{kind.id} x{count}"`).')
            break
    alone = [one for one in catalog.machines() if one.usable_bytes >= needed * 1.01]
    if alone:
        smallest = min(alone, key=lambda one: (one.price_usd or math.inf, one.usable_bytes))
        found.append(f"One {smallest.name} would hold it (`--on {smallest.id}`).")
    return found


def _pipeline(wish: Wish) -> Wish:
    return msgspec.structs.replace(wish, parallel="pipeline")


def gib(n_bytes: float) -> str:
    """`1.5 GiB`, `212 GiB`, `8 MiB`."""
    if n_bytes >= 100 * GIB:
        return f"{n_bytes / GIB:.0f} GiB"
    if n_bytes >= GIB / 10:
        return f"{n_bytes / GIB:.1f} GiB"
    return f"{n_bytes / (1 << 20):.0f} MiB"


def rate(value: float) -> str:
    """`410`, `21.4`, `0.31`."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
