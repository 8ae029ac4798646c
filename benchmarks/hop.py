"""What one more stage costs a single stream on loopback.

    python -m benchmarks.hop [--tokens 400] [--rounds 5] [--json]

The bundled demo model is run by 1, 2, 3, 4 and 8 real workers in turn, round after round, so that
a drift of the machine's speed meets all alike. The layers are the same in total, so what a token
takes longer than on one worker is the price of the hops: with S > 1 stages there are S of them
(S - 1 forward, one back). Beside it stands the peer: the same bytes sent to and fro by two
processes over a bare TCP socket in Python, which no hop can undercut.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import socket
import statistics
import time
from contextlib import ExitStack

from tests.ring import Client, Ring

from gangline.head.requests import Finished, FromHead, Rejected, Sampling, Submit, Tokens
from gangline.paths import demo_model

STAGES = (1, 2, 3, 4, 8)
N_LAYERS = 8
HIDDEN_BYTES = 256 * 4
LIMIT_US = 200.0


def main() -> None:
    arguments = parse_arguments()
    with ExitStack() as stack:
        rings = {
            n: stack.enter_context(Ring(demo_model(), cuts(n), N_LAYERS, context=512))
            for n in STAGES
        }
        token_us = {n: list[float]() for n in STAGES}
        bare_us: list[float] = []
        for _ in range(arguments.rounds):
            for n, ring in rings.items():
                token_us[n].append(asyncio.run(time_per_token_us(ring, arguments.tokens)))
            bare_us.append(bare_hop_us())
    report = summarize(token_us, bare_us)
    print(json.dumps(report, indent=2) if arguments.json else table(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a hop costs a single stream")
    parser.add_argument("--tokens", type=int, default=400, help="tokens per measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each split")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def cuts(n_stages: int) -> list[int]:
    """Layers at which stages 1… begin, as even as can be."""
    return [N_LAYERS * stage // n_stages for stage in range(1, n_stages)]


async def time_per_token_us(ring: Ring, n_tokens: int) -> float:
    """Median time between tokens of a single stream, in microseconds."""
    gaps: list[float] = []
    async with ring.client() as client:
        seed = 0
        while len(gaps) < n_tokens:
            seed += 1
            gaps += await token_gaps(client, Sampling(max_tokens=200, seed=seed))
    return statistics.median(gaps) * 1e6


async def token_gaps(client: Client, sampling: Sampling) -> list[float]:
    """Seconds between the tokens of one answer."""
    number = client.submit(Submit(0, sampling, prompt="Once upon a time"))
    times: list[float] = []
    while not ended(message := await client.next(number)):
        if isinstance(message, Tokens):
            times.append(time.perf_counter())
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def ended(message: FromHead | None) -> bool:
    """Whether an answer is complete; one that fails ends the benchmark."""
    if message is None or isinstance(message, Rejected):
        raise SystemExit(f"error: the head says {message}")
    return isinstance(message, Finished)


def bare_hop_us(n_trips: int = 2000) -> float:
    """Half a round trip of a hidden state between two processes over a bare socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = multiprocessing.Process(target=echo, args=(server.getsockname(), n_trips))
        peer.start()
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = bytes(HIDDEN_BYTES)
            times = []
            for _ in range(n_trips):
                start = time.perf_counter()
                connection.sendall(data)
                receive_all(connection)
                times.append(time.perf_counter() - start)
        peer.join()
    return statistics.median(times) / 2 * 1e6


def echo(address: tuple[str, int], n_trips: int) -> None:
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(n_trips):
            connection.sendall(receive_all(connection))


def receive_all(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < HIDDEN_BYTES:
        part = connection.recv(HIDDEN_BYTES - len(data))
        if not part:
            raise ConnectionError("the other process has ended")
        data += part
    return data


def summarize(token_us: dict[int, list[float]], bare_us: list[float]) -> dict[str, object]:
    one = token_us[1]
    rows = []
    for n, times in token_us.items():
        hops = [(a - b) / n for a, b in zip(times, one, strict=True)] if n > 1 else []
        rows.append(
            {
                "stages": n,
                "token_us": round(statistics.median(times), 1),
                "tokens_per_s": round(1e6 / statistics.median(times), 1),
                "hop_us": round(statistics.median(hops), 1) if hops else None,
                "hop_us_min": round(min(hops), 1) if hops else None,
                "hop_us_max": round(max(hops), 1) if hops else None,
            }
        )
    medians = [row["hop_us"] for row in rows if row["hop_us"] is not None]
    return {
        "rows": rows,
        "bare_hop_us": round(statistics.median(bare_us), 1),
        "limit_us": LIMIT_US,
        "within_limit": max(medians) <= LIMIT_US,
    }


def table(report: dict[str, object]) -> str:
    rows = report["rows"]
    assert isinstance(rows, list)
    lines = ["STAGES  µs/TOKEN  TOK/S    µs/HOP  (MIN to MAX)"]
    for row in rows:
        hop = "-"
        if row["hop_us"] is not None:
            hop = f"{row['hop_us']:<7} ({row['hop_us_min']} to {row['hop_us_max']})"
        lines.append(f"{row['stages']:<7} {row['token_us']:<9} {row['tokens_per_s']:<8} {hop}")
    lines.append(f"# a bare TCP hop of {HIDDEN_BYTES} bytes takes {report['bare_hop_us']} µs")
    verdict = "is" if report["within_limit"] else "is NOT"
    lines.append(f"# every median {verdict} within {report['limit_us']:.0f} µs a hop")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
