"""HTTP itself, on a real node: paths, methods, limits, headers, and requests that are none."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest

from gangline.serve.bodies import MAX_BODY_BYTES
from tests.cluster import MODEL, Cluster, RawClient

pytestmark = pytest.mark.cluster

CHAT = "/v1/chat/completions"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def send(cluster: Cluster, method: str, path: str, **options: Any) -> httpx.Response:
    with httpx.Client(base_url=cluster.urls[0], timeout=30) as client:
        return client.request(method, path, **options)


def test_errors_have_the_shape_of_their_path(cluster: Cluster) -> None:
    assert send(cluster, "GET", "/v1/none").json() == {
        "error": {
            "message": "there is no /v1/none here",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }
    }
    assert send(cluster, "GET", "/none").json() == {
        "error": {"code": "not_found", "message": "there is no /none here", "hint": ""}
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/none", 404),
        ("GET", "/v1/chat/completions/", 404),
        ("GET", CHAT, 405),
        ("PUT", "/v1/models", 405),
        ("POST", "/healthz", 405),
        ("DELETE", "/cluster/models/none", 404),
        ("GET", "/cluster/plan", 400),
        ("GET", "/cluster/plan?model=none", 404),
        ("GET", "/cluster/plan?model=~nobody", 404),
        ("GET", "/cluster/plan?model=/a%00b", 404),
        ("GET", "/cluster/plan?model=/" + "x" * 5000, 404),
        ("GET", "/cluster/plan?model=/dev/null", 404),
        ("GET", f"/cluster/plan?model={MODEL}&nodes=none", 404),
        ("GET", f"/cluster/plan?model={MODEL}&spread=maybe", 400),
        ("GET", f"/cluster/plan?model={MODEL}&lanes=-1", 400),
        ("GET", f"/cluster/plan?model={MODEL}&wide=1", 400),
        ("GET", "/web/none.js", 404),
        ("GET", "/web/..%2f..%2fpyproject.toml", 404),
        ("GET", "/web/%2e%2e/app.py", 404),
        ("GET", "//etc/passwd", 404),
    ],
)
def test_what_is_not_there(cluster: Cluster, method: str, path: str, status: int) -> None:
    answer = send(cluster, method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "\xff"}', 400),
        (b"[" * 1_000_000, 400),
        (b'{"model":' * 100_000, 400),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_bodies_that_are_none(cluster: Cluster, content: bytes, status: int) -> None:
    answer = send(cluster, "POST", CHAT, content=content)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = send(cluster, "POST", "/cluster/models", content=content)
    assert answer.status_code == status
    assert answer.json()["error"]["code"]


def test_a_body_without_an_announced_size_is_bounded_too(cluster: Cluster) -> None:
    def endless() -> Any:
        while True:
            yield b" " * 65536

    with httpx.Client(base_url=cluster.urls[0], timeout=30) as client:
        try:
            status = client.post(CHAT, content=endless()).status_code
        except httpx.TransportError:  # it answers and closes while the client still sends
            status = 413
    assert status == 413
    assert send(cluster, "GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_the_content_type_does_not_matter(cluster: Cluster, kind: str) -> None:
    answer = send(cluster, "POST", CHAT, content=json.dumps(HELLO), headers={"Content-Type": kind})
    assert answer.status_code == 200


def test_other_sites_are_kept_out(cluster: Cluster) -> None:
    answer = send(cluster, "GET", "/cluster/state", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "loopback only" in answer.json()["error"]["message"]
    for path, body in ((CHAT, HELLO), ("/cluster/models", {"model": MODEL})):
        answer = send(cluster, "POST", path, json=body, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403
    path = f"/cluster/models/{MODEL}"
    assert send(cluster, "DELETE", path, headers={"Origin": "null"}).status_code == 403
    answer = send(cluster, "POST", CHAT, json=HELLO, headers={"Origin": cluster.urls[0]})
    assert answer.status_code == 200
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = send(cluster, "OPTIONS", CHAT, headers=preflight)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page(cluster: Cluster) -> None:
    answer = send(cluster, "GET", "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = send(cluster, "GET", "/", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    head = send(cluster, "HEAD", "/")
    assert head.status_code == 200
    assert head.content == b""
    assert send(cluster, "GET", "/web/index.html").content == answer.content


def test_health(cluster: Cluster) -> None:
    answer = send(cluster, "GET", "/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000,
        b"GET /" + b"x" * 1_000_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # HTTP/2 with prior knowledge
    ],
)
def test_requests_that_are_none_end_in_an_error(cluster: Cluster, request_bytes: bytes) -> None:
    client = RawClient(cluster.urls[0])
    with contextlib.suppress(ConnectionError):  # it may answer and close before all is sent
        client.socket.sendall(request_bytes)
        status = client.read_all().split(b" ", 2)[1]
        assert status.startswith(b"4")
    client.close()
    assert send(cluster, "GET", "/healthz").status_code == 200


def test_requests_in_a_row_on_one_connection(cluster: Cluster) -> None:
    client = RawClient(cluster.urls[0])
    one = f"GET /healthz HTTP/1.1\r\nHost: {client.host}\r\n"
    client.socket.sendall(f"{one}\r\n{one}Connection: close\r\n\r\n".encode())
    assert client.read_all().count(b'{"status":"ok"}') == 2
    client.close()


def test_a_websocket_is_refused(cluster: Cluster) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert send(cluster, "GET", "/cluster/events/none", headers=upgrade).status_code == 404
