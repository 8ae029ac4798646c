"""Length-prefixed msgpack over a worker's stdin and stdout; the worker's side, blocking.

The node's side is in `node.supervisor`. Knows the framing, not what the messages mean.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from typing import BinaryIO

import msgspec

from gangline.errors import ProtocolError
from gangline.stage.control import FromWorker, ToWorker

_LENGTH = struct.Struct("<I")
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


class ControlPipe:
    """Messages from and to the node. `send` may be called from any thread."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._decoder = msgspec.msgpack.Decoder(ToWorker)
        self._encoder = msgspec.msgpack.Encoder()
        self._lock = threading.Lock()

    @staticmethod
    def of_process() -> ControlPipe:
        """Take over stdin and stdout; whatever is printed from now on goes to stderr."""
        if sys.platform == "win32":
            import msvcrt

            for number in (0, 1):
                msvcrt.setmode(number, os.O_BINARY)
        reading = os.fdopen(os.dup(0), "rb")
        writing = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return ControlPipe(reading, writing)

    def receive(self) -> ToWorker | None:
        """The next message; None when the node is gone. Raises ProtocolError for nonsense."""
        prefix = self._reading.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return None
        (n_bytes,) = _LENGTH.unpack(prefix)
        if n_bytes > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"the node announced a message of {n_bytes} bytes")
        data = self._reading.read(n_bytes)
        if len(data) < n_bytes:
            return None
        try:
            message: ToWorker = self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the node sent a message that cannot be read: {error}") from error
        return message

    def send(self, message: FromWorker) -> None:
        """Send one message; raises OSError when the node is gone."""
        data = self._encoder.encode(message)
        with self._lock:
            self._writing.write(_LENGTH.pack(len(data)) + data)
            self._writing.flush()
