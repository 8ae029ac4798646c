"""A scripted node: serves the real page and plays states of a cluster that are hard to bring about.

Real nodes are tested in `test_page.py`; this one is for sixteen machines, failures and hostile
names. It answers as docs and `facts.py` say, with the content security policy of the real server.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from gangline.facts import ClusterState

WEB = Path(__file__).parents[2] / "src" / "gangline" / "web"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "default-src 'self'"
GIB = 2**30

Json = dict[str, Any]


def node(index: int, *, name: str = "", alive: bool = True, **changes: Any) -> Json:
    """Facts of machine `index`, counted from 1."""
    chips = ("Apple M3 Ultra", "NVIDIA GB10", "AMD Ryzen AI Max+ 395", "Raspberry Pi 5")
    total = (96, 128, 64, 16)[index % 4] * GIB
    facts = {
        "id": f"n-{index:02}", "name": name or f"node-{index}", "pid": 1000 + index,
        "api": f"http://10.0.0.{index}:5454", "alive": alive, "version": "0.1.0",
        "facts_version": 1, "sequence": 1, "links": [], "workers": [], "stored": [],
        "hardware": {
            "chip": chips[index % 4], "arch": "arm64", "system": "linux", "cores": 4 * index,
            "memory_bytes": total, "free_bytes": int(total * 0.71), "vector": "neon",
            "read_bytes_per_s": 2.1e10, "measured_at": "2026-01-01",
        },
    }  # fmt: skip
    return facts | changes


def stored(model: str, n_layers: int, **changes: Any) -> Json:
    return {
        "id": model, "path": f"/models/{model}", "fingerprint": model, "size_bytes": 11_000_000,
        "family": "llama", "n_layers": n_layers, "supported": True, "reason": "",
    } | changes  # fmt: skip


def stats(tokens_per_s: float = 0.0, lanes_active: int = 0, lanes_waiting: int = 0) -> Json:
    return {
        "lanes_active": lanes_active, "lanes_waiting": lanes_waiting, "tokens_total": 48_210,
        "tokens_per_s": tokens_per_s, "ttft_ms": 9.1, "steps_total": 900,
    }  # fmt: skip


def split(nodes: list[Json], model: str, n_layers: int, state: str = "ready",
          **changes: Any) -> Json:  # fmt: skip
    """Spreads a model over `nodes`: adds workers and links to them, returns the model's facts."""
    stages = []
    n_parts = len(nodes)
    for index, one in enumerate(nodes):
        span = [n_layers * index // n_parts, n_layers * (index + 1) // n_parts]
        role = "stage" if index else "head"
        why = f"reads 21 GB/s, takes {span[1] - span[0]} of {n_layers} layers"
        stages.append({"node": one["id"], "role": role, "span": span, "why": why})
        one["workers"].append({
            "id": f"w-{model}-{index}", "pid": 2000 + index, "model": model, "epoch": 1,
            "role": role, "span": span,
            "state": state if state in ("ready", "failed") else "loading",
            "backend": "cpu", "progress": 0.43, "weight_bytes": 4 * GIB, "cache_bytes": 2 * GIB,
            "stats": None, "reason": "",
        })  # fmt: skip
        if n_parts > 1:
            to = nodes[(index + 1) % n_parts]["id"]
            one["links"].append(
                {"to": to, "rtt_us": 31.0 * (index + 1), "gbps": 22.1 / (index + 1)}
            )
    return {
        "id": model, "state": state, "epoch": 1, "steward": nodes[0]["id"], "stages": stages,
        "left_out": [], "progress": 1.0 if state == "ready" else 0.43, "reason": "",
        "context": 1024, "lanes": 32, "n_layers": n_layers, "stats": stats(), "created": 1,
    } | changes  # fmt: skip


def cluster(nodes: list[Json], models: list[Json]) -> Json:
    """The state, with every field that a node sends: those not given have their defaults."""
    given = {
        "cluster": "gangline", "node": nodes[0]["id"], "nodes": nodes, "models": models,
        "version": "0.1.0", "facts_version": 1,
    }  # fmt: skip
    state = msgspec.json.decode(json.dumps(given).encode(), type=ClusterState)
    sent: Json = json.loads(msgspec.json.encode(state))
    assert_holds(sent, given)
    return sent


def assert_holds(whole: Any, part: Any) -> None:
    """Everything in `part` is in `whole`: no test shows a field that no node sends."""
    if isinstance(part, dict):
        for name, value in part.items():
            assert name in whole, f"a node sends no `{name}`"
            assert_holds(whole[name], value)
    elif isinstance(part, list):
        assert len(whole) == len(part)
        for one, other in zip(whole, part, strict=True):
            assert_holds(one, other)
    else:
        assert whole == part


def chunk(text: str = "", **changes: Any) -> Json:
    """One chunk of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]} | changes


def answer(text: str, nodes: list[str]) -> Iterator[Json]:
    """A whole answer, a word per chunk, and what the node measured."""
    for word in text.split(" "):
        yield chunk(word + " ")
    measured = {"ttft_ms": 9.1, "tokens_per_s": 410.2, "epoch": 1, "nodes": nodes}
    end = chunk(gangline=measured)
    end["choices"][0]["finish_reason"] = "stop"
    yield end


class ScriptedNode:
    """An HTTP server on a free port of the loopback address; `show` changes what it says."""

    def __init__(self, state: Json) -> None:
        self.state = state
        self.chunks: list[Json] = []
        self.plan: Json = {"stages": [], "left_out": [], "context": 1024, "lanes": 32, "why": ""}
        self.failure: tuple[int, Json] | None = None  # status and error of the next calls
        self.requests: list[tuple[str, str, Any]] = []  # method, path, decoded body
        self.changed = threading.Condition()
        self.version = 0
        self.holding = threading.Event()  # while clear, an answer stops before its last chunk
        self.holding.set()
        self.connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def show(self, state: Json) -> None:
        with self.changed:
            self.state = state
            self.version += 1
            self.changed.notify_all()

    def start(self) -> None:
        """Listens; after `stop` again on the same port, like a node that comes back."""
        handler = type("Handler", (_Handler,), {"node": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Closes the port and every connection, as a killed process would."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # the browser may have closed it already
                connection.shutdown(socket.SHUT_RDWR)
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    @property
    def is_running(self) -> bool:
        return self._server is not None


class _Handler(BaseHTTPRequestHandler):
    node: ScriptedNode
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def setup(self) -> None:
        super().setup()
        self.node.connections.add(self.connection)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/cluster/state":
            self._json(200, self.node.state)
        elif path == "/cluster/plan":
            self.node.requests.append(("GET", self.path, None))
            self._json(200, self.node.plan)
        elif path == "/cluster/events":
            self._cluster_events()
        else:
            file = WEB / ("index.html" if path == "/" else path.removeprefix("/web/"))
            kind = TYPES.get(file.suffix, "text/html; charset=utf-8")
            if file.is_file():
                self._send(200, file.read_bytes(), kind)
            else:
                self._json(404, {"error": {"code": "not_found", "message": path, "hint": ""}})

    def _cluster_events(self) -> None:
        node = self.node
        self._events()
        sent = -1
        while node.is_running:
            with node.changed:
                node.changed.wait_for(lambda: node.version != sent)  # noqa: B023 - `sent` is meant as it is now
                sent, state = node.version, node.state
            if not node.is_running:
                return
            try:
                self.wfile.write(f"event: state\ndata: {json.dumps(state)}\n\n".encode())
            except OSError:
                return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        self.node.requests.append(("POST", self.path, body))
        if self.node.failure is not None:
            status, error = self.node.failure
            self._json(status, {"error": error})
        elif self.path == "/v1/chat/completions":
            self._answer()
        else:
            self._json(202, {})

    def _answer(self) -> None:
        self._events()
        chunks = self.node.chunks
        for index, one in enumerate(chunks):
            if index == len(chunks) - 1:
                self.node.holding.wait()
            try:
                self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
            except OSError:
                return
        with contextlib.suppress(OSError):  # the page was reloaded or closed meanwhile
            self.wfile.write(b"data: [DONE]\n\n")

    def do_DELETE(self) -> None:
        self.node.requests.append(("DELETE", self.path, None))
        self._json(200, {})
