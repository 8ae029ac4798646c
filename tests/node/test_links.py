"""Links: measured on a real socket, bounded against peers that hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.node import links
from gangline.node.links import EchoResponder, measure_path


@pytest.fixture(scope="module")
def responder() -> Iterator[EchoResponder]:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    yield responder
    responder.close()


def test_a_link_is_measured(responder: EchoResponder) -> None:
    path = measure_path(responder.address)
    assert path.address == "127.0.0.1"
    assert path.rtt_us is not None
    assert path.gbps is not None
    assert 1 < path.rtt_us < 1e6
    assert 0.01 < path.gbps < 1e4


def test_waiting_costs_no_cpu(responder: EchoResponder) -> None:
    measure_path(responder.address)
    before = time.process_time()
    responder._thread.join(0.2)
    assert time.process_time() - before < 0.1


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def closing(connection: socket.socket) -> None:
    connection.close()


def stranger(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def silent_later(connection: socket.socket) -> None:
    connection.recv(8)
    connection.sendall(links.GREETING)


@pytest.mark.parametrize("behaviour", [silent, closing, stranger, silent_later])
def test_a_peer_that_hangs_or_is_none_of_ours_costs_little(
    behaviour: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "DEADLINE_S", 0.2)
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            behaviour(connection)
            done.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with pytest.raises(OSError):
            measure_path(f"127.0.0.1:{listener.getsockname()[1]}")
        done.set()
        thread.join()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=64))
def test_nothing_that_strangers_send_ends_the_responder(data: bytes) -> None:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    host, _, port = responder.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(data)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(links.GREETING)
        assert connection.recv(8) == links.GREETING
        connection.sendall(links._LENGTH.pack(links.BURST_BYTES + 1))
        assert connection.recv(1) == b"", "too long a burst is refused"
    responder.close()


def test_closing_ends_the_thread_and_frees_the_port() -> None:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    responder.close()
    assert not responder._thread.is_alive()
    with pytest.raises(OSError):
        measure_path(responder.address)
