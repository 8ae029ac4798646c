"""Frames over real sockets: what is sent arrives, what is malformed is refused and named."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.errors import GanglineError, ProtocolError
from gangline.stage.frames import (
    HEADER_BYTES,
    FrameKind,
    Layout,
    Limits,
    pack_header,
    parse_header,
    wanted_rows,
)
from gangline.stage.transport import FrameReceiver, FrameSender, HopClosed

LIMITS = Limits(epoch=3, lanes=8, rows=64, width=16)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def layout_of(counts: list[int], wanted: list[int] | None = None) -> Layout:
    n = len(counts)
    flags = [1] * n if wanted is None else wanted
    return np.array([range(n), [0] * n, counts, flags], dtype=np.int32).reshape(4, n)


def rows(n_rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rows, LIMITS.width)).astype(np.float32)


def raw(layout: Layout, hidden: np.ndarray, step: int = 1) -> bytes:
    header = pack_header(FrameKind.STEP, 3, step, layout, hidden)
    return header + layout.tobytes() + hidden.tobytes()


def test_frames_arrive_as_they_were_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = FrameSender(pair[0], 3), FrameReceiver(pair[1], LIMITS)
    for step, counts in enumerate([[1], [5, 1, 30], [1] * 8], start=1):
        layout, hidden = layout_of(counts), rows(sum(counts), step)
        sender.send(FrameKind.STEP, step, layout, hidden)
        frame = receiver.receive()
        assert (frame.kind, frame.step) == (FrameKind.STEP, step)
        np.testing.assert_array_equal(frame.layout, layout)
        np.testing.assert_array_equal(frame.hidden, hidden)


def test_a_result_may_be_empty(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = FrameSender(pair[0], 3), FrameReceiver(pair[1], LIMITS)
    sender.send(FrameKind.RESULT, 9, layout_of([]), rows(0))
    frame = receiver.receive()
    assert (frame.kind, frame.step, frame.hidden.shape) == (FrameKind.RESULT, 9, (0, 16))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(1, 700),
)
def test_frames_survive_any_cutting_of_the_stream(steps: list[list[int]], piece: int) -> None:
    frames = [(layout_of(counts), rows(sum(counts), i)) for i, counts in enumerate(steps)]
    stream = b"".join(raw(layout, hidden, i) for i, (layout, hidden) in enumerate(frames))
    left, right = socket.socketpair()
    with left, right:
        cut = [stream[at : at + piece] for at in range(0, len(stream), piece)]
        writer = threading.Thread(target=lambda: [left.sendall(part) for part in cut])
        writer.start()
        receiver = FrameReceiver(right, LIMITS)
        for step, (layout, hidden) in enumerate(frames):
            frame = receiver.receive()
            assert frame.step == step
            np.testing.assert_array_equal(frame.layout, layout)
            np.testing.assert_array_equal(frame.hidden, hidden)
        writer.join()


def test_a_full_ring_does_not_wait_for_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    """Both ends send more than the kernel holds before either reads: `while_blocked` must."""
    limits = Limits(epoch=3, lanes=8, rows=4096, width=1024)
    hidden = np.ones((4096, 1024), dtype=np.float32)
    errors: list[Exception] = []

    def exchange(connection: socket.socket) -> None:
        connection.setblocking(False)
        sender = FrameSender(connection, 3)
        receiver = FrameReceiver(connection, limits, n_frames=2)
        try:
            for step in range(2):
                sender.send(FrameKind.STEP, step, layout_of([4096]), hidden, receiver.fill)
            for step in range(2):
                while (frame := receiver.take()) is None:
                    receiver.fill()
                assert frame.step == step and frame.hidden.min() == 1
        except (AssertionError, OSError, GanglineError) as error:
            errors.append(error)

    threads = [threading.Thread(target=exchange, args=(end,), daemon=True) for end in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors and not any(thread.is_alive() for thread in threads)


def test_a_closed_hop_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver = FrameReceiver(pair[1], LIMITS)
    pair[0].sendall(raw(layout_of([3]), rows(3))[:-7])
    FrameSender(pair[0], 3).close()
    with pytest.raises(HopClosed):
        receiver.receive()


def test_closing_wakes_a_receiver(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver = FrameReceiver(pair[1], LIMITS)
    outcome: list[str] = []

    def wait() -> None:
        try:
            receiver.receive()
        except HopClosed:
            outcome.append("closed")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    receiver.close()
    thread.join(timeout=10)
    assert outcome == ["closed"]


def test_sending_into_a_closed_hop_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    sender = FrameSender(pair[0], 3)
    pair[1].close()
    with pytest.raises(HopClosed):
        for step in range(2):
            sender.send(FrameKind.STEP, step, layout_of([1]), rows(1))


BAD_LAYOUTS = {
    "negative slot": (layout_of([2, 2]), 0, -1),
    "negative position": (layout_of([2, 2]), 1, -5),
    "empty row count": (layout_of([2, 2]), 2, 0),
    "counts that do not add up": (layout_of([2, 2]), 2, 3),
    "a flag that is none": (layout_of([2, 2]), 3, 2),
    "a slot twice": (layout_of([2, 2]), 0, 1),
}


@pytest.mark.parametrize("name", BAD_LAYOUTS)
def test_a_bad_layout_is_refused(pair: tuple[socket.socket, socket.socket], name: str) -> None:
    layout, field, value = BAD_LAYOUTS[name]
    layout = layout.copy()
    layout[field, 0] = value
    pair[0].sendall(raw(layout, rows(4)))
    with pytest.raises(ProtocolError, match="layout"):
        FrameReceiver(pair[1], LIMITS).receive()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 2}, "epoch 2"),
        ({"width": 17}, "17 wide"),
        ({"rows": 65}, "65 rows"),
        ({"lanes": 9}, "9 sequences"),
    ],
)
def test_a_frame_beyond_the_limits_is_refused(change: dict[str, int], reason: str) -> None:
    width, n_rows = change.get("width", 16), change.get("rows", 9)
    layout = layout_of([1] * change.get("lanes", 8))
    hidden = np.zeros((n_rows, width), dtype=np.float32)
    header = pack_header(FrameKind.STEP, change.get("epoch", 3), 1, layout, hidden)
    with pytest.raises(ProtocolError, match=reason):
        parse_header(header, LIMITS)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400),
    st.lists(st.tuples(st.integers(0, HEADER_BYTES + 80), st.integers(0, 255)), max_size=6),
)
def test_any_bytes_give_a_frame_or_an_error(junk: bytes, damage: list[tuple[int, int]]) -> None:
    """Junk, and good frames with a few bytes changed: never a crash, never a wait."""
    good = bytearray(raw(layout_of([2, 3]), rows(5)))
    for at, value in damage:
        good[at] = value
    for data in (junk, bytes(good) + junk):
        left, right = socket.socketpair()
        with left, right:
            left.sendall(data)
            left.shutdown(socket.SHUT_WR)
            receiver = FrameReceiver(right, LIMITS)
            with pytest.raises((ProtocolError, HopClosed)):
                for _ in range(10):
                    receiver.receive()


def test_wanted_rows_are_last_rows() -> None:
    layout = layout_of([3, 1, 4], [1, 0, 1])
    assert wanted_rows(layout).tolist() == [2, 7]
