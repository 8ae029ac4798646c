"""What to say of a model that does not fit: what is missing, and what would be enough."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gangline.plan import catalog
from gangline.plan.catalog import MachineType
from gangline.plan.fleet import MAX_MACHINES, Fleet, usual_link
from gangline.plan.forecast import WORKER_BYTES, Wish, arrange
from gangline.plan.numbers import GIB, gib, rate
from gangline.plan.question import Question

READING_TPS = 5.0  # tokens/s at which most people read: what is slower is no answer to many
FEWER_BITS = (4.5, 3.5, 2.5)
MACOS_KEEPS = 8 * GIB  # what a Mac should keep for itself when its limit is raised, an estimate


def missing(question: Question) -> list[str]:
    """What does not fit, and what would be enough."""
    model, machines = question.model, question.fleet.machines
    cache = _cache_bytes(question, question.wish)
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
    return found + _as_it_is(question, needed) + _less(question) + _other_machines(question, needed)


def _cache_bytes(question: Question, wish: Wish) -> int:
    return wish.lanes * sum(layer.cache_bytes(wish.context) for layer in question.model.layer_costs)


def _as_it_is(question: Question, needed: float) -> list[str]:
    """What the same machines could do at some cost that no plan here counts with."""
    machines = question.fleet.machines
    found = []
    if all(one.vendor == "Apple" for one in machines):
        room = sum(one.memory_gb * GIB - MACOS_KEEPS for one in machines)
        share = machines[0].usable_bytes / (machines[0].memory_gb * GIB)
        words = f"macOS lets GPUs have about {share:.0%} of memory"
        if needed <= room and not question.fleet.measured:
            found.append(
                f"{words}; raised with `sudo sysctl iogpu.wired_limit_mb=…`, it would fit."
            )
    if any(one.kind == "gpu" for one in machines):
        found.append(
            "What does not fit on cards can run from their computer's memory (offload), as a rule "
            "several times slower; that is not predicted here."
        )
    return found


def _less(question: Question) -> list[str]:
    """Fewer bits, lanes or tokens of context that fit: the first of each."""
    model, wish = question.model, question.wish
    found = []
    for bits in FEWER_BITS:
        if bits < question.bits:
            other = msgspec.structs.replace(question, bits=bits)
            if arrange(other.model, other.cluster, wish):
                size = gib(other.model.weight_bytes + _cache_bytes(question, wish))
                found.append(f"At {bits:g} bits per weight it needs {size} and fits.")
                break
    if not arrange(model, question.cluster, msgspec.structs.replace(wish, lanes=1)):
        return found
    if wish.lanes > 1:
        fits, fails = 1, wish.lanes
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if arrange(model, question.cluster, msgspec.structs.replace(wish, lanes=middle)):
                fits = middle
            else:
                fails = middle
        lanes = "1 lane" if fits == 1 else f"{fits} lanes"
        found.append(f"With {lanes} of {wish.context} tokens it fits.")
    return found


def _other_machines(question: Question, needed: float) -> list[str]:
    """More of the largest kind, and one machine that holds it alone, with their speeds."""
    machines = question.fleet.machines
    kind = max(machines, key=lambda one: one.usable_bytes)
    found = []
    for count in range(len(machines) + 1, MAX_MACHINES + 1):
        enough = needed + (count - 1) * WORKER_BYTES <= count * kind.usable_bytes
        tps = enough and not question.fleet.measured and _speed(question, (kind,) * count)
        if tps:
            found.append(
                f"{count} of {kind.name} would be enough and give {rate(tps)} tokens/s "
                f'(`--on "{kind.id} x{count}"`).'
            )
            break
    alone = [one for one in catalog.machines() if one.usable_bytes >= needed * 1.01]
    quick = [(_speed(question, (one,)) or 0.0, one) for one in alone]
    if quick:
        readable = [one for one in quick if one[0] >= READING_TPS and one[1].price_usd]
        tps, best = (
            min(readable, key=lambda one: (one[1].price_usd, -one[0]))
            if readable
            else max(quick, key=lambda one: one[0])
        )
        if tps:
            found.append(
                f"One {best.name} would hold it and give {rate(tps)} tokens/s (`--on {best.id}`)."
            )
    return found


def _speed(question: Question, machines: Sequence[MachineType]) -> float | None:
    """Tokens per second of one answer on other machines; None where it does not fit them."""
    link = question.fleet.link if len(question.fleet.machines) > 1 else usual_link(machines[:1])
    cluster = Fleet(tuple(machines), link).cluster(question.engine, question.bits)
    wish = msgspec.structs.replace(question.wish, parallel="pipeline")
    plans = arrange(question.model, cluster, wish)
    return plans[0].decode_tps if plans else None
