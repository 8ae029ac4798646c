"""A link with a bandwidth and a delay, made of a proxy: what sockets see of a slow cable."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

from gangline.stage.handshake import split_address

_CHUNK_BYTES = 4096


@contextlib.contextmanager
def slow_link(address: str, gbps: float, one_way_s: float) -> Iterator[str]:
    """The address of a way to `address` that is so slow in both directions."""
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=_accept, args=(listener, address, gbps, one_way_s, opened), daemon=True
        )
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.suppress(OSError):  # wakes accept() where closing alone does not
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in opened:
        _end(connection)


def _accept(
    listener: socket.socket,
    address: str,
    gbps: float,
    one_way_s: float,
    opened: list[socket.socket],
) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # closed
        far = socket.create_connection(split_address(address))
        opened += [near, far]
        for start, end in ((near, far), (far, near)):
            start.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            for work in (_send_slowly, _deliver):
                arguments = (start, end, waiting, 8 / (gbps * 1e9), one_way_s)
                threading.Thread(target=work, args=arguments, daemon=True).start()


_Waiting = queue.SimpleQueue[tuple[float, bytes]]


def _send_slowly(
    start: socket.socket, _: socket.socket, waiting: _Waiting, byte_s: float, one_way_s: float
) -> None:
    """Take bytes as fast as the cable does, and note when they arrive."""
    free_s = 0.0
    data = b"."
    while data:
        try:
            data = start.recv(_CHUNK_BYTES)
        except OSError:
            data = b""  # closed
        free_s = max(free_s, time.monotonic()) + len(data) * byte_s
        waiting.put((free_s + one_way_s, data))


def _deliver(
    start: socket.socket, end: socket.socket, waiting: _Waiting, _: float, __: float
) -> None:
    while True:
        due_s, data = waiting.get()
        time.sleep(max(0.0, due_s - time.monotonic()))
        if not data:
            _end(end)
            return
        try:
            end.sendall(data)
        except OSError:
            _end(start)
            return


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
