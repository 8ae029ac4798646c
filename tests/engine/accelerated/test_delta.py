"""The delta rule, each against a formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gangline.engine.operations import DeltaNet, Operations
from tests.engine import formulas
from tests.engine.accelerated.operands import SCHEDULES, agree, floats, lanes_step, normal


@pytest.mark.parametrize("kernel", [1, 4])
def test_delta_rule(ops: Operations, kernel: int) -> None:
    rules = DeltaNet(2, 4, 12, 8, kernel)
    taps, log, bias = normal(rules.width * kernel), normal(4), normal(4)
    vectors = [ops.vector(floats(part)) for part in (taps, log, bias)]
    lanes = {slot: (normal(20, rules.width), normal(20, 4), normal(20, 4)) for slot in (1, 3)}
    expected = {
        slot: formulas.delta_net(*(p.astype(np.float64) for p in lane), rules, taps, log, bias)
        for slot, lane in lanes.items()
    }
    for schedule in SCHEDULES.values():
        state = ops.delta_state(4, rules)
        for _ in range(2):  # the second time in lanes that remember the first
            for sequences in schedule:
                parts = [
                    np.concatenate([lanes[slot][part][at : at + n] for slot, at, n in sequences])
                    for part in range(3)
                ]
                out = ops.delta_net(
                    *map(ops.from_numpy, parts),
                    state,
                    lanes_step(ops, *sequences),
                    rules,
                    *vectors,
                )
                wanted = [expected[slot][at : at + n] for slot, at, n in sequences]
                agree(ops.to_numpy(out), np.concatenate(wanted), 1e-4)
