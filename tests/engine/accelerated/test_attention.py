"""Rotation and attention, each against a formula in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gangline.engine.operations import Attention, Operations
from tests.engine import formulas
from tests.engine.accelerated.operands import SCHEDULES, agree, floats, lanes_step, normal


@pytest.mark.parametrize("rotating", [8, 6])
def test_rotation(ops: Operations, rotating: int) -> None:
    rules = Attention(4, 2, 8, 5, 1.0)
    table, qkv = normal(700, 2, rotating // 2), normal(4, rules.width)
    step = lanes_step(ops, (2, 30, 3), (0, 5, 1))
    expected = formulas.rope(qkv.astype(np.float64), table, np.array([30, 31, 32, 5]), rules)
    rotated = ops.rope(ops.from_numpy(qkv), ops.rope_table(table), step, rules)
    agree(ops.to_numpy(rotated), expected)
    again = ops.rope(ops.from_numpy(qkv), ops.rope_table(2 * table), step, rules)
    agree(
        ops.to_numpy(again),
        formulas.rope(qkv.astype(np.float64), 2 * table, np.array([30, 31, 32, 5]), rules),
    )


def test_rotations_of_tables_that_come_and_go(ops: Operations) -> None:
    """A table may lie where one lay that is gone: the step must not take it for that one."""
    rules = Attention(1, 1, 2, 2, 1.0)
    qkv = np.ones((1, rules.width), np.float32)
    step = lanes_step(ops, (0, 0, 1))
    for factor in range(20):
        table = np.full((700, 2, 1), factor, np.float32)
        rotated = ops.rope(ops.from_numpy(qkv), ops.rope_table(table), step, rules)
        expected = formulas.rope(qkv.astype(np.float64), table, np.array([0]), rules)
        agree(ops.to_numpy(rotated), expected)


RULES = {
    "plain": Attention(4, 4, 16, 16, 0.25),
    "grouped": Attention(6, 2, 16, 16, 0.25),
    "one key head": Attention(4, 1, 24, 16, 0.2),
    "window": Attention(4, 2, 16, 16, 0.25, window=9),
    "window of one": Attention(4, 2, 16, 16, 0.25, window=1),
    "soft cap": Attention(4, 2, 16, 16, 0.8, soft_cap=1.5),
    "window and soft cap": Attention(4, 2, 16, 16, 0.8, window=20, soft_cap=1.5),
    "latent": Attention(4, 1, 24, 18, 0.2, shared_values=True),
}


@pytest.mark.parametrize("sinks", [False, True], ids=["no sinks", "sinks"])
@pytest.mark.parametrize("name", RULES)
def test_attention(ops: Operations, name: str, sinks: bool) -> None:
    """Two lanes of 20 rows, in every order in which steps may bring them."""
    rules = RULES[name]
    lanes = {slot: normal(20, rules.width) for slot in (1, 3)}
    shares = normal(rules.n_heads) if sinks else None
    expected = {
        slot: formulas.attend(lane.astype(np.float64), rules, shares)
        for slot, lane in lanes.items()
    }
    for schedule in SCHEDULES.values():
        cache = ops.cache(4, 700, rules, "f32")
        for sequences in schedule:
            rows = np.concatenate([lanes[slot][at : at + n] for slot, at, n in sequences])
            out = ops.attend(
                ops.from_numpy(rows),
                cache,
                lanes_step(ops, *sequences),
                rules,
                None if shares is None else ops.vector(floats(shares)),
            )
            wanted = [expected[slot][at : at + n] for slot, at, n in sequences]
            agree(ops.to_numpy(out), np.concatenate(wanted))


def test_a_long_lane_and_one_that_is_used_again(ops: Operations) -> None:
    """Beyond the sizes by which memory grows and lengths are rounded."""
    rules = Attention(2, 1, 8, 8, 0.35)
    cache = ops.cache(4, 700, rules, "f32")
    long, short = normal(650, rules.width), normal(30, rules.width)
    for lane in (long, short):
        expected = formulas.attend(lane.astype(np.float64), rules, None)
        cuts = [0, 250, 251, 600, len(lane)] if len(lane) > 600 else [0, 7, 30]
        for start, end in pairwise(cuts):
            step = lanes_step(ops, (2, start, end - start))
            out = ops.attend(ops.from_numpy(lane[start:end]), cache, step, rules)
            agree(ops.to_numpy(out), expected[start:end])


def test_a_cache_of_half_precision(ops: Operations) -> None:
    rules = RULES["grouped"]
    lane = normal(20, rules.width)
    cache = ops.cache(4, 700, rules)
    out = ops.attend(ops.from_numpy(lane), cache, lanes_step(ops, (0, 0, 20)), rules)
    agree(ops.to_numpy(out), formulas.attend(lane.astype(np.float64), rules, None), 3e-3)
