"""Sets of machines of the catalogue that run a model fast enough, and what they cost; pure.

A set is a number of equal machines on the fastest link that they have; `mixes.py` has two
kinds. Cards need a computer around them, which is counted at HOST_USD and HOST_WATTS for each
CARDS_PER_HOST.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import msgspec

from gangline.plan import catalog
from gangline.plan.catalog import MachineType
from gangline.plan.engines import Engine, bandwidth_gbps
from gangline.plan.fleet import Fleet, usual_link
from gangline.plan.forecast import Wish, arrange
from gangline.plan.question import ShapeAt
from gangline.plan.shape import ModelCost

COUNTS = (1, 2, 3, 4, 6, 8, 10, 12, 16)
HOST_USD, HOST_WATTS, CARDS_PER_HOST = 1200.0, 90.0, 4  # a plain computer for cards, an estimate
MODELS_COMPARED = ("llama-3.1-8b", "gpt-oss-120b", "llama-3.3-70b")


class Offer(msgspec.Struct, frozen=True):
    """A set of machines and what it would do."""

    machines: tuple[str, ...]
    name: str
    kind: str  # of the machines, as the catalogue has it; "mixed"
    link: str
    parallel: str
    decode_tps: float
    prefill_tps: float
    memory_gb: float  # that models can have, in GiB
    price_usd: float | None  # None: of some machine nobody published a price
    price_date: str
    watts: float | None

    @property
    def tokens_per_joule(self) -> float | None:
        return self.decode_tps / self.watts if self.watts else None


class Limits(msgspec.Struct, frozen=True):
    """What an offer must keep."""

    min_tps: float = 0.0
    budget_usd: float = math.inf
    max_watts: float = math.inf


class Compared(msgspec.Struct, frozen=True):
    """A machine side by side with others; None: no figure was found."""

    machine: str
    name: str
    memory_gb: float
    memory_gbps: float
    fp16_tflops: float | None
    tps: dict[str, float | None]  # tokens/s of one answer by model; None: it does not fit
    watts: float | None
    price_usd: float | None
    price_date: str
    tokens_per_joule: float | None  # of the first model that fits
    usd_per_gb: float | None


def offers(
    shape: ShapeAt,
    bits: float,
    engine: Engine,
    wish: Wish,
    limits: Limits,
    machines: Iterable[MachineType] | None = None,
) -> list[Offer]:
    """All sets of one kind within the limits, the cheapest first; those without a price last."""
    found = []
    for machine in machines if machines is not None else catalog.machines():
        best = 0.0
        for count in COUNTS:
            price, watts = price_and_watts((machine,) * count)
            if not _affordable(price, watts, limits):
                break  # more of them cost and draw more
            offer = offer_of(machine, count, shape, bits, engine, wish)
            if offer is None or offer.decode_tps <= best * 1.02:
                continue  # more machines that do not answer faster are no offer
            best = offer.decode_tps
            if within(offer, limits):
                found.append(offer)
    return sorted(found, key=_order)


def cheapest(
    shape: ShapeAt,
    bits: float,
    engine: Engine,
    wish: Wish,
    min_tps: float,
    machines: Iterable[MachineType] | None = None,
) -> Offer | None:
    """The first of the `offers` that are so fast; what costs more than it is not computed."""
    found: list[Offer] = []
    every = machines if machines is not None else catalog.machines()
    for machine in sorted(every, key=lambda one: known(price_and_watts((one,))[0])):
        budget = min((known(offer.price_usd) for offer in found), default=math.inf)
        found += offers(shape, bits, engine, wish, Limits(min_tps, budget), [machine])
    return min(found, key=_order, default=None)


def _order(offer: Offer) -> tuple[float, float, str]:
    """The cheapest first; those without a price last."""
    return known(offer.price_usd), -offer.decode_tps, offer.name


def within(offer: Offer, limits: Limits) -> bool:
    """Whether an offer keeps the limits."""
    affordable = _affordable(offer.price_usd, offer.watts, limits)
    return affordable and offer.decode_tps >= limits.min_tps


def _affordable(price: float | None, watts: float | None, limits: Limits) -> bool:
    return known(price) <= limits.budget_usd and known(watts) <= limits.max_watts


def known(value: float | None) -> float:
    """A figure that nobody published keeps no limit."""
    return math.inf if value is None else value


@functools.lru_cache(4096)  # every set of the catalogue is asked for up to three times
def offer_of(
    machine: MachineType, count: int, shape: ShapeAt, bits: float, engine: Engine, wish: Wish
) -> Offer | None:
    """What `count` machines would do; None where the model does not fit, or fewer are used."""
    fleet = Fleet((machine,) * count, usual_link([machine]))
    return offer_of_fleet(fleet, shape(bits), bits, engine, wish)


def offer_of_fleet(
    fleet: Fleet, model: ModelCost, bits: float, engine: Engine, wish: Wish
) -> Offer | None:
    """What these machines would do; None where the model does not fit, or not all are used."""
    machines = fleet.machines
    usable = sum(one.usable_bytes for one in machines)
    if model.weight_bytes > usable:
        return None
    plans = arrange(model, fleet.cluster(engine, bits), wish)
    if not plans or len(plans[0].used) < len(machines):
        return None
    best = plans[0]
    kinds = {one.id: one.kind for one in machines}
    price, watts = price_and_watts(machines)
    return Offer(
        machines=tuple(one.id for one in machines),
        name=fleet.name,
        kind=machines[0].kind if len(kinds) == 1 else "mixed",
        link=fleet.link.id if len(machines) > 1 else "none",
        parallel=best.parallel,
        decode_tps=round(best.decode_tps, 2),
        prefill_tps=round(wish.prompt / best.prompt_s, 1),
        memory_gb=round(usable / (1 << 30), 1),
        price_usd=price,
        price_date=min(one.price_date for one in machines),  # as old as the oldest
        watts=watts,
    )


def price_and_watts(machines: Sequence[MachineType]) -> tuple[float | None, float | None]:
    """Of all of them while they answer, with a computer around each CARDS_PER_HOST cards."""
    cards = sum(one.kind == "gpu" for one in machines)
    hosts = math.ceil(cards / CARDS_PER_HOST)
    prices = [one.price_usd for one in machines]
    watts = [one.watts_busy for one in machines]
    return (
        sum(prices) + hosts * HOST_USD if all(prices) else None,
        sum(watts) + hosts * HOST_WATTS if all(watts) else None,
    )


def compare(
    machines: Sequence[MachineType], shapes: dict[str, tuple[ShapeAt, float]], engine: Engine
) -> list[Compared]:
    """Machines side by side, each alone."""
    rows = []
    for machine in machines:
        tps: dict[str, float | None] = {}
        for name, (shape, bits) in shapes.items():
            wish = Wish(min(4096, shape(bits).max_context))
            offer = offer_of(machine, 1, shape, bits, engine, wish)
            tps[name] = offer.decode_tps if offer is not None else None
        first = next((value for value in tps.values() if value), None)
        watts, price = machine.watts_busy or None, machine.price_usd or None
        rows.append(
            Compared(
                machine=machine.id,
                name=machine.name,
                memory_gb=machine.memory_gb,
                memory_gbps=bandwidth_gbps(machine),
                fp16_tflops=machine.fp16_tflops or None,
                tps=tps,
                watts=watts,
                price_usd=price,
                price_date=machine.price_date,
                tokens_per_joule=round(first / watts, 3) if first and watts else None,
                usd_per_gb=round(price / machine.memory_gb, 2) if price else None,
            )
        )
    return rows
