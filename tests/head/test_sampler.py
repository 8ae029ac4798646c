"""Sampling: greedy is the maximum, draws follow the distribution and depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.errors import GanglineError
from gangline.head.requests import Sampling
from gangline.head.sampler import sample, uniform


def test_greedy_takes_the_first_of_equal_maxima() -> None:
    logits = np.array([0, 3, 1, 3], dtype=np.float32)
    assert sample(logits, Sampling(temperature=0), 5) == 1


def test_draws_follow_the_distribution() -> None:
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.log(probabilities).astype(np.float32)
    n_draws = 20_000
    draws = [sample(logits, Sampling(seed=7), position) for position in range(n_draws)]
    share = np.bincount(draws, minlength=4) / n_draws
    # Four standard deviations of a binomial share.
    bound = 4 * np.sqrt(probabilities * (1 - probabilities) / n_draws)
    assert (np.abs(share - probabilities) < bound).all()


@pytest.mark.parametrize(
    ("top_p", "allowed"), [(0.0, {0}), (0.5, {0}), (0.79, {0, 1}), (0.96, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_shortest_likeliest_run(top_p: float, allowed: set[int]) -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    sampling = Sampling(top_p=top_p, seed=1)
    assert {sample(logits, sampling, position) for position in range(500)} == allowed


def test_low_temperature_is_nearly_greedy() -> None:
    logits = np.array([1.0, 2.0, 1.5], dtype=np.float32)
    sampling = Sampling(temperature=0.01)
    assert {sample(logits, sampling, position) for position in range(200)} == {1}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_logits_are_an_error(bad: float) -> None:
    logits = np.array([0.0, bad, 1.0], dtype=np.float32)
    with pytest.raises(GanglineError, match="position 3"):
        sample(logits, Sampling(), 3)


@given(
    st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=50),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**20),
    st.floats(0.0, 1.0),
    st.floats(0.01, 2.0),
)
def test_a_draw_depends_on_seed_and_position_alone(
    values: list[float], seed: int, position: int, top_p: float, temperature: float
) -> None:
    logits = np.array(values, dtype=np.float32)
    sampling = Sampling(seed=seed, top_p=top_p, temperature=temperature)
    first = sample(logits, sampling, position)
    sample(logits, sampling, position + 1)
    assert sample(logits.copy(), sampling, position) == first
    assert 0 <= first < len(values)


@given(st.integers(), st.integers(0, 2**40))
def test_uniform_is_in_the_half_open_unit_interval(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0


def test_neighbouring_seeds_and_positions_are_unrelated() -> None:
    draws = np.array([[uniform(seed, position) for position in range(200)] for seed in range(200)])
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(draws.mean() - 0.5) < 0.01
