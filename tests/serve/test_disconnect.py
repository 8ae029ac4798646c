"""Clients that go away: their lane is freed at once, whatever they were waiting for.

The model is loaded anew for each test, with a single lane: a request is answered only if the one
before it is out of the way, and the head's count of tokens tells how far that one came.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from gangline.cli.common import unload
from tests.cluster import LONG_CONTEXT, SINGLE, Cluster, RawClient

pytestmark = pytest.mark.cluster

PROMPT = {"model": SINGLE, "prompt": "hello", "temperature": 0}
N_LONG = LONG_CONTEXT - 10
LONG: dict[str, Any] = PROMPT | {"max_tokens": N_LONG}


@pytest.fixture
def single(cluster: Cluster) -> Iterator[Cluster]:
    cluster.load(model=SINGLE, context=LONG_CONTEXT, lanes=1)
    yield cluster
    unload(cluster.client, SINGLE)


def close(client: RawClient) -> None:
    client.close()


def reset(client: RawClient) -> None:
    """Close with RST in place of FIN, as a program that crashes may do."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def tokens_once_free(cluster: Cluster) -> int:
    """All tokens that the head has drawn, once a further answer of three is complete."""
    with openai.OpenAI(
        base_url=f"{cluster.urls[0]}/v1", api_key="none", timeout=30, max_retries=0
    ) as client:
        answer = client.completions.create(**PROMPT, max_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    stats = cluster.wait_stats(
        SINGLE, lambda stats: stats.tokens_total >= 3 and not stats.lanes_active
    )
    assert stats.lanes_waiting == 0
    return stats.tokens_total


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("leave", [close, reset])
def test_a_stream_that_is_left(
    single: Cluster, entry: int, leave: Callable[[RawClient], None]
) -> None:
    client = RawClient(single.urls[entry])
    client.post("/v1/completions", LONG | {"stream": True})
    client.read_until(b'"text":')
    leave(client)
    assert tokens_once_free(single) < N_LONG


@pytest.mark.parametrize("entry", [0, 1])
def test_a_whole_answer_that_nobody_waits_for(single: Cluster, entry: int) -> None:
    client = RawClient(single.urls[entry])
    client.post("/v1/completions", LONG)
    single.wait_stats(SINGLE, lambda stats: stats.lanes_active == 1)
    client.close()
    assert tokens_once_free(single) < N_LONG


def test_clients_that_wait_for_a_lane_and_leave(single: Cluster) -> None:
    clients = [RawClient(single.urls[index % 2]) for index in range(20)]
    for client in clients:
        client.post("/v1/completions", LONG | {"stream": True})
    single.wait_stats(SINGLE, lambda stats: stats.lanes_waiting == 19)
    for client in clients:
        client.close()
    assert tokens_once_free(single) < N_LONG


def test_a_client_that_leaves_in_its_request(cluster: Cluster) -> None:
    client = RawClient(cluster.urls[0])
    client.socket.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: {client.host}\r\n"
        "Content-Length: 1000\r\n\r\n{".encode()
    )
    client.close()
    assert cluster.state().models[0].state == "ready"


def test_events_that_are_left(cluster: Cluster) -> None:
    for _ in range(20):
        client = RawClient(cluster.urls[0])
        client.socket.sendall(
            f"GET /cluster/events HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()
        )
        client.read_until(b"event: state")
        client.close()
    assert cluster.state().models[0].state == "ready"
