"""Which Host and Origin headers are answered."""

from __future__ import annotations

import pytest

from gangline.node.config import is_loopback
from gangline.serve.guard import refusal


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:5454", "localhost:5454", "LOCALHOST", "[::1]:5454", "a.localhost",
     "localhost.", "127.8.9.1:1", None],
)  # fmt: skip
def test_loopback_hosts_are_answered(host: str | None) -> None:
    assert refusal("GET", host, None, loopback_only=True) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:5454", "127.0.0.1.evil.example", "192.168.1.2:5454", "",
     "localhost.evil.example", "[", "[::1", "0.0.0.0:5454", "127.0.0.1@evil.example",
     "notlocalhost"],
)  # fmt: skip
def test_other_hosts_are_refused_on_a_loopback_node_only(host: str) -> None:
    refused = refusal("GET", host, None, loopback_only=True)
    assert refused is not None
    assert refused.http_status == 403
    assert refusal("GET", host, None, loopback_only=False) is None


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("loopback_only", [True, False])
def test_only_the_own_origin_may_change_anything(method: str, loopback_only: bool) -> None:
    host = "127.0.0.1:5454"
    for origin in (None, "http://127.0.0.1:5454", "HTTP://127.0.0.1:5454".lower()):
        assert refusal(method, host, origin, loopback_only) is None
    for origin in ("http://evil.example", "null", "http://127.0.0.1:5455", "http://localhost:5454",
                   "file://", "", "127.0.0.1:5454", "ftp://127.0.0.1:5454"):  # fmt: skip
        refused = refusal(method, host, origin, loopback_only)
        assert refused is not None
        assert refused.http_status == 403


def test_reading_is_left_to_the_browser() -> None:
    """Without CORS headers a browser shows the answer to nobody else."""
    assert refusal("GET", "127.0.0.1:5454", "http://evil.example", loopback_only=True) is None


def test_is_loopback() -> None:
    assert is_loopback("::1")
    assert not is_loopback("::")
    assert not is_loopback("")
