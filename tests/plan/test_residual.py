"""A prediction learns: from this model on these machines, else from these machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.facts import NodeId, Prediction
from gangline.plan.residual import (
    KEEP,
    LARGEST,
    Residual,
    find_scale,
    note_measurement,
    scale_prediction,
)

A, B = NodeId("n-a"), NodeId("n-b")
DAY = "2026-11-20"
TWENTY = Prediction(20.0, 0.3)


def test_the_same_model_on_the_same_machines_is_predicted_as_it_was_measured() -> None:
    known = note_measurement((), "f", [A, B], TWENTY, 16.0, DAY)
    assert known == (Residual("f", (A, B), 0.8, 0.2, DAY),)
    scale = find_scale(known, "f", [A, B])
    better = scale_prediction(TWENTY, scale)
    assert better.decode_tps == pytest.approx(16)
    assert better.error == pytest.approx(0.1)
    assert better.scale == pytest.approx(0.8)


def test_a_scaled_prediction_that_was_right_changes_nothing() -> None:
    known = note_measurement((), "f", [A], TWENTY, 16.0, DAY)
    scaled = scale_prediction(TWENTY, find_scale(known, "f", [A]))
    again = note_measurement(known, "f", [A], scaled, 16.0, DAY)
    assert again[0].ratio == pytest.approx(0.8, abs=1e-3)
    assert again[0].error == pytest.approx(0, abs=1e-3)


def test_another_model_on_the_same_machines_shares_what_is_theirs() -> None:
    known = note_measurement((), "f", [A], TWENTY, 16.0, DAY)
    known = note_measurement(known, "g", [A], TWENTY, 16.0, DAY)
    scale = find_scale(known, "new", [A])
    assert scale is not None
    assert scale.factor == pytest.approx(0.8)
    assert find_scale(known, "f", [B]) is None
    assert find_scale(known, "f", [A, B]) is None
    assert scale_prediction(TWENTY, None) == TWENTY


def test_nodes_in_another_order_share_what_was_learnt() -> None:
    """Nodes that are alike change places by chance, as their free memory moves."""
    known = note_measurement((), "f", [A, B], TWENTY, 16.0, DAY)
    scale = find_scale(known, "f", [B, A])
    assert scale is not None
    assert scale.factor == pytest.approx(0.8)
    assert scale.error == 0.1, "less sure than in the same order"
    known = note_measurement(known, "f", [B, A], TWENTY, 18.0, DAY)
    exact = find_scale(known, "f", [B, A])
    assert exact is not None and exact.factor == pytest.approx(0.9)
    assert find_scale(known, "f", [A]) is None


def test_what_is_known_grows_newest_last_and_not_for_ever() -> None:
    known: tuple[Residual, ...] = ()
    for number in range(KEEP + 10):
        known = note_measurement(known, f"f{number}", [A], TWENTY, 16.0, DAY)
    assert len(known) == KEEP
    assert known[-1].fingerprint == f"f{KEEP + 9}"
    known = note_measurement(known, known[0].fingerprint, [A], TWENTY, 20.0, DAY)
    assert len(known) == KEEP and known[-1].fingerprint == "f10"


def test_nonsense_teaches_nothing() -> None:
    assert note_measurement((), "f", [A], TWENTY, 0.0, DAY) == ()
    assert note_measurement((), "f", [A], Prediction(0.0, 0.1), 5.0, DAY) == ()


speeds = st.floats(0.01, 1e5)


@given(speeds, st.floats(0.01, 2), st.lists(speeds, min_size=1, max_size=6))
def test_repeated_measurements_come_closer_and_stay_in_bounds(
    predicted: float, error: float, measured: list[float]
) -> None:
    base = Prediction(predicted, error)
    known: tuple[Residual, ...] = ()
    for speed in measured:
        scaled = scale_prediction(base, find_scale(known, "f", [A]))
        assert scaled.error <= error
        known = note_measurement(known, "f", [A], scaled, speed, DAY)
        assert 1 / LARGEST <= known[0].ratio <= LARGEST
    ratios = [speed / predicted for speed in measured]
    low, high = max(min(ratios), 1 / LARGEST), min(max(ratios), LARGEST)
    if low <= high:
        assert low * 0.99 - 1e-3 <= known[0].ratio <= high * 1.01 + 1e-3
