"""Links to other nodes, measured: round trip time and bandwidth towards each.

Every node answers echoes on a small port of its own, with one blocking thread that sleeps until a
peer connects: idle costs nothing. One peer is served at a time, so that two measurements do not
disturb each other; both sides give up after `DEADLINE_S`, so a peer that hangs costs no more.

    connector: "GLNGECHO"        responder: "GLNGECHO" once it is this connector's turn
    connector: u32 n, n bytes    responder: u32 n, the first min(n, 64) bytes   (repeated)
"""

from __future__ import annotations

import contextlib
import logging
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator

from gangline.errors import Unavailable
from gangline.facts import InterfaceKind, LinkPath
from gangline.stage.handshake import join_address, split_address

log = logging.getLogger(__name__)

GREETING = b"GLNGECHO"
N_ROUND_TRIPS = 20
PING_BYTES = 64
PAUSE_S = 0.004  # before each ping: a token finds cores and network asleep, too, and wakes them
BURST_BYTES = 4 << 20
N_BURSTS = 3  # the first opens TCP's window
DEADLINE_S = 2.0
_ACCEPT_AGAIN_S = 0.05
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LENGTH = struct.Struct("<I")


class EchoResponder:
    """Answers measurements on `listen`, from when it is made until `close`."""

    def __init__(self, listen: str, advertise: str) -> None:
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        try:
            self._socket = socket.create_server((listen, 0), family=family, backlog=32)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {listen}: {error.strerror}",
                hint="--listen takes an address of this machine, or 0.0.0.0 for all",
            ) from error
        host, port = self._socket.getsockname()[:2]
        self.address = join_address(advertise, port)
        self._own = (_LOOPBACK_OF.get(host, host), port)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="echo", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; returns when the thread has ended, at the latest after a measurement."""
        self._closing = True
        with contextlib.suppress(OSError):  # a blocked accept() is woken portably by a caller only
            socket.create_connection(self._own, timeout=DEADLINE_S).close()
        self._thread.join(2 * DEADLINE_S)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:  # that caller went away, or we are out of descriptors
                log.debug("a caller was not accepted: %s", error)
                time.sleep(_ACCEPT_AGAIN_S)
                continue
            with connection, contextlib.suppress(OSError):
                if not self._closing:
                    _answer(_Timed(connection))


class _Timed:
    """A socket all of whose calls together end by one deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end_s = time.monotonic() + DEADLINE_S
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes | memoryview) -> None:
        self._limit()
        self._connection.sendall(data)

    def receive(self, n_bytes: int) -> bytes:
        """Read n_bytes and return the first 64 of them; raises OSError at the end of either."""
        first, buffer = b"", bytearray(min(n_bytes, 1 << 18))
        while n_bytes > 0:
            self._limit()
            got = self._connection.recv_into(buffer, min(n_bytes, len(buffer)))
            if got == 0:
                raise ConnectionResetError("closed by the peer")
            first = (first + bytes(buffer[: min(got, PING_BYTES)]))[:PING_BYTES]
            n_bytes -= got
        return first

    def _limit(self) -> None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"not finished within {DEADLINE_S:g} s")
        self._connection.settimeout(left_s)


def _answer(peer: _Timed) -> None:
    if peer.receive(len(GREETING)) != GREETING:
        return
    peer.send(GREETING)
    while True:
        (n_bytes,) = _LENGTH.unpack(peer.receive(_LENGTH.size))
        if n_bytes > BURST_BYTES:
            return
        echo = peer.receive(n_bytes)
        peer.send(_LENGTH.pack(n_bytes) + echo)


def measure_path(address: str, kind: InterfaceKind | None = None) -> LinkPath:
    """Measure the way to `address`, "host:port"; blocks up to two seconds. Raises OSError.

    The bandwidth is that towards the peer, which measures the other direction itself.
    """
    host, port = split_address(address)
    with socket.create_connection((host, port), timeout=DEADLINE_S) as connection:
        peer = _Timed(connection)
        peer.send(GREETING)
        if peer.receive(len(GREETING)) != GREETING:
            raise ConnectionError("the peer does not measure links")
        rtt_s = statistics.median(_exchanges(peer, PING_BYTES, N_ROUND_TRIPS, PAUSE_S))
        # A slow link ends by the deadline; what was measured until then stands.
        burst_s: list[float] = []
        with contextlib.suppress(TimeoutError):
            for seconds in _exchanges(peer, BURST_BYTES, N_BURSTS):
                burst_s.append(seconds)
    gbps = None
    if burst_s:
        one_way_s = max(min(burst_s) - rtt_s / 2, 1e-9)
        gbps = round(BURST_BYTES * 8 / one_way_s / 1e9, 3)
    return LinkPath(host, kind, round(rtt_s * 1e6, 1), gbps)


def _exchanges(peer: _Timed, n_bytes: int, count: int, pause_s: float = 0.0) -> Iterator[float]:
    """The seconds of each exchange, before each of which is a pause."""
    payload = _LENGTH.pack(n_bytes) + bytes(n_bytes)
    for _ in range(count):
        time.sleep(pause_s)
        started = time.perf_counter()
        peer.send(payload)
        peer.receive(_LENGTH.size + min(n_bytes, PING_BYTES))
        yield time.perf_counter() - started
