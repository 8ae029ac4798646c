"""Sets of two kinds of machines for a model that nothing else beats; pure.

All pairs of the catalogue are too many to search one by one. A set is skipped unseen if even its
upper bound, every byte read at the fastest rate of the machines and hops that take no time, is no
better than an offer that costs and draws no more. What is left is searched as any fleet is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import msgspec

from gangline.plan.catalog import MachineType
from gangline.plan.engines import Engine
from gangline.plan.fleet import Fleet, mixed_fleet, usual_link
from gangline.plan.forecast import GROUP_SIZES, Wish, devices_of, layer_bytes
from gangline.plan.market import (
    CARDS_PER_HOST,
    Limits,
    Offer,
    known,
    offer_of_fleet,
    price_and_watts,
    within,
)
from gangline.plan.question import ShapeAt
from gangline.plan.shape import ModelCost

MOST_OF_A_KIND = 4


def mixed_offers(
    shape: ShapeAt,
    bits: float,
    engine: Engine,
    wish: Wish,
    limits: Limits,
    machines: Iterable[MachineType],
    others: Sequence[Offer],
) -> list[Offer]:
    """Sets of two kinds within the limits, each better in something than every other offer.

    `others` are the offers of one kind. Machines without a price are left out. Cheapest first.
    """
    model = shape(bits)
    sets = [
        one
        for machine in machines
        if machine.price_usd
        for one in _sets(model, machine, engine, bits, wish)
    ]
    needed = sum(layer_bytes(layer, 1, wish) for layer in model.layer_costs)
    candidates = []
    for a, b in combinations(sets, 2):
        if a.machine is b.machine or a.cards + b.cards > CARDS_PER_HOST:
            continue  # cards of two computers have no bus in common
        most = _most_tps(needed, a, b)
        if most < limits.min_tps or most == 0.0:
            continue
        costs = price_and_watts((a.machine,) * a.count + (b.machine,) * b.count)
        price, watts = (known(cost) for cost in costs)
        if price <= limits.budget_usd and watts <= limits.max_watts:
            candidates.append((price, watts, most, a, b))
    candidates.sort(key=lambda one: (one[0], -one[2]))
    front = _Front()
    for alone in others:
        front.add(known(alone.price_usd), known(alone.watts), alone.decode_tps)
    found: list[Offer] = []
    for price, watts, most, a, b in candidates:
        if front.beats(price, watts, most):
            continue
        fleet = mixed_fleet((a.machine,) * a.count, (b.machine,) * b.count)
        offer = offer_of_fleet(fleet, model, bits, engine, wish)
        if offer is None or not within(offer, limits):
            continue
        cost = known(offer.price_usd), known(offer.watts), offer.decode_tps
        if not front.beats(*cost):
            front.add(*cost)
            found.append(offer)
    return [
        one
        for one in found
        if (known(one.price_usd), known(one.watts), one.decode_tps) in front.costs
    ]


class _Set(msgspec.Struct, frozen=True):
    """Some machines of a kind, and what they do at best for layers that others may share."""

    machine: MachineType
    count: int
    byte_s: float  # for each byte of a layer, weights and cache
    head_s: float
    capacity: int  # bytes of layers that they hold

    @property
    def cards(self) -> int:
        return self.count if self.machine.kind == "gpu" else 0


def _sets(
    model: ModelCost, machine: MachineType, engine: Engine, bits: float, wish: Wish
) -> Iterator[_Set]:
    """1 to MOST_OF_A_KIND machines, with the fastest group that so many can form."""
    byte_s, head_s = math.inf, math.inf
    whole = [layer_bytes(layer, 1, wish) for layer in model.layer_costs]
    for count in range(1, MOST_OF_A_KIND + 1):
        cluster = Fleet((machine,) * count, usual_link([machine])).cluster(engine, bits)
        if count in GROUP_SIZES and (count == 1 or cluster.engine.shares):
            (device,), _ = devices_of(model, cluster, (tuple(range(count)),), wish)
            rates = (s / n for s, n in zip(device.layer_s, whole, strict=True) if n)
            byte_s, head_s = min(byte_s, *rates), min(head_s, device.head_s)
        yield _Set(machine, count, byte_s, head_s, count * machine.usable_bytes)


def _most_tps(needed: int, a: _Set, b: _Set) -> float:
    """No plan for both is faster; 0 where they cannot hold it."""
    fast, slow = (a, b) if a.byte_s <= b.byte_s else (b, a)
    if needed > a.capacity + b.capacity:
        return 0.0
    rest = max(0, needed - fast.capacity)
    reading = (needed - rest) * fast.byte_s + rest * slow.byte_s
    return 1 / (min(a.head_s, b.head_s) + reading)


class _Front:
    """Offers of which none is at least as cheap, as frugal and as fast as another."""

    def __init__(self) -> None:
        self.costs: list[tuple[float, float, float]] = []

    def add(self, price: float, watts: float, tps: float) -> None:
        if not self.beats(price, watts, tps):
            self.costs = [
                one for one in self.costs if one[0] < price or one[1] < watts or one[2] > tps
            ]
            self.costs.append((price, watts, tps))

    def beats(self, price: float, watts: float, tps: float) -> bool:
        """Whether an offer is as cheap, as frugal and as fast as that."""
        return any(one[0] <= price and one[1] <= watts and one[2] >= tps for one in self.costs)
