"""Links: measured on real sockets, by turns, bounded against peers that hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.facts import LinkPath
from gangline.node import links
from gangline.node.links import BURST_BYTES, EchoResponder, Interrupted, PeerBusy, measure_path
from gangline.stage.handshake import split_address
from tests.node.slow_link import slow_link


@pytest.fixture
def responder() -> Iterator[EchoResponder]:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    yield responder
    responder.close()


def connect(address: str) -> socket.socket:
    return socket.create_connection(split_address(address))


def test_a_link_is_measured(responder: EchoResponder) -> None:
    path = measure_path(responder.address)
    assert path.address == "127.0.0.1"
    assert path.rtt_us is not None
    assert path.gbps is not None
    assert 1 < path.rtt_us < 1e6
    assert 0.01 < path.gbps < 1e4


@pytest.mark.parametrize(("gbps", "one_way_s"), [(0.1, 0.0), (0.005, 0.005), (0.5, 0.002)])
def test_a_slow_link_is_as_slow_as_it_is(
    responder: EchoResponder, gbps: float, one_way_s: float
) -> None:
    with slow_link(responder.address, gbps, one_way_s) as address:
        path = measure_path(address)
    assert path.rtt_us is not None and path.gbps is not None
    assert path.rtt_us >= 2 * one_way_s * 1e6
    # Nothing is faster than the link; a machine with other work is slower.
    assert gbps / 4 < path.gbps < gbps * 1.1


def test_a_link_that_carries_no_burst_within_a_turn_has_its_round_trip_at_least(
    responder: EchoResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "TURN_S", 0.5)
    with slow_link(responder.address, 1e-4, 0.0) as address:
        path = measure_path(address)
    assert path.rtt_us is not None and path.gbps is None


@pytest.mark.parametrize("gbps", [1e-3, 0.1, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("rtt_s", [2e-5, 1e-3, 0.1])
def test_bursts_grow_until_they_are_exact_and_end_in_time(
    gbps: float, rtt_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a perfect link with a clock of its own: what is found is right, and soon."""
    now_s, largest = 0.0, 0

    def exchange(_: object, n_bytes: int) -> float:
        nonlocal now_s, largest
        took_s = rtt_s + n_bytes * 8 / (gbps * 1e9)
        now_s, largest = now_s + took_s, n_bytes
        return took_s

    monkeypatch.setattr(links, "_exchange", exchange)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    found = links._bandwidth(object(), rtt_s)  # type: ignore[arg-type]
    assert found == pytest.approx(gbps, rel=1e-6)
    assert now_s <= links.BURSTS_S or largest == BURST_BYTES[0]
    enough_s = max(links.LONG_BURST_S, rtt_s)
    in_time = links.N_BURSTS * (4 * largest * 8 / (gbps * 1e9) + rtt_s) + now_s <= links.BURSTS_S
    long = largest * 8 / (gbps * 1e9) >= enough_s
    assert long or largest == BURST_BYTES[-1] or not in_time


def test_only_one_is_served_and_others_are_told_at_once(responder: EchoResponder) -> None:
    with connect(responder.address) as first:
        assert first.recv(8) == links.READY
        with pytest.raises(PeerBusy):
            measure_path(responder.address)
    assert measure_until_free(responder).gbps is not None


def measure_until_free(responder: EchoResponder) -> LinkPath:
    while True:
        try:
            return measure_path(responder.address)
        except PeerBusy:
            time.sleep(0.001)  # the end of the other's connection has yet to be seen


def test_two_nodes_never_measure_each_other_at_the_same_time() -> None:
    ends = [EchoResponder("127.0.0.1", "127.0.0.1") for _ in range(2)]
    found: list[LinkPath] = []
    refused = 0

    def measure(own: EchoResponder, other: EchoResponder) -> None:
        nonlocal refused
        while True:
            try:
                found.append(measure_path(other.address, turn=own.turn))
                return
            except PeerBusy:
                refused += 1
                time.sleep(0.01 if own is ends[0] else 0.017)

    pairs = [(ends[0], ends[1]), (ends[1], ends[0])]
    threads = [threading.Thread(target=measure, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and all(path.gbps for path in found)
    for end in ends:
        end.close()
        assert not end.turn.locked()


def test_a_node_that_measures_is_not_measured(responder: EchoResponder) -> None:
    with responder.turn, connect(responder.address) as other:
        assert other.recv(8) == links.BUSY
        assert other.recv(1) == b""


def test_a_node_that_is_measured_waits_a_while_and_then_says_so(
    responder: EchoResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "OWN_TURN_S", 0.01)
    turn = threading.Lock()
    with turn, pytest.raises(PeerBusy):
        measure_path(responder.address, turn=turn)


def test_a_measurement_stops_when_it_is_told_to(responder: EchoResponder) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        measure_path(responder.address, stop=stop)
    assert measure_until_free(responder).gbps is not None


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
    connection.sendall(links.READY)


@pytest.mark.parametrize("behaviour", [silent, closing, stranger, silent_later])
def test_a_peer_that_hangs_or_is_none_of_ours_costs_little(
    behaviour: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "TURN_S", 0.2)
    monkeypatch.setattr(links, "GREETING_S", 0.2)
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
    with connect(responder.address) as connection:
        connection.sendall(data)
    while True:
        with connect(responder.address) as connection:
            if connection.recv(8) == links.READY:  # the stranger's turn is over
                connection.sendall(links._LENGTH.pack(BURST_BYTES[-1] + 1))
                assert connection.recv(1) == b"", "too long a burst is refused"
                break
    responder.close()


def test_a_stranger_who_says_nothing_ends_his_turn(
    responder: EchoResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "GREETING_S", 0.1)
    with connect(responder.address) as connection:
        assert connection.recv(8) == links.READY
        assert connection.recv(1) == b""
    assert measure_until_free(responder).gbps is not None


def test_closing_ends_the_thread_and_frees_the_port() -> None:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    responder.close()
    assert not responder._thread.is_alive()
    with pytest.raises(OSError):
        measure_path(responder.address)


def test_closing_breaks_off_a_turn() -> None:
    responder = EchoResponder("127.0.0.1", "127.0.0.1")
    with connect(responder.address) as other:
        assert other.recv(8) == links.READY
        responder.close()
        assert other.recv(1) == b""
    assert responder._served is not None
    assert not responder._served[0].is_alive() and not responder.turn.locked()
