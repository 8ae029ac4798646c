"""Runs the web application in the node's own event loop: the port, limits, and a quick end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gangline.errors import Conflict, UsageError

MAX_HEADER_BYTES = 64 * 1024
MAX_CONNECTIONS = 1024
IDLE_S = 30  # a connection without a request is closed after this time
STOP_S = 1  # answers that are under way may take this long at the end


def bind(address: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(
            f"`{address}` is no address of this machine",
            hint="use 127.0.0.1, 0.0.0.0 or one that its network settings show",
        ) from None
    family, kind, protocol, _, target = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere the option lets two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        # Listen now: with SO_REUSEADDR two bound sockets are possible, two listening ones not.
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise bind_error(error, address, port) from None
    return listener


def bind_error(error: OSError, address: str, port: int) -> Conflict | UsageError:
    """The system's refusal of a port in words."""
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {port} on {address} is in use",
            hint="stop what uses it, or choose another by --port",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"port {port} on {address} needs more rights", hint="use a port above 1023"
        )
    return UsageError(
        f"cannot listen on {address} port {port}: {error.strerror}",
        hint="use 127.0.0.1, 0.0.0.0 or an address that this machine's network settings show",
    )


class Protocol(H11Protocol):
    """HTTP/1.1 that also closes connections on which nothing was ever asked."""

    # Ignored: uvicorn narrows the type of `transport`, against the signature that asyncio gives.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the business of whoever runs the loop


class ApiServer:
    """The HTTP server of a node; needs a running event loop."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        # A malformed request is the client's mistake, and not worth a line of ours.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        options: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "lifespan": "off",
            "loop": "asyncio",
            "http": Protocol,
            "ws": "none",
            "proxy_headers": False,
            "server_header": False,
            "limit_concurrency": MAX_CONNECTIONS,
            "timeout_keep_alive": IDLE_S,
            "timeout_graceful_shutdown": STOP_S,
            "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
            "headers": [("X-Content-Type-Options", "nosniff")],
        }
        self._listener = listener
        self._server = _Uvicorn(uvicorn.Config(app, **options))
        self._running: asyncio.Task[None] | None = None
        self.port: int = listener.getsockname()[1]

    async def start(self) -> None:
        """Answer requests from now on; the socket listens already, so none is refused."""
        self._running = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def close(self) -> None:
        """Close the port, end the answers under way within `STOP_S`; safe to call twice."""
        self._server.should_exit = True
        if self._running is None:
            self._listener.close()
        else:
            await self._running
