"""Sets of two kinds: none that is worth it is missed, none that is not is offered."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.plan import catalog
from gangline.plan.catalog import MachineType
from gangline.plan.engines import Engine
from gangline.plan.fleet import mixed_fleet, usual_link
from gangline.plan.forecast import Wish
from gangline.plan.market import Limits, Offer, known, offer_of_fleet, offers, within
from gangline.plan.mixes import MOST_OF_A_KIND, mixed_offers
from gangline.plan.shape import ModelCost, cost_of_config

PRICED = [machine for machine in catalog.machines() if machine.price_usd]
WISH = Wish(4096)


def shape_of(model: str) -> Callable[[float], ModelCost]:
    config = catalog.model(model).config
    return lambda bits: cost_of_config(config, bits)


def costs(offer: Offer) -> tuple[float, float, float]:
    return known(offer.price_usd), known(offer.watts), -offer.decode_tps


def as_good(one: Offer, other: Offer) -> bool:
    return all(a <= b for a, b in zip(costs(one), costs(other), strict=True))


def every_mix(
    machines: list[MachineType], model: ModelCost, engine: Engine, limits: Limits
) -> list[Offer]:
    found = []
    for a, b in combinations(machines, 2):
        for i, j in product(range(1, MOST_OF_A_KIND + 1), repeat=2):
            if i * (a.kind == "gpu") + j * (b.kind == "gpu") > 4:
                continue
            offer = offer_of_fleet(mixed_fleet((a,) * i, (b,) * j), model, 4.5, engine, WISH)
            if offer is not None and within(offer, limits):
                found.append(offer)
    return found


@settings(max_examples=25, deadline=None)
@given(
    machines=st.lists(st.sampled_from(PRICED), min_size=2, max_size=3, unique=True),
    model=st.sampled_from(["llama-3.3-70b", "gpt-oss-120b", "llama-3.1-405b"]),
    engine=st.sampled_from(["ours", "mlx"]),
    budget=st.sampled_from([math.inf, 20_000.0]),
    watts=st.sampled_from([math.inf, 900.0]),
)
def test_what_is_offered_is_what_nothing_beats(
    machines: list[MachineType], model: str, engine: Engine, budget: float, watts: float
) -> None:
    limits = Limits(2.0, budget, watts)
    shape = shape_of(model)
    alone = offers(shape, 4.5, engine, WISH, limits, machines)
    mixes = mixed_offers(shape, 4.5, engine, WISH, limits, machines, alone)
    for offer in mixes:
        assert within(offer, limits)
        assert len(set(offer.machines)) == 2
        others = [one for one in (*alone, *mixes) if one is not offer]
        assert not any(as_good(one, offer) for one in others)
    for possible in every_mix(machines, shape(4.5), engine, limits):
        assert any(as_good(one, possible) for one in (*alone, *mixes)), possible


def test_a_spark_and_a_studio() -> None:
    machines = [catalog.machine("dgx-spark"), catalog.machine("m3-ultra-96")]
    shape = shape_of("qwen3-235b-a22b")
    (pair,) = [
        offer
        for offer in mixed_offers(shape, 4.5, "ours", WISH, Limits(), machines, [])
        if offer.machines == ("dgx-spark", "m3-ultra-96")
    ]
    assert pair.kind == "mixed"
    assert pair.link == "10gbe"
    assert pair.price_usd == sum(machine.price_usd for machine in machines)


@pytest.mark.parametrize(
    ("some", "others", "link"),
    [
        ("m3-ultra-96", "m4-max-128", "tb5-rdma"),
        ("m3-ultra-96", "m2-ultra-192", "tb4"),
        ("m4-24", "ms-r1", "1gbe"),
        ("rtx-4090", "rtx-3060", "pcie4-x16"),
        ("rtx-4090", "dgx-spark", "1gbe"),
    ],
)
def test_unlike_machines_share_the_best_link_that_both_have(
    some: str, others: str, link: str
) -> None:
    assert usual_link([catalog.machine(some), catalog.machine(others)]).id == link


def test_an_engine_without_pipelines_uses_no_two_kinds() -> None:
    machines = [catalog.machine("pi-5-16"), catalog.machine("rk3588-32")]
    shape = shape_of("llama-3.1-8b")
    assert mixed_offers(shape, 4.5, "distributed-llama", WISH, Limits(), machines, []) == []
