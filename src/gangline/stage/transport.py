"""One end of a hop: frames over one TCP socket, without copies that can be avoided.

A `FrameReceiver` owns one buffer that holds the largest allowed frame and reads into it with as
few system calls as the kernel allows; a frame is valid until the next call. A `FrameSender`
gathers header, layout and hidden states in one call. Knows sockets and frames, not models.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from gangline.errors import WorkerLost
from gangline.stage.frames import (
    HEADER_BYTES,
    Frame,
    FrameKind,
    Header,
    Hidden,
    Layout,
    Limits,
    pack_header,
    parse_body,
    parse_header,
)

_GATHERS = hasattr(socket.socket, "sendmsg")  # not on Windows


class HopClosed(WorkerLost):
    """The neighbour closed the hop, or the connection broke."""


class FrameReceiver:
    """Frames from the previous stage.

    The buffer has room for `n_frames` of the largest allowed size and a part of the next, which
    the kernel may deliver in the same call.
    """

    def __init__(self, connection: socket.socket, limits: Limits, n_frames: int = 1) -> None:
        self._connection = connection
        self._limits = limits
        self._buffer = memoryview(bytearray(n_frames * limits.frame_bytes + HEADER_BYTES))
        self._have = 0  # bytes in the buffer
        self._taken = 0  # of these, bytes of the frame that was handed out last

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    def set_blocking(self, blocking: bool) -> None:
        """Whether `fill` waits for data or returns without."""
        self._connection.setblocking(blocking)

    def receive(self) -> Frame:
        """Wait for the next frame; raises HopClosed, or ProtocolError for a bad frame."""
        while (frame := self.take()) is None:
            self.fill()
        return frame

    def take(self) -> Frame | None:
        """The next frame if it is in the buffer, without waiting."""
        self._drop_taken()
        header = self._header()
        if header is None or self._have < HEADER_BYTES + header.body_bytes:
            return None
        self._taken = HEADER_BYTES + header.body_bytes
        return parse_body(header, self._buffer[HEADER_BYTES : self._taken])

    def fill(self) -> None:
        """Read once, up to the buffer's free space, waiting if the socket is a blocking one."""
        self._drop_taken()
        free = self._buffer[self._have :]
        if not free:
            return
        try:
            n_bytes = self._connection.recv_into(free)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise HopClosed(f"the hop from the previous stage broke: {error}") from error
        if n_bytes == 0:
            raise HopClosed("the previous stage closed its hop")
        self._have += n_bytes

    def close(self) -> None:
        """Close the socket, waking a thread that waits in `receive`."""
        _close(self._connection)

    def _header(self) -> Header | None:
        if self._have < HEADER_BYTES:
            return None
        return parse_header(self._buffer, self._limits)

    def _drop_taken(self) -> None:
        if self._taken:
            rest = self._have - self._taken
            if rest:
                self._buffer[:rest] = bytes(self._buffer[self._taken : self._have])
            self._have, self._taken = rest, 0


class FrameSender:
    """Frames to the next stage; counts nothing and keeps nothing."""

    def __init__(self, connection: socket.socket, epoch: int) -> None:
        self._connection = connection
        self._epoch = epoch

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    def set_blocking(self, blocking: bool) -> None:
        """Whether `send` waits by itself or calls `while_blocked`."""
        self._connection.setblocking(blocking)

    def send(
        self,
        kind: FrameKind,
        step: int,
        layout: Layout,
        hidden: Hidden,
        while_blocked: Callable[[], None] | None = None,
    ) -> None:
        """Send one frame whole; raises HopClosed.

        On a non-blocking socket `while_blocked` is called each time the kernel takes no more; it
        returns when the socket may be writable again. The head reads results there, so that a
        full ring cannot wait for itself.
        """
        header = pack_header(kind, self._epoch, step, layout, hidden)
        parts = [memoryview(header)]
        parts += [_as_bytes(part) for part in (layout, hidden) if part.size]
        try:
            self._send_parts(parts, while_blocked)
        except OSError as error:
            raise HopClosed(f"the hop to the next stage broke: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        _close(self._connection)

    def _send_parts(
        self, parts: list[memoryview], while_blocked: Callable[[], None] | None
    ) -> None:
        if not _GATHERS:
            parts = [memoryview(b"".join(parts))]
        while parts:
            try:
                if _GATHERS:
                    sent = self._connection.sendmsg(parts)
                else:
                    sent = self._connection.send(parts[0])
            except BlockingIOError:
                if while_blocked is None:
                    raise
                while_blocked()
                continue
            while parts and sent >= len(parts[0]):
                sent -= len(parts[0])
                parts.pop(0)
            if sent:
                parts[0] = parts[0][sent:]


def _as_bytes(array: Layout | Hidden) -> memoryview:
    return array.data.cast("B")


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
