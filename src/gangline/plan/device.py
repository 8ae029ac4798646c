"""What layers cost on a device, and routes through devices: the terms of both searches.

A *device* is a machine, or a group of machines that share every matrix.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

EXACT = 8  # devices up to which every order is tried
INF = math.inf


class Device(NamedTuple):
    """What each layer costs on a device, and what it can hold."""

    layer_s: Sequence[float]
    layer_bytes: Sequence[int]  # weights and cache; on each machine, where several share
    head_s: float
    head_bytes: int
    capacity: int  # 0 or more: bytes that layers, and on the first device the head's, may take


class Route(NamedTuple):
    """Devices in the order of the layers; device `order[i]` ends before layer `ends[i]`."""

    order: tuple[int, ...]
    ends: tuple[int, ...]
    seconds: float  # of a token all the way around, or of the slowest stage

    @property
    def starts(self) -> tuple[int, ...]:
        return (0, *self.ends[:-1])


class Sums:
    """Prefix sums of a device, and how far it reaches from each layer."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.n_layers = len(device.layer_s)
        self.seconds = list(accumulate(device.layer_s, initial=0.0))
        self.n_bytes = list(accumulate(device.layer_bytes, initial=0))
        # The first layer from which a stage may start that ends before layer `end`.
        self.first = [0] * (self.n_layers + 1)
        start = 0
        for end in range(self.n_layers + 1):
            while self.n_bytes[end] - self.n_bytes[start] > device.capacity:
                start += 1
            self.first[end] = start
        self.reach_as_head = bisect_right(self.n_bytes, device.capacity - device.head_bytes) - 1

    def start(self) -> list[float]:
        """Least seconds to cover the first `end` layers as the head; index 0 is not a stage."""
        begin = self.device.head_s
        reach = self.reach_as_head
        covered = [begin + value for value in self.seconds[: max(reach, 0) + 1]]
        covered += [INF] * (self.n_layers + 1 - len(covered))
        covered[0] = INF
        return covered

    def extend(self, before: list[float]) -> list[float]:
        """Least seconds when this device goes on from `before`; it takes a layer at least."""
        seconds, first = self.seconds, self.first
        after = [INF] * (self.n_layers + 1)
        window: deque[tuple[float, int]] = deque()  # (before - seconds, start), rising
        for end in range(1, self.n_layers + 1):
            start = end - 1
            if before[start] < INF:
                value = before[start] - seconds[start]
                while window and window[-1][0] >= value:
                    window.pop()
                window.append((value, start))
            oldest = first[end]
            while window and window[0][1] < oldest:
                window.popleft()
            if window:
                after[end] = window[0][0] + seconds[end]
        return after


def subsets(n: int, head: int) -> list[int]:
    """All sets of `n` devices with the head in them, as bits."""
    return [mask for mask in range(1 << n) if mask >> head & 1]
