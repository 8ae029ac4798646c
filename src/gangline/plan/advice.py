"""A forecast as an answer: what fits, how fast, on what, and why the rest is left out.

`reasons.py` has the words.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gangline.plan.alternatives import Alternative, alternatives
from gangline.plan.cost import hop_seconds
from gangline.plan.engines import published_fit
from gangline.plan.forecast import (
    WORKER_BYTES,
    Arrangement,
    arrange,
    best_throughput,
)
from gangline.plan.numbers import GIB, gib, rate
from gangline.plan.question import Question
from gangline.plan.reasons import reasons
from gangline.plan.shortfall import missing

SAME = 0.005  # speeds that differ by less are the same
KWH_USD = 0.15  # of electricity
YEARS = 3  # over which a price is spread, always running
HOURS = YEARS * 365 * 24


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
        link=question.fleet.link_name,
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
    return round(hourly / (tps * 3600) * 1e6, 6)


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
    hop_ms = 1e3 * hop_seconds(0, way, cluster.engine)
    own, theirs = rate(rates.bytes_per_s / 1e9), rate(slowest / 1e9)
    if rates.bytes_per_s > slowest:
        return (
            f"would slow each token down: it reads {own} GB/s where the slowest in use reads "
            f"{theirs}, but each further hop takes {rate(hop_ms)} ms"
        )
    return (
        f"would slow each token down: it reads {own} GB/s, those in use {theirs} or more, and each "
        f"further hop takes {rate(hop_ms)} ms"
    )
