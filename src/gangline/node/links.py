"""Links to other nodes, measured: round trip time and bandwidth towards each.

Every node answers echoes on a small port of its own, with one blocking thread that sleeps until a
peer connects: idle costs nothing. A node measures or is measured, never both and never twice at a
time (`EchoResponder.turn`), so that no measurement is in another's numbers; who comes meanwhile is
told at once and comes back. A turn ends after `TURN_S`, so a peer that hangs costs no more.

    responder: "GLNGECHO", or "GLNGBUSY" and the end
    connector: u32 n, n bytes    responder: u32 n, the first min(n, 64) bytes   (repeated)
"""

from __future__ import annotations

import contextlib
import logging
import os
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

READY = b"GLNGECHO"
BUSY = b"GLNGBUSY"
TURN_S = 6.0  # of one measurement, from its first byte
GREETING_S = 2.0  # to connect, to be greeted, and to begin after the greeting
OWN_TURN_S = 2.0  # to wait here until nobody measures this node any more
N_ROUND_TRIPS = 20
ROUND_TRIPS_S = 0.6  # far away fewer are enough: what differs from one to the next is small there
PING_BYTES = 64
PAUSE_S = 0.004  # before each ping: a token finds cores and network asleep, too, and wakes them
BURST_BYTES = tuple(1 << bits for bits in range(14, 25, 2))  # 16 KiB to 16 MiB
N_BURSTS = 3  # of each size; the first opens TCP's window, and the fastest counts
LONG_BURST_S = 0.02  # such a burst is exact: a link's delays vary by a millisecond or so
BURSTS_S = 2.5  # larger ones are not begun when they would take longer than what is left of this
_ACCEPT_AGAIN_S = 0.05
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LENGTH = struct.Struct("<I")
_BLOCK = os.urandom(1 << 20)  # what bursts are made of; links that compress gain nothing
_CHUNK_BYTES = 1 << 18


class PeerBusy(ConnectionError):
    """One of the two nodes measures, or is measured: come back in a moment."""


class Interrupted(ConnectionError):
    """The measurement was told to stop."""


class EchoResponder:
    """Answers measurements on `listen`, from when it is made until `close`.

    `turn` is free while this node neither measures nor is measured.
    """

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
        self.turn = threading.Lock()
        self._own = (_LOOPBACK_OF.get(host, host), port)
        self._closing = False
        self._served: tuple[threading.Thread, socket.socket] | None = None
        self._thread = threading.Thread(target=self._serve, name="echo", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and break off a turn; returns when the threads have ended."""
        self._closing = True
        with contextlib.suppress(OSError):  # a blocked accept() is woken portably by a caller only
            socket.create_connection(self._own, timeout=GREETING_S).close()
        self._thread.join(GREETING_S)
        if self._served is not None:
            thread, connection = self._served
            with contextlib.suppress(OSError):  # that turn is over already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(TURN_S)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:  # that caller went away, or we are out of descriptors
                log.debug("a caller was not accepted: %s", error)
                time.sleep(_ACCEPT_AGAIN_S)
                continue
            if self._closing or not self.turn.acquire(blocking=False):
                with connection, contextlib.suppress(OSError):  # it went away: as well
                    connection.sendall(BUSY)
                continue
            thread = threading.Thread(
                target=self._take_turn, args=(connection,), name="echo-turn", daemon=True
            )
            self._served = (thread, connection)
            thread.start()

    def _take_turn(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # late, or gone: its turn is over
                self._answer(_Timed(connection, TURN_S))
        finally:
            self.turn.release()

    def _answer(self, peer: _Timed) -> None:
        peer.send(READY)
        prefix = peer.receive(_LENGTH.size, within_s=GREETING_S)
        while not self._closing:
            (n_bytes,) = _LENGTH.unpack(prefix)
            if n_bytes > BURST_BYTES[-1]:
                return
            echo = peer.receive(n_bytes)
            peer.send(_LENGTH.pack(n_bytes) + echo)
            prefix = peer.receive(_LENGTH.size)


class _Timed:
    """A socket all of whose calls together end by one deadline, or when `stop` is set."""

    def __init__(
        self, connection: socket.socket, within_s: float, stop: threading.Event | None = None
    ) -> None:
        self._connection = connection
        self._end_s = time.monotonic() + within_s
        self._stop = stop
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes | memoryview) -> None:
        self._limit()
        self._connection.sendall(data)

    def receive(self, n_bytes: int, within_s: float = TURN_S) -> bytes:
        """Read n_bytes and return the first 64 of them; raises OSError at the end of either."""
        first, buffer = b"", bytearray(min(n_bytes, _CHUNK_BYTES))
        while n_bytes > 0:
            self._limit(within_s)
            got = self._connection.recv_into(buffer, min(n_bytes, len(buffer)))
            if got == 0:
                raise ConnectionResetError("closed by the peer")
            first = (first + bytes(buffer[: min(got, PING_BYTES)]))[:PING_BYTES]
            n_bytes -= got
        return first

    def _limit(self, within_s: float = TURN_S) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Interrupted("told to stop")
        left_s = min(within_s, self._end_s - time.monotonic())
        if left_s <= 0:
            raise TimeoutError("the turn is over")
        self._connection.settimeout(left_s)


def measure_path(
    address: str,
    kind: InterfaceKind | None = None,
    turn: threading.Lock | None = None,
    stop: threading.Event | None = None,
) -> LinkPath:
    """Measure the way to `address`, "host:port"; blocks while others measure this node, then for
    up to `TURN_S`. Raises OSError: PeerBusy, Interrupted, or what keeps the peer from answering.

    The bandwidth is that towards the peer, which measures the other direction itself.
    """
    turn = turn or threading.Lock()
    if not turn.acquire(timeout=OWN_TURN_S):
        raise PeerBusy("others measure this node")
    try:
        host, port = split_address(address)
        with socket.create_connection((host, port), timeout=GREETING_S) as connection:
            greeting = _Timed(connection, GREETING_S, stop).receive(len(READY))
            if greeting == BUSY:
                raise PeerBusy("the peer measures, or is measured")
            if greeting != READY:
                raise ConnectionError("the peer does not measure links")
            peer = _Timed(connection, TURN_S, stop)
            trips_s = _round_trips(peer)
            gbps = _bandwidth(peer, min(trips_s))
    finally:
        turn.release()
    rtt_us = round(statistics.median(trips_s) * 1e6, 1)
    return LinkPath(host, kind, rtt_us, None if gbps is None else float(f"{gbps:.4g}"))


def _round_trips(peer: _Timed) -> list[float]:
    """Seconds of single round trips, at least one."""
    found: list[float] = []
    end_s = time.monotonic() + ROUND_TRIPS_S
    while len(found) < N_ROUND_TRIPS and (not found or time.monotonic() < end_s):
        time.sleep(PAUSE_S)
        found.append(_exchange(peer, PING_BYTES))
    return found


def _bandwidth(peer: _Timed, rtt_s: float) -> float | None:
    """Gbit/s of bursts that grow until one takes long enough to be exact.

    None for a link that does not carry the smallest one within the turn.
    """
    gbps, enough_s = None, max(LONG_BURST_S, rtt_s)
    end_s = time.monotonic() + BURSTS_S
    for n_bytes in BURST_BYTES:
        fastest_s = min(_bursts(peer, n_bytes), default=None)
        if fastest_s is None:
            break
        wire_s = max(fastest_s - rtt_s, 1e-9)
        gbps = n_bytes * 8 / wire_s / 1e9
        growth = BURST_BYTES[1] / BURST_BYTES[0]
        following_s = N_BURSTS * (growth * wire_s + rtt_s)
        if wire_s >= enough_s or time.monotonic() + following_s > end_s:
            break
    return gbps


def _bursts(peer: _Timed, n_bytes: int) -> Iterator[float]:
    """Seconds of bursts of one size, as many as the turn has room for."""
    try:
        for _ in range(N_BURSTS):
            yield _exchange(peer, n_bytes)
    except Interrupted:
        raise
    except OSError as error:  # the turn is over, by our clock or the peer's: what was found stands
        log.debug("a burst of %d bytes was broken off: %s", n_bytes, error)


def _exchange(peer: _Timed, n_bytes: int) -> float:
    """The seconds until `n_bytes` are there and an answer is back."""
    block = memoryview(_BLOCK)
    first = min(n_bytes, len(block))
    opening = _LENGTH.pack(n_bytes) + block[:first]
    began_s = time.perf_counter()
    peer.send(opening)
    for start in range(first, n_bytes, len(block)):
        peer.send(block[: n_bytes - start])
    peer.receive(_LENGTH.size + min(n_bytes, PING_BYTES))
    return time.perf_counter() - began_s
