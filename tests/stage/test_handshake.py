"""The handshake over real sockets: who knows the secret comes in, everybody else is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gangline.errors import ProtocolError
from gangline.stage import handshake
from gangline.stage.handshake import Hello, Kind, connect_front, connect_hop
from gangline.stage.listener import Listener

SECRET = b"s" * 32
Arrivals = SimpleQueue[tuple[socket.socket, Hello]]


@pytest.fixture
def door() -> Iterator[tuple[str, Arrivals]]:
    """A listener for both kinds at epoch 7, and what came through."""
    arrivals: Arrivals = SimpleQueue()
    listener = Listener(
        "127.0.0.1", SECRET, 7, {kind: lambda *pair: arrivals.put(pair) for kind in Kind}
    )
    yield f"127.0.0.1:{listener.port}", arrivals
    listener.close()
    while not arrivals.empty():
        arrivals.get()[0].close()


def test_a_hop_is_let_in_and_carries_bytes(door: tuple[str, Arrivals]) -> None:
    address, arrivals = door
    with connect_hop(address, SECRET, 7, stage=3) as mine:
        theirs, hello = arrivals.get(timeout=5)
        assert hello == Hello(Kind.HOP, 7, 3)
        mine.sendall(b"over the hop")
        assert theirs.recv(64) == b"over the hop"
        theirs.close()


def test_an_entry_node_is_let_in(door: tuple[str, Arrivals]) -> None:
    address, arrivals = door

    async def talk() -> bytes:
        reader, writer = await connect_front(address, SECRET, 7)
        theirs, hello = arrivals.get(timeout=5)
        assert hello.kind == Kind.FRONT
        theirs.sendall(b"hi")
        data = await reader.readexactly(2)
        writer.close()
        theirs.close()
        return data

    assert asyncio.run(talk()) == b"hi"


@pytest.mark.parametrize(
    ("secret", "epoch", "reason"),
    [(b"x" * 32, 7, "secret"), (SECRET, 6, "another epoch"), (SECRET, 8, "another epoch")],
)
def test_strangers_and_older_epochs_are_refused(
    door: tuple[str, Arrivals], secret: bytes, epoch: int, reason: str
) -> None:
    address, arrivals = door
    with pytest.raises(ProtocolError, match=reason):
        connect_hop(address, secret, epoch, 0)
    with pytest.raises(ProtocolError, match=reason):
        asyncio.run(connect_front(address, secret, epoch))
    assert arrivals.empty()


def test_a_kind_that_is_not_expected_is_refused() -> None:
    listener = Listener("127.0.0.1", SECRET, 1, {Kind.FRONT: lambda *_: None})
    with pytest.raises(ProtocolError, match="does not expect"):
        connect_hop(f"127.0.0.1:{listener.port}", SECRET, 1, 0)
    listener.close()


def test_an_impostor_at_the_address_is_found_out() -> None:
    """A listener with another secret that welcomes everybody does not get a frame."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        async def talk() -> None:
            connecting = asyncio.create_task(connect_front(address, SECRET, 1))
            connection, _ = await asyncio.to_thread(server.accept)
            with connection:
                connection.sendall(handshake.make_challenge())
                await asyncio.to_thread(connection.recv, 4096)
                connection.sendall(b"\0\0" + bytes(32))  # "welcome", without proof
                with pytest.raises(ProtocolError, match="prove"):
                    await connecting

        asyncio.run(talk())


def test_somebody_who_says_nothing_keeps_nobody_waiting(door: tuple[str, Arrivals]) -> None:
    address, arrivals = door
    host, port = handshake.split_address(address)
    silent = [socket.create_connection((host, port)) for _ in range(5)]
    with connect_hop(address, SECRET, 7, 0):
        arrivals.get(timeout=5)[0].close()
    for each in silent:
        each.close()


# All junk goes to one door on purpose: it has to stay open.
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_junk_is_dropped_and_the_door_stays_open(door: tuple[str, Arrivals], junk: bytes) -> None:
    address, arrivals = door
    with socket.create_connection(handshake.split_address(address)) as stranger:
        stranger.sendall(junk)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass  # until it is closed on us
    assert arrivals.empty()


def test_the_door_still_opens_after_junk(door: tuple[str, Arrivals]) -> None:
    address, arrivals = door
    for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"GLNG" + bytes(200)):
        with socket.create_connection(handshake.split_address(address)) as stranger:
            stranger.sendall(junk)
    with connect_hop(address, SECRET, 7, 0):
        arrivals.get(timeout=5)[0].close()


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:http", "host:²"])
def test_a_bad_address_is_named(address: str) -> None:
    with pytest.raises(ProtocolError, match="not an address"):
        handshake.split_address(address)


def test_addresses_go_both_ways() -> None:
    for address in ("10.0.0.1:80", "[::1]:5454", "studio.local:1"):
        assert handshake.join_address(*handshake.split_address(address)) == address
