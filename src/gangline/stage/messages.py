"""Framing of the messages between processes: a little-endian u32 length, then that much msgpack.

A node and its workers speak so (`stage/control.py`), and entry nodes with heads
(`head/requests.py`). Knows no message.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TypeVar

import msgspec

from gangline.errors import ProtocolError

T = TypeVar("T")

LENGTH = struct.Struct("<I")


def pack_message(message: msgspec.Struct) -> bytes:
    """The whole frame of a message."""
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


async def receive_message(
    reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T], limit: int, sender: str
) -> T:
    """The next message; `sender` is named where it makes no sense.

    Raises IncompleteReadError or OSError where the stream ends, ProtocolError for nonsense.
    """
    n_bytes = unpack_length(await reader.readexactly(LENGTH.size), limit, sender)
    return decode_message(await reader.readexactly(n_bytes), decoder, sender)


def unpack_length(prefix: bytes, limit: int, sender: str) -> int:
    """Bytes that follow; ProtocolError where they are more than `limit`."""
    (n_bytes,) = LENGTH.unpack(prefix)
    if n_bytes > limit:
        raise ProtocolError(f"{sender} announced a message of {n_bytes} bytes, at most {limit} fit")
    return int(n_bytes)


def decode_message(data: bytes, decoder: msgspec.msgpack.Decoder[T], sender: str) -> T:
    """The message; ProtocolError where it is none."""
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"{sender} sent what cannot be read: {error}") from error
