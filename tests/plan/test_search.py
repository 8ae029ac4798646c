"""The search finds what trying everything finds; more and faster devices never make it worse."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.plan.bottleneck import least_bottleneck
from gangline.plan.device import Device, Route
from gangline.plan.search import least_latency

Hops = list[list[float]]


@st.composite
def clusters(draw: st.DrawFn, most: int = 4, layers: int = 6) -> tuple[list[Device], Hops]:
    """Unlike layers on uneven devices, links that differ by direction."""
    n_layers = draw(st.integers(1, layers))
    n = draw(st.integers(1, most))
    sizes = draw(st.lists(st.integers(1, 9), min_size=n_layers, max_size=n_layers))
    head_bytes = draw(st.integers(0, 6))
    devices = []
    for _ in range(n):
        speed = draw(st.sampled_from([1.0, 2.0, 3.5]))
        own = draw(st.lists(st.integers(0, 3), min_size=n_layers, max_size=n_layers))
        times = [size / speed + extra for size, extra in zip(sizes, own, strict=True)]
        capacity = draw(st.integers(0, sum(sizes) + head_bytes + 2))
        devices.append(Device(times, sizes, head_bytes / speed, head_bytes, capacity))
    hop = st.sampled_from([0.0, 0.5, 1.0, 4.0])
    hops = [[draw(hop) if i != j else 0.0 for j in range(n)] for i in range(n)]
    return devices, hops


def all_routes(devices: list[Device]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every order of every set, every cut, of those that fit."""
    n_layers = len(devices[0].layer_s)
    found = []
    for count in range(1, min(len(devices), n_layers) + 1):
        for order in itertools.permutations(range(len(devices)), count):
            for inner in itertools.combinations(range(1, n_layers), count - 1):
                ends = (*inner, n_layers)
                if all(room >= 0 for room in rooms(devices, order, ends)):
                    found.append((order, ends))
    return found


def rooms(devices: list[Device], order: tuple[int, ...], ends: tuple[int, ...]) -> list[int]:
    """Bytes that each stage has left."""
    starts = (0, *ends[:-1])
    return [
        devices[device].capacity
        - sum(devices[device].layer_bytes[start:end])
        - (devices[device].head_bytes if i == 0 else 0)
        for i, (device, start, end) in enumerate(zip(order, starts, ends, strict=True))
    ]


def stage_times(
    devices: list[Device], order: tuple[int, ...], ends: tuple[int, ...]
) -> list[float]:
    starts = (0, *ends[:-1])
    return [
        sum(devices[device].layer_s[start:end]) + (devices[device].head_s if i == 0 else 0)
        for i, (device, start, end) in enumerate(zip(order, starts, ends, strict=True))
    ]


def latency(
    devices: list[Device], hops: Hops, order: tuple[int, ...], ends: tuple[int, ...]
) -> float:
    around = zip(order, (*order[1:], order[0]), strict=True)
    ring = sum(hops[i][j] for i, j in around) if len(order) > 1 else 0.0
    return sum(stage_times(devices, order, ends)) + ring


def check(devices: list[Device], route: Route) -> None:
    """Every layer once, memory never exceeded."""
    assert len(set(route.order)) == len(route.order)
    assert list(route.ends) == sorted(set(route.ends))
    assert route.ends[-1] == len(devices[0].layer_s)
    assert all(room >= 0 for room in rooms(devices, route.order, route.ends))


@settings(max_examples=300, deadline=None)
@given(clusters())
def test_no_plan_has_less_latency(cluster: tuple[list[Device], Hops]) -> None:
    devices, hops = cluster
    best = min((latency(devices, hops, *one) for one in all_routes(devices)), default=None)
    route = least_latency(devices, hops)
    assert (route is None) == (best is None)
    if route is not None and best is not None:
        check(devices, route)
        assert abs(route.seconds - best) < 1e-9
        assert abs(latency(devices, hops, route.order, route.ends) - route.seconds) < 1e-9


@settings(max_examples=200, deadline=None)
@given(clusters())
def test_no_plan_has_a_faster_slowest_stage(cluster: tuple[list[Device], Hops]) -> None:
    devices, _ = cluster
    best = min((max(stage_times(devices, *one)) for one in all_routes(devices)), default=None)
    route = least_bottleneck(devices)
    assert (route is None) == (best is None)
    if route is not None and best is not None:
        check(devices, route)
        assert best - 1e-9 <= route.seconds <= best * 1.003 + 1e-9
        assert abs(max(stage_times(devices, route.order, route.ends)) - route.seconds) < 1e-9


@settings(max_examples=150, deadline=None)
@given(clusters(most=5, layers=9))
def test_more_devices_never_predict_slower(cluster: tuple[list[Device], Hops]) -> None:
    devices, hops = cluster
    without = least_latency(devices[:-1], [row[:-1] for row in hops[:-1]])
    route = least_latency(devices, hops)
    if without is not None:
        assert route is not None
        assert route.seconds <= without.seconds + 1e-9


@settings(max_examples=150, deadline=None)
@given(clusters(most=5, layers=9), st.floats(0.1, 1.0))
def test_a_faster_device_never_gets_a_slower_plan(
    cluster: tuple[list[Device], Hops], share: float
) -> None:
    devices, hops = cluster
    first = devices[0]
    faster = first._replace(layer_s=[s * share for s in first.layer_s], head_s=first.head_s * share)
    before = least_latency(devices, hops)
    after = least_latency([faster, *devices[1:]], hops)
    if before is not None:
        assert after is not None
        assert after.seconds <= before.seconds + 1e-9


@settings(max_examples=30, deadline=None)
@given(clusters(most=12, layers=20))
def test_many_devices_cover_every_layer(cluster: tuple[list[Device], Hops]) -> None:
    devices, hops = cluster
    for route in (least_latency(devices, hops), least_bottleneck(devices)):
        if route is not None:
            check(devices, route)


def test_equal_devices_are_not_told_apart() -> None:
    device = Device([1.0] * 40, [1] * 40, 0.0, 0, 6)
    hops = [[0.0 if i == j else 0.1 for j in range(8)] for i in range(8)]
    route = least_latency([device] * 8, hops)
    assert route is not None
    assert len(route.order) == 7
    assert abs(route.seconds - 40.7) < 1e-9
