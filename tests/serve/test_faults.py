"""A worker dies while it answers: what clients and operators are told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import httpx
import openai
import pytest

from gangline.cli.common import unload
from tests.cluster import LONG_CONTEXT, SINGLE, Cluster, RawClient

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.name != "posix", reason="kills a process by a POSIX signal"),
]

LONG = {"model": SINGLE, "prompt": "hello", "temperature": 0, "max_tokens": LONG_CONTEXT - 10}


@pytest.fixture
def spread(cluster: Cluster) -> Iterator[Cluster]:
    """The model over both nodes, on one lane."""
    cluster.load(model=SINGLE, context=LONG_CONTEXT, lanes=1, spread=True)
    yield cluster
    unload(cluster.client, SINGLE)


def kill_worker(cluster: Cluster, role: str) -> None:
    workers = [worker for node in cluster.state().nodes for worker in node.workers]
    victim = next(w for w in workers if w.model == SINGLE and w.role == role)
    os.kill(victim.pid, signal.SIGKILL)


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("role", ["head", "stage"])
def test_a_stream_ends_with_an_error(spread: Cluster, role: str, entry: int) -> None:
    client = RawClient(spread.urls[entry])
    client.post("/v1/completions", LONG | {"stream": True})
    client.read_until(b'"text":')
    kill_worker(spread, role)
    rest = client.read_all()
    client.close()
    assert b"[DONE]" not in rest
    error = json.loads(rest[rest.index(b'{"error":') :].split(b"\n", 1)[0])["error"]
    assert error["code"] == "worker_lost"
    assert error["type"] == "server_error"
    assert error["message"]


def test_the_official_client_raises(spread: Cluster) -> None:
    with openai.OpenAI(base_url=f"{spread.urls[0]}/v1", api_key="none", max_retries=0) as client:
        stream = client.completions.create(**LONG, stream=True)
        next(stream)
        kill_worker(spread, "stage")
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.code == "worker_lost"


def test_a_whole_answer_becomes_an_error(spread: Cluster) -> None:
    client = RawClient(spread.urls[1])
    client.post("/v1/completions", LONG)
    spread.wait_stats(SINGLE, lambda stats: stats.lanes_active == 1)
    kill_worker(spread, "stage")
    answer = client.read_all()
    client.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "worker_lost"


def test_the_node_is_healthy_again(cluster: Cluster) -> None:
    epoch = cluster.load(model=SINGLE, context=64, lanes=1, spread=True).epoch
    kill_worker(cluster, "stage")
    cluster.wait_model(SINGLE, lambda model: model.epoch > epoch and model.state == "ready")
    assert httpx.get(f"{cluster.urls[0]}/healthz").json() == {"status": "ok"}
    unload(cluster.client, SINGLE)
