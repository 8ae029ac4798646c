"""A zenoh session: opened on a port that is free, closed whatever happens.

A session that stays open hangs the interpreter at its end, so each is also closed at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import socket

import zenoh

from gangline.errors import Conflict, GanglineError, Unavailable
from gangline.node.config import NodeConfig, zenoh_settings

_PORT_ATTEMPTS = 5  # a free port may be taken between asking for it and using it


class OpenSession:
    """An open session and the port on which it listens."""

    def __init__(self, session: zenoh.Session, port: int) -> None:
        self.session = session
        self.port = port
        atexit.register(self._close)

    @staticmethod
    async def open(config: NodeConfig) -> OpenSession:
        """Listen and begin to look for peers; Conflict where the port is in use, Unavailable."""
        fixed = config.control_port if config.control_port is not None else config.port + 1
        free = fixed == 0 or (config.control_port is None and config.port == 0)
        for attempt in range(_PORT_ATTEMPTS):
            # Shielded: a cancelled start must still get hold of the session to close it.
            opening = asyncio.ensure_future(asyncio.to_thread(_open, config, 0 if free else fixed))
            try:
                return await asyncio.shield(opening)
            except asyncio.CancelledError:
                with contextlib.suppress(GanglineError):  # none was opened: nothing to close
                    await (await opening).close()
                raise
            except Conflict:
                if not free or attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Close to the end, even if we are cancelled meanwhile; the cancellation follows."""
        closing = asyncio.ensure_future(asyncio.to_thread(self._close))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    def _close(self) -> None:
        atexit.unregister(self._close)
        self.session.close()  # type: ignore[no-untyped-call]  # zenoh has no annotation here


def _open(config: NodeConfig, port: int) -> OpenSession:
    """Blocks for some milliseconds."""
    try:
        port = port or _free_port(config.listen)
        settings = zenoh.Config()
        for key, value in zenoh_settings(config, port).items():
            settings.insert_json5(key, json.dumps(value))
        return OpenSession(zenoh.open(settings), port)
    except (zenoh.ZError, OSError) as error:
        if port and _in_use(config.listen, port):
            raise Conflict(
                f"port {port} on {config.listen} is in use (the node's control port)",
                hint="another node runs here; stop it, or choose another --port",
            ) from error
        raise Unavailable(
            f"cannot listen on {config.listen} port {port}: {error}",
            hint="--listen takes an address of this machine, or 0.0.0.0 for all",
        ) from error


def _in_use(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
