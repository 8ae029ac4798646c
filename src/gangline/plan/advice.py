"""A forecast in the words of someone who knows: what fits, how fast, what limits it, what helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from gangline.plan import catalog
from gangline.plan.alternatives import WORTH, Alternative, alternatives
from gangline.plan.engines import Engine, published_fit
from gangline.plan.fleet import Fleet
from gangline.plan.forecast import (
    WORKER_BYTES,
    Arrangement,
    Cluster,
    Wish,
    arrange,
    best_throughput,
)
from gangline.plan.shape import ModelCost

GIB = 1 << 30
SAME = 0.005  # speeds that differ by less are the same
KWH_USD = 0.15  # of electricity
YEARS = 3  # over which a price is spread, always running
HOURS = YEARS * 365 * 24

ShapeAt = Callable[[float], ModelCost]  # the model at other bits per weight


class StageAdvice(msgspec.Struct, frozen=True):
    """One stage of a plan."""

    machines: tuple[str, ...]
    layers: tuple[int, int]  # start <= layer < end
    memory_gb: float  # on each machine, in GiB
    ms_per_token: float


class LeftOutAdvice(msgspec.Struct, frozen=True):
    """A machine that the plan does not use, and why."""

    machine: str
    why: str


class RunnerUp(msgspec.Struct, frozen=True):
    """The next best plan."""

    parallel: str
    machines: tuple[str, ...]
    decode_tps: float
    why: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `gangline plan`, as `--json` prints it. None: not known."""

    model: str
    engine: str
    bits: float
    context: int
    lanes: int
    prompt: int
    link: str
    fits: bool
    parallel: str = ""
    memory_gb: tuple[float, ...] = ()  # of each machine in use, in GiB
    decode_tps: float | None = None  # of one lane
    decode_tps_error: float | None = None  # relative; four of five predictions are closer
    prefill_tps: float | None = None
    ttft_s: float | None = None
    throughput_tps: float | None = None  # of all lanes
    watts: float | None = None
    price_usd: float | None = None
    usd_per_million_tokens: float | None = None
    stages: tuple[StageAdvice, ...] = ()
    left_out: tuple[LeftOutAdvice, ...] = ()
    runner_up: RunnerUp | None = None
    alternatives: tuple[Alternative, ...] = ()
    why: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True):
    """What is asked about a fleet of the catalogue."""

    name: str
    shape: ShapeAt
    bits: float
    fleet: Fleet
    engine: Engine
    wish: Wish

    @property
    def model(self) -> ModelCost:
        return self.shape(self.bits)

    @property
    def cluster(self) -> Cluster:
        return self.fleet.cluster(self.engine, self.bits)


def advise(question: Question, given: Arrangement | None = None) -> Advice:
    """What to know about the best plan for single answers, or about a given one."""
    model, cluster, wish = question.model, question.cluster, question.wish
    plans = [given] if given is not None else arrange(model, cluster, wish)
    base = Advice(
        model=question.name,
        engine=question.engine,
        bits=question.bits,
        context=wish.context,
        lanes=wish.lanes,
        prompt=wish.prompt,
        link=question.fleet.link.id if len(question.fleet.machines) > 1 else "none",
        fits=bool(plans),
    )
    if not plans:
        return msgspec.structs.replace(base, why=tuple(missing(question)))
    best = plans[0]
    fit = published_fit().errors[question.engine]
    used = [question.fleet.machines[i] for i in best.used]
    watts = sum(one.watts_busy for one in used) if all(one.watts_busy for one in used) else None
    price = sum(one.price_usd for one in used) if all(one.price_usd for one in used) else None
    return msgspec.structs.replace(
        base,
        parallel=best.parallel,
        memory_gb=tuple(
            round(stage.n_bytes / GIB, 2) for stage in best.stages for _ in stage.members
        ),
        decode_tps=round(best.decode_tps, 3),
        decode_tps_error=fit.decode if len(best.used) == 1 else fit.cluster,
        prefill_tps=round(wish.prompt / best.prompt_s, 2),
        ttft_s=round(best.prompt_s, 4),
        throughput_tps=round(best.lanes_tps, 3),
        watts=watts,
        price_usd=price,
        usd_per_million_tokens=running_cost(best.lanes_tps, watts, price),
        stages=stages_of(best, [one.name for one in cluster.members]),
        left_out=tuple(left_out(question, best)),
        runner_up=runner_up(question, plans),
        alternatives=alternatives(model, cluster, wish, best, question.engine),
        why=tuple(reasons(question, plans)),
    )


def stages_of(best: Arrangement, names: Sequence[str]) -> tuple[StageAdvice, ...]:
    """The stages with the names of their machines."""
    return tuple(
        StageAdvice(
            machines=tuple(names[i] for i in stage.members),
            layers=(stage.start, stage.end),
            memory_gb=round(stage.n_bytes / GIB, 2),
            ms_per_token=round(stage.seconds * 1e3, 3),
        )
        for stage in best.stages
    )


def running_cost(tps: float, watts: float | None, price: float | None) -> float | None:
    """USD for a million tokens at full load: electricity, and the price spread over its years."""
    if watts is None or price is None:
        return None
    hourly = watts / 1000 * KWH_USD + price / HOURS
    return round(hourly / (tps * 3600) * 1e6, 3)


def runner_up(question: Question, plans: Sequence[Arrangement]) -> RunnerUp | None:
    """The next best plan: of another kind, or without one of the machines."""
    best = plans[0]
    found = [(plan, question.fleet) for plan in plans[1:]]
    for index in {question.fleet.machines[i].id: i for i in best.used}.values():
        fleet = question.fleet.without(index)
        spare = any(
            fleet.machines[i].id == question.fleet.machines[index].id
            for i in range(len(fleet.machines))
            if len(best.used) <= len(fleet.machines)
        )
        if fleet.machines and not (spare and len(best.used) < len(question.fleet.machines)):
            other = msgspec.structs.replace(question, fleet=fleet)
            found += [(plan, fleet) for plan in arrange(other.model, other.cluster, other.wish)]
    if not found:
        many = best_throughput(question.model, question.cluster, question.wish)
        if many is None or many.used == best.used:
            return None
        found = [(many, question.fleet)]
    second, fleet = min(found, key=lambda one: one[0].token_s)
    change = second.decode_tps / best.decode_tps - 1
    words = "as fast" if abs(change) < SAME else f"{abs(change):.0%} "
    if words != "as fast":
        words += "fewer tokens a second" if change < 0 else "more, but not what was asked for"
    return RunnerUp(
        parallel=second.parallel,
        machines=tuple(fleet.machines[i].id for i in second.used),
        decode_tps=round(second.decode_tps, 3),
        why=words,
    )


def left_out(question: Question, best: Arrangement) -> list[LeftOutAdvice]:
    """Why each machine that is not used would not help."""
    cluster, model, wish = question.cluster, question.model, question.wish
    found = []
    for i, member in enumerate(cluster.members):
        if i in best.used:
            continue
        sized = min(layer.weight_bytes for layer in model.layer_costs)
        room = member.capacity_bytes - WORKER_BYTES
        if room < sized:
            why = f"has {gib(member.capacity_bytes)} to give, one layer takes {gib(sized)}"
        else:
            why = slower_with(question, best, i)
        found.append(LeftOutAdvice(member.name, why))
    assert wish.lanes >= 1, "a wish has lanes"
    return found


def slower_with(question: Question, best: Arrangement, index: int) -> str:
    """What giving one layer to a machine that is left out would cost."""
    cluster = question.cluster
    rates = cluster.members[index].rates
    slowest = min(cluster.members[i].rates.bytes_per_s for i in best.used)
    way = cluster.link(best.used[-1], index)
    hop_ms = 1e-3 * (way.rtt_us / 2 + way.per_message_us + cluster.engine.hop_us)
    speed = f"reads {rates.bytes_per_s / 1e9:.3g} GB/s, those in use {slowest / 1e9:.3g} or more"
    return f"would slow each token down: {speed}, and each further hop takes {hop_ms:.2g} ms"


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
