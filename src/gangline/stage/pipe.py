"""Messages over a worker's stdin and stdout; the worker's side, blocking.

The node's side is `node/process.py`. Does not know what the messages mean.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO

import msgspec

from gangline.stage.control import MAX_MESSAGE_BYTES, FromWorker, ToWorker
from gangline.stage.messages import LENGTH, decode_message, pack_message, unpack_length

_MESSAGES: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


class ControlPipe:
    """Messages from and to the node. `send` may be called from any thread."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
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
        prefix = self._reading.read(LENGTH.size)
        if len(prefix) < LENGTH.size:
            return None
        n_bytes = unpack_length(prefix, MAX_MESSAGE_BYTES, "the node")
        data = self._reading.read(n_bytes)
        if len(data) < n_bytes:
            return None
        return decode_message(data, _MESSAGES, "the node")

    def send(self, message: FromWorker) -> None:
        """Send one message; raises OSError when the node is gone."""
        frame = pack_message(message)
        with self._lock:
            self._writing.write(frame)
            self._writing.flush()
