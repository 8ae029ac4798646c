"""A cluster of real node processes on loopback, and what tests do with one."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gangline.cli.children import Children
from gangline.cli.client import Client
from gangline.cli.common import wait_ready, watch_states
from gangline.facts import ClusterState, LoadRequest, ModelFacts, WorkerStats
from tests.make_checkpoint import make_checkpoint
from tests.make_tokenizer import VOCABULARY, make_tokenizer

MODEL = "babble"
SINGLE = "single"  # the same model, for tests that load it with one lane
PATIENCE_S = 10.0  # without any news from a node; less than its heartbeat
CONTEXT = 4096  # of `babble`
LONG_CONTEXT = 1 << 16  # of `single`: an answer lasts much longer than heads take to report
N_LAYERS = 4


class Cluster:
    """`urls` of its nodes, the first one first."""

    def __init__(self, children: Children, urls: list[str]) -> None:
        self.children = children
        self.urls = urls
        self.client = Client(urls[0])

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self.children.all]

    def state(self) -> ClusterState:
        return self.client.get("/cluster/state", ClusterState)

    def wait_model(self, model: str, wanted: Callable[[ModelFacts], bool]) -> ModelFacts:
        """Wait until the facts of a model are what is wanted."""
        with closing(self.client.events("GET", "/cluster/events", None, PATIENCE_S)) as events:
            for event in events:
                for one in msgspec.json.decode(event.data, type=ClusterState).models:
                    if one.id == model and wanted(one):
                        return one
        raise AssertionError("the node ended")

    def wait_stats(self, model: str, wanted: Callable[[WorkerStats], bool]) -> WorkerStats:
        """Wait until the head of a model has counted what is wanted."""
        found = self.wait_model(model, lambda one: one.stats is not None and wanted(one.stats))
        assert found.stats is not None
        return found.stats

    def load(self, **options: Any) -> ModelFacts:
        request = LoadRequest(**options)
        begun = self.client.post("/cluster/models", request, ModelFacts, 60)
        return wait_ready(self.client, begun, lambda model: None)

    def complete(self, url: str, model: str, question: str, **options: Any) -> dict[str, Any]:
        """The first choice of a chat completion, greedy unless told otherwise."""
        messages = [{"role": "user", "content": question}]
        body = {"model": model, "messages": messages, "temperature": 0} | options
        answer = Client(url).post("/v1/chat/completions", body, dict, 60)
        choice: dict[str, Any] = answer["choices"][0]
        return choice

    def complete_all(self, model: str, questions: list[str], **options: Any) -> list[Any]:
        """All questions at the same time, entering at all nodes in turn."""
        urls = itertools.cycle(self.urls)
        with ThreadPoolExecutor(len(questions)) as pool:
            ask = partial(self.complete, model=model, **options)
            return list(
                pool.map(
                    lambda pair: ask(pair[0], question=pair[1]), zip(urls, questions, strict=False)
                )
            )


def make_model(folder: Path) -> Path:
    """A model that says random bytes."""
    make_checkpoint(folder, n_layers=N_LAYERS, vocab=VOCABULARY, context=LONG_CONTEXT, ffn=512)
    return make_tokenizer(folder)


@contextmanager
def running_cluster(n_nodes: int, models: Path, *options: str) -> Iterator[Cluster]:
    """Nodes that know each other, started with `options`; they end with the block."""
    name = f"test-{secrets.token_hex(4)}"
    shared = ["--cluster", name, "--no-scout", "--threads", "1", "--models-dir", str(models)]
    shared += options
    with Children() as children:
        first = children.start("one", ["--port", "0", *shared], None)
        ready = first.ready()
        urls = [ready.api]
        for number in range(1, n_nodes):
            peer = ["--port", "0", "--peer", ready.control]
            children.start(f"more-{number}", [*peer, *shared], None)
        urls += [child.ready().api for child in children.all[1:]]
        cluster = Cluster(children, urls)
        with closing(watch_states(cluster.client)) as states:
            for state in states:
                if len(state.nodes) == n_nodes:
                    break
        yield cluster


class RawClient:
    """A client that may misbehave: a socket, and what was read from it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = f"{parts.hostname}:{parts.port}"
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)

    def post(self, path: str, body: Any) -> None:
        """Send a whole request, and read nothing yet."""
        content = json.dumps(body).encode()
        self.socket.sendall(
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )

    def read_until(self, mark: bytes) -> bytes:
        """What came, up to and with `mark` at least."""
        data = b""
        while mark not in data:
            part = self.socket.recv(65536)
            assert part, f"closed before {mark!r}: {data!r}"
            data += part
        return data

    def read_all(self) -> bytes:
        """What comes until the server closes."""
        data = b""
        while part := self.socket.recv(65536):
            data += part
        return data

    def close(self) -> None:
        self.socket.close()
