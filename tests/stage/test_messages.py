"""Frames of messages: what is sent is read, and nonsense is named."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.errors import ProtocolError
from gangline.stage.messages import pack_message, receive_message


class Note(msgspec.Struct, frozen=True):
    text: str


NOTES: msgspec.msgpack.Decoder[Note] = msgspec.msgpack.Decoder(Note)
LIMIT = 100


def received(data: bytes) -> list[Note]:
    """The messages of a stream that ends."""

    async def read() -> list[Note]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while not reader.at_eof():
            found.append(await receive_message(reader, NOTES, LIMIT, "the other"))
        return found

    return asyncio.run(read())


def test_a_frame_is_a_length_and_msgpack() -> None:
    assert pack_message(Note("a")) == b"\x08\0\0\0\x81\xa4text\xa1a"


@given(st.lists(st.builds(Note, st.text(max_size=20)), max_size=4))
def test_what_is_sent_is_read(notes: list[Note]) -> None:
    assert received(b"".join(map(pack_message, notes))) == notes


def test_a_message_that_is_too_long_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError, match="the other announced a message of 101 bytes"):
        received((LIMIT + 1).to_bytes(4, "little"))


def test_what_is_no_message_is_named() -> None:
    with pytest.raises(ProtocolError, match="the other sent what cannot be read"):
        received(b"\x01\0\0\0\xc0")


def test_a_stream_that_ends_inside_a_message_ends() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        received(pack_message(Note("a"))[:-1])
