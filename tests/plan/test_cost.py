"""Messages and prompts on several machines: each place busy with one thing at a time."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.plan.cost import FIRST_WINDOW_BYTES, pipelined_seconds, window_seconds
from gangline.plan.fleet import link_of

Rows = list[list[float]]
parts = st.floats(0, 10)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[Rows, Rows, Rows]:
    """Times of steps at stages, of hops, and the part of each hop in which the link is busy."""
    n_steps, n_stages = draw(st.integers(1, 6)), draw(st.integers(1, 5))

    def rows(n: int) -> Rows:
        return [draw(st.lists(parts, min_size=n, max_size=n)) for _ in range(n_steps)]

    times = rows(n_stages)
    wires = rows(n_stages if n_stages > 1 else 0)
    latency = draw(parts)
    return times, [[wire + latency for wire in one] for one in wires], wires


@given(prompts())
def test_a_prompt_takes_at_least_its_slowest_place_and_at_most_the_sum(
    prompt: tuple[Rows, Rows, Rows],
) -> None:
    times, hops, wires = prompt
    found = pipelined_seconds(*prompt)
    together = sum(map(sum, times)) + sum(map(sum, hops))
    assert found <= together + 1e-9
    for busy in (times, wires):
        assert all(sum(column) <= found + 1e-9 for column in zip(*busy, strict=True))
    assert all(sum(t) + sum(h) <= found + 1e-9 for t, h in zip(times, hops, strict=True))
    if len(times) == 1 or len(times[0]) == 1:
        assert found == pytest.approx(together)


def test_equal_steps_follow_each_other_at_the_pace_of_the_slowest_stage() -> None:
    assert pipelined_seconds([[2.0, 3.0]] * 4, [[0.5, 0.5]] * 4, [[0.1, 0.1]] * 4) == (
        pytest.approx(2 + 0.5 + 4 * 3 + 0.5)
    )


def test_a_links_round_trip_delays_and_does_not_fill_it() -> None:
    times, hops = [[1.0, 1.0, 1.0]] * 3, [[0.0, 5.0, 0.0]] * 3
    assert pipelined_seconds(times, hops, [[0.0] * 3] * 3) == pytest.approx(3 + 5 + 2)
    assert pipelined_seconds(times, hops, hops) == pytest.approx(1 + 1 + 3 * 5 + 1)


def test_no_more_steps_are_under_way_than_there_are_stages() -> None:
    """The third step of two stages waits until the first has come back."""
    hops = [[0.0, 10.0]] * 3
    assert pipelined_seconds([[1.0, 1.0]] * 3, hops, [[0.0, 0.0]] * 3) == (
        pytest.approx((1 + 1 + 10) + (1 + 1 + 10))
    )


@given(st.floats(1, 1e9), st.floats(1e-3, 400), st.floats(0.001, 500))
def test_windows_cost_whole_round_trips_at_most_until_they_fill_the_link(
    n_bytes: float, gbps: float, rtt_ms: float
) -> None:
    link = msgspec.structs.replace(link_of("1gbit"), gbps=gbps, rtt_us=rtt_ms * 1e3)
    lost_s = window_seconds(n_bytes, link)
    full = rtt_ms * 1e-3 * gbps * 1e9 / 8
    rounds = math.log2(max(1.0, min(full, n_bytes) / FIRST_WINDOW_BYTES)) + 1
    assert 0 <= lost_s <= rounds * rtt_ms * 1e-3
    assert window_seconds(2 * n_bytes, link) >= lost_s
    if min(full, n_bytes) <= FIRST_WINDOW_BYTES:
        assert lost_s == 0


def test_a_prompt_of_a_megabyte_over_a_far_link_waits_for_six_windows() -> None:
    """14, 29, 58, 116, 232, 463 kB; the next would be more than the link holds in a round trip."""
    link = link_of("1gbit,5ms")
    sent = FIRST_WINDOW_BYTES * (2**6 - 1)
    assert window_seconds(1 << 20, link) == pytest.approx(6 * 5e-3 - sent * 8e-9)
    assert window_seconds(1 << 20, link_of("tb5-rdma")) == 0
