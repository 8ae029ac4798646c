"""Malformed requests against a real node: it must answer each, and be none the worse for it.

    python -m tests.fuzz_http --count 10000

Asserts that no request hangs, crashes the node or gets a 500, and that afterwards the node answers,
all lanes are free and it holds no more memory and files than before.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
from hypothesis import strategies as st

from gangline.cli.talk import Line, Wanted, stream_answer
from gangline.serve.parameters import NEUTRAL, ChatBody, TextBody
from tests.cluster import MODEL, Cluster, make_model, running_cluster

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PATIENCE_S = 30.0
MEMORY_SLACK_BYTES = (
    24 << 20
)  # caches of allocator and interpreter; a leak of 10 KiB a request shows
FILE_SLACK = 4

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([0, 1, -1, 2**63, 1e308, "demo", MODEL, "user", "stop", "\x00", "🙂"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
NAMES = st.sampled_from(
    [*ChatBody.__struct_fields__, *TextBody.__struct_fields__, *NEUTRAL[ChatBody], "x"]
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "system", "assistant", "tool", ""]) | VALUES,
        "content": st.text(max_size=20) | VALUES,
        "name": VALUES,
        "tool_calls": VALUES,
    },
)
VALID: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "a"}],
    "prompt": "a",
    "max_tokens": 2,
}


@st.composite
def near_bodies(draw: st.DrawFn) -> bytes:
    """A body that is almost right: a few of its members are not, and maybe it is cut or flipped."""
    body: dict[str, Any] = dict(VALID)
    del body[draw(st.sampled_from(["messages", "prompt"]))]
    if draw(st.integers(0, 2)) == 0:
        body["messages"] = draw(st.lists(MESSAGE, max_size=4))
    body |= draw(st.dictionaries(NAMES, VALUES, max_size=3))
    content = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(content) - 1))
        content = content[:at] + draw(st.binary(max_size=3)) + content[at + 1 :]
    return content[: draw(st.integers(1, len(content)))] if draw(st.booleans()) else content


PATHS = st.sampled_from(
    [CHAT, TEXT, "/cluster/models", "/cluster/plan?model=", "/v1/models/", "/web/", "/healthz",
     "/cluster/models/", "/cluster/state", "/"],
)  # fmt: skip
JSON_BODIES = VALUES.map(lambda value: json.dumps(value).encode())
BODIES = near_bodies() | st.binary(max_size=60) | JSON_BODIES
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Bytes to send, and whether they are a whole request of HTTP/1.1."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.binary(min_size=1, max_size=200)), False
    method, path, host, more = "POST", draw(st.sampled_from([CHAT, TEXT])), "127.0.0.1", ""
    if kind <= 6:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]))
        path = draw(PATHS)
        if path.endswith(("/", "=")):
            path += draw(PRINTABLE)
    if kind <= 3:
        host = draw(st.sampled_from(["evil.example", "", "localhost:1", "["]))
        more = draw(st.sampled_from(["", "Origin: http://x\r\n", "Content-Type: x/y\r\n"]))
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n"
    body = draw(BODIES)
    if kind == 7:  # a length that is wrong, or none
        size = draw(st.sampled_from(["Content-Length: 5\r\n", "Content-Length: x\r\n", ""]))
        return f"{head}{size}\r\n".encode() + body, False
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, True


def send(url: str, content: bytes, whole: bool) -> bytes:
    """The answer to a request; one that is not whole ends with the client's end."""
    parts = urlsplit(url)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port or 80), PATIENCE_S) as connection:
        try:
            connection.sendall(content)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            assert not whole, content
    return answer


def check(url: str, content: bytes, whole: bool) -> int:
    """Send a request, and assert that the answer is one; its status, 0 if there is none."""
    answer = send(url, content, whole)
    if not whole and not answer:
        return 0
    assert answer.startswith(b"HTTP/1.1 "), (content, answer)
    status = int(answer.split(b" ", 2)[1])
    assert status != 500, (content, answer)
    if status >= 400 and b"application/json" in answer:
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["message"], answer
    return status


@contextmanager
def unchanged(cluster: Cluster) -> Iterator[None]:
    """Assert that the node is as it was before the block: alive, idle, no larger."""
    pid = cluster.pids[0]
    list(stream_answer(cluster.client, MODEL, [Line("user", "a")], Wanted(max_tokens=4)))
    before = resident_bytes(pid), open_files(pid)
    yield
    pieces = list(stream_answer(cluster.client, MODEL, [Line("user", "a")], Wanted(max_tokens=4)))
    assert pieces
    stats = cluster.wait_stats(MODEL, lambda stats: not stats.lanes_active + stats.lanes_waiting)
    assert stats.tokens_total
    assert cluster.pids == [pid]
    after = resident_bytes(pid), open_files(pid)
    print(f"resident {before[0] >> 20} -> {after[0] >> 20} MiB, files {before[1]} -> {after[1]}")
    assert after[0] - before[0] < MEMORY_SLACK_BYTES
    assert after[1] - before[1] < FILE_SLACK


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * int(fields.split("VmRSS:")[1].split()[0])


def open_files(pid: int) -> int:
    """Open files and sockets of a process; 0 where /proc does not tell."""
    folder = Path(f"/proc/{pid}/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def fuzz(url: str, count: int, seed: int | None = None) -> Counter[int]:
    """Send `count` drawn requests; how often each status came."""
    seen: Counter[int] = Counter()

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        # Waiting for a server is slow, and bodies are large: what these two warn of is meant.
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
        ],
        phases=(hypothesis.Phase.generate,),
    )
    @hypothesis.given(requests())
    def one(request: tuple[bytes, bool]) -> None:
        seen[check(url, *request)] += 1

    run: Callable[[], None] = one if seed is None else hypothesis.seed(seed)(one)
    run()
    return seen


def main() -> None:
    """Fuzz a node of its own, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / MODEL)
        with running_cluster(1, Path(folder)) as cluster:
            cluster.load(model=MODEL, context=128, lanes=4)
            started_s = time.monotonic()
            with unchanged(cluster):
                seen = fuzz(cluster.urls[0], options.count, options.seed)
            print(f"by status: {dict(sorted(seen.items()))}")
            print(f"{options.count} requests in {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
