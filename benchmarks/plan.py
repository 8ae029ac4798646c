"""How long planning takes: `python -m benchmarks.plan`.

Uneven machines on uneven links, memory so tight that most of them are needed: the hard case, since
a model that fits a few machines is planned at once.
"""

from __future__ import annotations

import random
import time

from gangline.plan.bottleneck import least_bottleneck
from gangline.plan.device import Device
from gangline.plan.search import least_latency

LAYERS = 128
LIMITS_MS = {8: 150.0, 16: 300.0}


def cluster(n: int, tightness: float, seed: int) -> tuple[list[Device], list[list[float]]]:
    """`n` devices of which `tightness` of the memory is needed; every tenth layer is larger."""
    draw = random.Random(seed)
    sizes = [3 if layer % 10 == 0 else 2 for layer in range(LAYERS)]
    needed = sum(sizes) + 8
    shares = [draw.uniform(0.5, 2.0) for _ in range(n)]
    devices = []
    for share in shares:
        speed = draw.uniform(1.0, 8.0)
        capacity = int(needed * share / sum(shares) / tightness) + 1
        devices.append(Device([s / speed for s in sizes], sizes, 1 / speed, 8, capacity))
    hops = [[0.0 if i == j else draw.uniform(0.01, 2.0) for j in range(n)] for i in range(n)]
    return devices, hops


def main() -> None:
    print(f"{'machines':>8} {'memory needed':>14} {'latency':>10} {'throughput':>11}")
    for n, limit_ms in LIMITS_MS.items():
        for tightness in (0.3, 0.6, 0.9):
            spent = {"latency": 0.0, "throughput": 0.0}
            for seed in range(3):
                devices, hops = cluster(n, tightness, seed)
                begin = time.perf_counter()
                least_latency(devices, hops)
                middle = time.perf_counter()
                least_bottleneck(devices)
                end = time.perf_counter()
                spent["latency"] = max(spent["latency"], middle - begin)
                spent["throughput"] = max(spent["throughput"], end - middle)
            print(
                f"{n:>8} {tightness:>14.0%} {spent['latency'] * 1e3:>7.0f} ms"
                f" {spent['throughput'] * 1e3:>8.0f} ms   limit {limit_ms:.0f} ms"
            )


if __name__ == "__main__":
    main()
