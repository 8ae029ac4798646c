"""Keeps other web sites out of a node that a browser on the same machine can reach.

Two attacks need no access to the network: a page that posts to `http://127.0.0.1:5454`
(cross-site request forgery), and a page whose host name is made to resolve to 127.0.0.1 (DNS
rebinding). A browser cannot forge `Origin` and `Host`, so these two headers settle both.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gangline.node.config import is_loopback
from gangline.serve.failures import Refused, failure_response

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def host_name(authority: str) -> str:
    """`host` of "host:port"; "" if the header is not an authority at all."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def refusal(
    method: str, host: str | None, origin: str | None, loopback_only: bool
) -> Refused | None:
    """Why a request with these headers is not answered; `None` if it is."""
    if loopback_only and host is not None and not is_loopback(host_name(host)):
        return Refused(
            f"this node answers on loopback only, not as `{host}`",
            hint="use http://127.0.0.1, or start it with `gangline up --listen ADDR`",
        )
    if method in _SAFE_METHODS or origin is None:
        return None
    scheme, _, authority = origin.partition("://")
    if scheme in ("http", "https") and host is not None and authority.lower() == host.lower():
        return None
    return Refused(
        f"a page of `{origin}` may not change this node",
        hint="open the node's own page, or call the API from a program",
    )


class Guard:
    """Middleware that refuses requests before anything else looks at them."""

    def __init__(self, app: ASGIApp, loopback_only: bool) -> None:
        self.app = app
        self.loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            refused = refusal(
                scope["method"], headers.get("host"), headers.get("origin"), self.loopback_only
            )
            if refused is not None:
                await failure_response(scope["path"], refused)(scope, receive, send)
                return
        await self.app(scope, receive, send)
