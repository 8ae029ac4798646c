"""The pace of one lane: only its own consecutive steps count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.head.pace import FEWEST, WINDOW, Pace


def alone(pace: Pace, first: int, count: int, step_s: float, lane: object = "a") -> None:
    for number in range(first, first + count):
        pace.step(number, (lane,), 1, number * step_s)


def test_a_lane_alone() -> None:
    pace = Pace()
    alone(pace, 0, FEWEST, 0.05)
    assert pace.tokens_per_s is None, "one interval is missing"
    alone(pace, FEWEST, 2 * FEWEST, 0.05)
    assert pace.tokens_per_s == pytest.approx(20)


def test_prompts_other_lanes_and_pauses_do_not_count() -> None:
    pace = Pace()
    pace.step(0, ("a",), 200, 1.0)  # the prompt's last chunk
    pace.step(1, ("a",), 1, 1.1)
    pace.step(2, ("a", "b"), 2, 1.2)
    pace.step(3, ("a",), 1, 1.3)
    pace.step(4, ("b",), 1, 1.4)  # two lanes in turn, as in a ring
    pace.step(5, ("a",), 1, 1.5)
    pace.step(7, ("a",), 1, 1.7)  # step 6 gave nobody a token
    assert pace.n_steps == 0
    pace.step(8, ("a",), 1, 1.8)
    assert pace.n_steps == 1


def test_old_steps_are_forgotten() -> None:
    pace = Pace()
    alone(pace, 0, 200, 1.0)
    alone(pace, 1000, 2 * WINDOW, 0.1)
    assert pace.tokens_per_s == pytest.approx(10)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), max_size=80))
def test_no_order_of_steps_breaks_it(steps: list[tuple[int, int, float]]) -> None:
    pace = Pace()
    at_s = 0.0
    for number, (n_lanes, n_rows, seconds) in enumerate(steps):
        at_s += seconds
        pace.step(number, tuple(range(n_lanes)), n_rows, at_s)
    assert pace.tokens_per_s is None or pace.tokens_per_s > 0
