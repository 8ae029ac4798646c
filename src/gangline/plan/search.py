"""Which devices run which layers: exact search over orders and cuts; numbers in, numbers out.

A *device* is a machine, or a group of machines that share every matrix. It is described by the
seconds and the bytes of each layer on it; `hops[i][j]` are the seconds from device i to device j.

Latency is a sum over layers and hops, so that the least time at which a set of devices, the last of
which is known, covers the first layers can be computed from smaller sets (Held and Karp, 1962,
with the layer as a third coordinate). For `n` devices and `L` layers that takes n * 2^n * n * L
steps at most; devices that cannot be told apart are tried in one order, and what cannot beat the
best plan so far is dropped. Above EXACT devices the order is fixed, fastest first, and devices may
be skipped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from gangline.plan.device import EXACT, INF, Device, Route, Sums, subsets


def least_latency(devices: Sequence[Device], hops: Sequence[Sequence[float]]) -> Route | None:
    """The plan whose token takes the least time around the ring; None if nothing fits."""
    if not devices:
        return None
    sums = [Sums(device) for device in devices]
    if len(devices) > EXACT:
        return _fixed_order(sums, hops)
    twins = _twins(devices, hops)
    rest = _Rest(sums)
    best = _fixed_order(sums, hops)
    for head in range(len(devices)):
        if twins[head] == head:
            limit = best.seconds if best is not None else INF
            best = _from_head(sums, hops, head, twins, rest, limit) or best
    return best


class _Rest:
    """What the layers from each one on take at least on the devices that are still free."""

    def __init__(self, sums: list[Sums]) -> None:
        self.sums = sums
        self.n_bytes = [
            min(one.n_bytes[-1] - one.n_bytes[layer] for one in sums)
            for layer in range(sums[0].n_layers + 1)
        ]
        self.per_byte = [
            min(
                (
                    s / b
                    for s, b in zip(one.device.layer_s, one.device.layer_bytes, strict=True)
                    if b
                ),
                default=0.0,
            )
            for one in sums
        ]
        self.known: dict[int, list[float]] = {}

    def of(self, free: int) -> list[float]:
        """Seconds for each first layer; infinite where the free devices' memory cannot hold them.

        Each byte at its fastest, the fastest devices first: a cut can only be slower.
        """
        if free not in self.known:
            devices = [i for i in range(len(self.sums)) if free >> i & 1]
            devices.sort(key=self.per_byte.__getitem__)
            room, spent, rates = [0], [0.0], []
            for i in devices:
                capacity = max(0, self.sums[i].device.capacity)
                rates.append(self.per_byte[i])
                room.append(room[-1] + capacity)
                spent.append(spent[-1] + capacity * self.per_byte[i])
            bounds = []
            for n_bytes in self.n_bytes:
                if n_bytes > room[-1]:
                    bounds.append(INF)
                else:
                    k = max(0, bisect_left(room, n_bytes) - 1)
                    part = (n_bytes - room[k]) * rates[k] if n_bytes else 0.0
                    bounds.append(spent[k] + part if n_bytes else 0.0)
            self.known[free] = bounds
        return self.known[free]


def _twins(devices: Sequence[Device], hops: Sequence[Sequence[float]]) -> list[int]:
    """For each device the first one that could stand in its place without any change."""
    n = len(devices)
    found = list(range(n))
    for j in range(n):
        for i in range(j):
            if found[i] != i or devices[i] != devices[j] or hops[i][j] != hops[j][i]:
                continue
            others = (k for k in range(n) if k not in (i, j))
            if all(hops[i][k] == hops[j][k] and hops[k][i] == hops[k][j] for k in others):
                found[j] = i
                break
    return found


def _from_head(
    sums: list[Sums],
    hops: Sequence[Sequence[float]],
    head: int,
    twins: list[int],
    rest: _Rest,
    limit: float,
) -> Route | None:
    """The best plan with this head that takes less than `limit` seconds."""
    n, n_layers = len(sums), sums[0].n_layers
    # least[used devices][last one][layers covered]
    least: dict[int, dict[int, list[float]]] = {1 << head: {head: sums[head].start()}}
    best, goal = limit, (0, 0)
    home = min((hops[i][head] for i in range(n) if i != head), default=0.0)
    for used in sorted(subsets(n, head), key=int.bit_count):
        by_last = least.get(used)
        if by_last is None:
            continue
        for last, covered in by_last.items():
            back = hops[last][head] if last != head else 0.0
            if covered[n_layers] + back < best:
                best, goal = covered[n_layers] + back, (used, last)
        bound = best - home
        following = rest.of((1 << n) - 1 - used)
        for device in range(n):
            bit = 1 << device
            if used & bit or _has_unused_twin(device, used, twins):
                continue
            before = _merged(by_last, hops, device)
            before = [
                value if value + remaining < bound else INF
                for value, remaining in zip(before, following, strict=True)
            ]
            if min(before) < INF:
                least.setdefault(used | bit, {})[device] = sums[device].extend(before)
    return _trace(sums, hops, head, least, goal, best) if best < limit else None


def _has_unused_twin(device: int, used: int, twins: list[int]) -> bool:
    """Whether a device like this one, with a smaller number, is free: that one goes first."""
    return any(not used >> i & 1 and twins[i] == twins[device] for i in range(device))


def _merged(
    by_last: dict[int, list[float]], hops: Sequence[Sequence[float]], device: int
) -> list[float]:
    """Least seconds to have covered each number of layers and handed on to `device`."""
    merged: list[float] | None = None
    for last, covered in by_last.items():
        hop = hops[last][device]
        arrived = [value + hop for value in covered]
        merged = arrived if merged is None else list(map(min, merged, arrived))
    assert merged is not None, "a set of devices that was reached has a last one"
    return merged


def _trace(
    sums: list[Sums],
    hops: Sequence[Sequence[float]],
    head: int,
    least: dict[int, dict[int, list[float]]],
    goal: tuple[int, int],
    total: float,
) -> Route:
    """The way to `goal`: for each stage from the last one, what came before it."""
    used, device = goal
    end = sums[0].n_layers
    order, ends = [], []
    while device != head:
        order.append(device)
        ends.append(end)
        of = sums[device]
        used &= ~(1 << device)
        _, device, end = min(
            (covered[start] + hops[last][device] - of.seconds[start], last, start)
            for last, covered in least[used].items()
            for start in range(of.first[end], end)
        )
    order.append(head)
    ends.append(end)
    return Route(tuple(reversed(order)), tuple(reversed(ends)), total)


def _fixed_order(sums: list[Sums], hops: Sequence[Sequence[float]]) -> Route | None:
    """The best plan that visits devices fastest first behind a head of any speed."""
    n_layers = sums[0].n_layers
    ranked = sorted(range(len(sums)), key=lambda i: sums[i].seconds[-1])
    rest = _Rest(sums)
    best: Route | None = None
    for head in ranked:
        limit = best.seconds if best is not None else INF
        order = [head, *(device for device in ranked if device != head)]
        home = min((hops[device][head] for device in order[1:]), default=0.0)
        least: dict[int, list[float]] = {head: sums[head].start()}
        free = (1 << len(sums)) - 1 - (1 << head)
        for device in order[1:]:
            following = rest.of(free)
            free &= ~(1 << device)
            before = _merged(least, hops, device)
            bound = limit - home
            before = [
                value if value + remaining < bound else INF
                for value, remaining in zip(before, following, strict=True)
            ]
            if min(before) < INF:
                least[device] = sums[device].extend(before)
        total, last = min(
            (covered[n_layers] + (hops[last][head] if last != head else 0.0), last)
            for last, covered in least.items()
        )
        if total < limit:
            best = _trace_order(sums, hops, order, least, last, total)
    return best


def _trace_order(
    sums: list[Sums],
    hops: Sequence[Sequence[float]],
    order: list[int],
    least: dict[int, list[float]],
    last: int,
    total: float,
) -> Route:
    end = sums[0].n_layers
    stages, ends = [last], [end]
    while stages[-1] != order[0]:
        device = stages[-1]
        of = sums[device]
        earlier = [one for one in order[: order.index(device)] if one in least]
        _, last, end = min(
            (least[one][start] + hops[one][device] - of.seconds[start], one, start)
            for one in earlier
            for start in range(of.first[end], end)
        )
        stages.append(last)
        ends.append(end)
    return Route(tuple(reversed(stages)), tuple(reversed(ends)), total)
