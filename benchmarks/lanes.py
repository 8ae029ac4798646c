"""Tokens per second of 1, 4 and 16 lanes on 1 and 2 stages.

    python -m benchmarks.lanes [--tokens 128] [--rounds 3] [--json]

The demo model, real workers, one thread each. All lanes start together; counted are all tokens
over the time from the first to the last. The peer is one lane of the same ring, measured in the
same round: without continuous batching, L lanes together would be exactly as fast as it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from contextlib import ExitStack

from tests.ring import Client, Ring

from benchmarks.hop import N_LAYERS, cuts, ended
from gangline.head.requests import Sampling, Submit, Tokens
from gangline.paths import demo_model

STAGES = (1, 2)
LANES = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure tokens per second of many lanes")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each lane at most")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    speeds = {(stages, lanes): list[float]() for stages in STAGES for lanes in LANES}
    with ExitStack() as stack:
        rings = {
            stages: stack.enter_context(
                Ring(demo_model(), cuts(stages), N_LAYERS, context=512, lanes=max(LANES))
            )
            for stages in STAGES
        }
        for _ in range(arguments.rounds):
            for stages, lanes in speeds:
                speed = asyncio.run(tokens_per_s(rings[stages], lanes, arguments.tokens))
                speeds[stages, lanes].append(speed)
    rows = summarize(speeds)
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


async def tokens_per_s(ring: Ring, n_lanes: int, n_tokens: int) -> float:
    """All tokens of all lanes over the time from the first token to the last."""
    async with ring.client() as client:
        answers = [stream_times(client, seed, n_tokens) for seed in range(n_lanes)]
        times = sorted(at for each in await asyncio.gather(*answers) for at in each)
    return (len(times) - 1) / (times[-1] - times[0])


async def stream_times(client: Client, seed: int, n_tokens: int) -> list[float]:
    """When the tokens of one lane arrived; a lane whose answer ends asks again."""
    times: list[float] = []
    while len(times) < n_tokens:
        seed += 1000
        sampling = Sampling(max_tokens=n_tokens - len(times), seed=seed)
        number = client.submit(Submit(0, sampling, prompt="Once upon a time"))
        while not ended(message := await client.next(number)):
            if isinstance(message, Tokens):
                times.append(time.perf_counter())
    return times


def summarize(speeds: dict[tuple[int, int], list[float]]) -> list[dict[str, float]]:
    rows = []
    for (stages, lanes), measured in speeds.items():
        one = speeds[stages, 1]
        ratios = [a / b for a, b in zip(measured, one, strict=True)]
        rows.append(
            {
                "stages": stages,
                "lanes": lanes,
                "tokens_per_s": round(statistics.median(measured), 1),
                "over_one_lane": round(statistics.median(ratios), 2),
                "over_one_lane_min": round(min(ratios), 2),
                "over_one_lane_max": round(max(ratios), 2),
            }
        )
    return rows


def table(rows: list[dict[str, float]]) -> str:
    lines = ["STAGES  LANES  TOK/S     OVER ONE LANE (MIN to MAX)"]
    for row in rows:
        lines.append(
            f"{row['stages']:<7} {row['lanes']:<6} {row['tokens_per_s']:<9} "
            f"{row['over_one_lane']} ({row['over_one_lane_min']} to {row['over_one_lane_max']})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
