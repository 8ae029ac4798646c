"""Which devices run which layers where throughput counts: the least slowest stage."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from gangline.plan.device import EXACT, INF, Device, Route, Sums, subsets


def least_bottleneck(devices: Sequence[Device]) -> Route | None:
    """The plan whose slowest stage takes the least time; None if nothing fits.

    For a given limit each device goes as far as it can, and going further never hurts those that
    follow: so the furthest layer that a set of devices can cover is all that has to be known of it.
    Above EXACT devices the fastest first.
    """
    if not devices:
        return None
    sums = [Sums(device) for device in devices]
    ranked = sorted(range(len(devices)), key=lambda i: sums[i].seconds[-1])
    best = _cover(sums, ranked, INF)
    if best is None:
        return None
    low, high = 0.0, _slowest_stage(sums, best)
    while high - low > 0.002 * high:
        middle = (low + high) / 2
        found = _cover(sums, ranked, middle)
        if found is None:
            low = middle
        else:
            best, high = found, _slowest_stage(sums, found)
    return Route(*best, high)


_Cut = tuple[tuple[int, ...], tuple[int, ...]]  # devices in order, and where each one ends


def _slowest_stage(sums: list[Sums], cut: _Cut) -> float:
    slowest, start = 0.0, 0
    for i, (device, end) in enumerate(zip(*cut, strict=True)):
        one = sums[device]
        head_s = one.device.head_s if i == 0 else 0.0
        slowest = max(slowest, head_s + one.seconds[end] - one.seconds[start])
        start = end
    return slowest


def _cover(sums: list[Sums], ranked: list[int], limit: float) -> _Cut | None:
    """Devices and ends that cover all layers with no stage above `limit` seconds."""
    n_layers = sums[0].n_layers
    for head in ranked:
        one = sums[head]
        by_time = bisect_right(one.seconds, limit - one.device.head_s) - 1
        begin = min(by_time, one.reach_as_head)
        if begin < 1:
            continue
        found = (
            _cover_in_order(sums, [head, *(i for i in ranked if i != head)], begin, limit)
            if len(sums) > EXACT
            else _cover_in_any(sums, head, begin, limit)
        )
        if found is not None:
            assert found[1][-1] == n_layers
            return found
    return None


def _further(one: Sums, start: int, limit: float) -> int:
    """How far a device goes from `start`."""
    by_time = bisect_right(one.seconds, one.seconds[start] + limit) - 1
    by_memory = bisect_right(one.n_bytes, one.n_bytes[start] + one.device.capacity) - 1
    return min(by_time, by_memory)


def _cover_in_any(sums: list[Sums], head: int, begin: int, limit: float) -> _Cut | None:
    n, n_layers = len(sums), sums[0].n_layers
    reached: dict[int, tuple[int, int]] = {1 << head: (begin, head)}  # set -> (layers, last device)
    goal = 1 << head if begin >= n_layers else 0
    for used in sorted(subsets(n, head), key=int.bit_count):
        if goal:
            break
        if used not in reached:
            continue
        start = reached[used][0]
        for device in range(n):
            bit = 1 << device
            if used & bit:
                continue
            end = _further(sums[device], start, limit)
            if end > start and end > reached.get(used | bit, (0, 0))[0]:
                reached[used | bit] = (end, device)
                if end >= n_layers:
                    goal = used | bit
                    break
    if not goal:
        return None
    order, ends = [], []
    while goal:
        end, device = reached[goal]
        order.append(device)
        ends.append(end)
        goal &= ~(1 << device)
    return tuple(reversed(order)), tuple(reversed(ends))


def _cover_in_order(sums: list[Sums], order: list[int], begin: int, limit: float) -> _Cut | None:
    stages, ends = [order[0]], [begin]
    for device in order[1:]:
        if ends[-1] >= sums[0].n_layers:
            break
        end = _further(sums[device], ends[-1], limit)
        if end > ends[-1]:
            stages.append(device)
            ends.append(end)
    return (tuple(stages), tuple(ends)) if ends[-1] >= sums[0].n_layers else None
