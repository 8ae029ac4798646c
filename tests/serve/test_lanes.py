"""Many lanes in one step: nobody waits for another answer to finish."""

from __future__ import annotations

from contextlib import ExitStack, closing

from gangline.cli.client import Client
from gangline.cli.common import unload
from tests.cluster import LONG_CONTEXT, SINGLE, Cluster

N_LANES = 16


def test_sixteen_lanes_are_served_together(cluster: Cluster) -> None:
    """A short answer is complete while fifteen endless ones go on, over two stages."""
    cluster.load(model=SINGLE, context=LONG_CONTEXT // 4, lanes=N_LANES, spread=True)
    messages = [{"role": "user", "content": "go on"}]
    body = {"model": SINGLE, "messages": messages, "temperature": 0, "stream": True}
    with ExitStack() as stack:
        for number in range(N_LANES - 1):
            client = Client(cluster.urls[number % len(cluster.urls)])
            answer = stack.enter_context(
                closing(client.events("POST", "/v1/chat/completions", body))
            )
            next(answer)  # the role
            next(answer)  # the first text: it has a lane
        choice = cluster.complete(cluster.urls[0], SINGLE, "and you?", max_tokens=5)
        assert choice["finish_reason"] == "length"
        stats = cluster.wait_stats(SINGLE, lambda stats: stats.tokens_total > 0)
        assert stats.lanes_active >= N_LANES - 1, "the others have not ended before"
    cluster.wait_stats(SINGLE, lambda stats: stats.lanes_active == 0)
    unload(cluster.client, SINGLE)
