"""The port of a worker: accepts, runs the handshake, hands the connection to whom it is for.

Each handshake runs on its own short-lived thread with a time limit, so that somebody who connects
and says nothing keeps nobody else waiting. Strangers are counted, logged and dropped.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping

from gangline.errors import ProtocolError
from gangline.stage import handshake
from gangline.stage.handshake import Hello, Kind

log = logging.getLogger(__name__)

MAX_PENDING = 32  # handshakes under way at once; more are dropped unheard

Receiver = Callable[[socket.socket, Hello], None]


class Listener:
    """Listens at once; `receivers` names what is expected, and who takes it (on any thread)."""

    def __init__(
        self, host: str, secret: bytes, epoch: int, receivers: Mapping[Kind, Receiver]
    ) -> None:
        self._secret, self._epoch, self._receivers = secret, epoch, dict(receivers)
        self._pending = threading.BoundedSemaphore(MAX_PENDING)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=128)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, name="listener", daemon=True).start()

    def close(self) -> None:
        """Stop listening; connections that were handed over live on."""
        with contextlib.suppress(OSError):  # wakes accept() where close() alone does not
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except ConnectionError:
                continue  # that caller went away before we answered
            except OSError:
                return  # closed
            if not self._pending.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kinds = set(self._receivers)
            hello = handshake.accept(connection, self._secret, self._epoch, kinds)
        except (OSError, ProtocolError) as error:
            log.info("a connection failed its handshake: %s", error)
            hello = None
        finally:
            self._pending.release()
        if hello is None:
            connection.close()
            return
        self._receivers[Kind(hello.kind)](connection, hello)
