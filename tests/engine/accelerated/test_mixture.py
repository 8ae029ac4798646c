"""Gated MLPs, routing and mixtures of experts, each against a formula in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.tensors import Tensor
from gangline.engine.operations import Operations, Routing
from tests.engine import formulas
from tests.engine.accelerated.operands import (
    BF16_BOUND,
    F32_BOUND,
    affine,
    agree,
    floats,
    normal,
    values_of,
)

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "swiglu_clamped")


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gated_mlp(ops: Operations, act: Any) -> None:
    gate_up, down = normal(2 * 24, 32), normal(32, 24)
    biases = normal(48), normal(32)
    x, residual = normal(3, 32), normal(3, 32)
    gate, up = np.split(x.astype(np.float64) @ gate_up.T + biases[0], 2, axis=1)
    expected = formulas.activate(gate, up, act) @ down.T + biases[1]
    weights = ops.weight(floats(gate_up[:24]), floats(gate_up[24:])), ops.weight(floats(down))
    vectors = [ops.vector(floats(bias)) for bias in biases]
    y = ops.gated_mlp(ops.from_numpy(x), *weights, act, None, *vectors)
    agree(ops.to_numpy(y), expected)
    y = ops.gated_mlp(ops.from_numpy(x), *weights, act, ops.from_numpy(residual), *vectors)
    agree(ops.to_numpy(y), residual + expected)


ROUTINGS = [
    Routing(12, 3, scoring, renormalize, scale, *groups)
    for scoring, (renormalize, scale), groups in product(
        ("softmax", "softmax_chosen", "sigmoid"), ((False, 1.0), (True, 2.5)), ((1, 1), (4, 2))
    )
]


@pytest.mark.parametrize("rules", ROUTINGS, ids=repr)
def test_routes(ops: Operations, rules: Routing) -> None:
    router, x = normal(12, 16), normal(9, 16)
    bias, correction = normal(12, scale=0.3), normal(12, scale=0.3)
    weight = ops.weight(floats(router))
    scores = x.astype(np.float64) @ router.T
    for with_bias, with_correction in ((False, False), (True, True)):
        given = bias if with_bias else None, correction if with_correction else None
        vectors = [None if part is None else ops.vector(floats(part)) for part in given]
        experts, weights = formulas.route(scores, rules, *given)
        found = ops.route(ops.from_numpy(x), weight, rules, *vectors)
        assert (ops.to_numpy(found[0]) == experts).all()
        agree(ops.to_numpy(found[1]), weights)


def test_of_equal_scores_the_lower_expert_wins(ops: Operations) -> None:
    router = np.ones((64, 4), np.float32)
    router[40:] *= 2
    experts, _ = ops.route(
        ops.from_numpy(np.ones((2, 4), np.float32)),
        ops.weight(floats(router)),
        Routing(64, 30, "sigmoid"),
    )
    assert (ops.to_numpy(experts) == [*range(40, 64), *range(6)]).all()


@pytest.mark.parametrize("form", ["f32", "bf16", "q4", "q6 of 16", "mixed"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_mixtures(ops: Operations, form: str, rows: int) -> None:
    """One row, few, and so many that products are sorted by expert."""
    n_experts, hidden, inner = 6, 64, 32

    def matrix(n: int, k: int, form: str) -> tuple[Tensor, np.ndarray]:
        if form.startswith("q"):
            return affine(n, k, 4, 32) if form == "q4" else affine(n, k, 6, 16)
        tensor = floats(normal(n, k), form)
        return tensor, values_of(tensor)

    forms = ("q4", "f32", "f32") if form == "mixed" else (form,) * 3
    gates, ups = ([matrix(inner, hidden, one) for _ in range(n_experts)] for one in forms[:2])
    downs = [matrix(hidden, inner, forms[2]) for _ in range(n_experts)]
    biases = normal(n_experts * 2 * inner), normal(n_experts * hidden)
    x, residual = normal(rows, hidden, scale=0.2), normal(rows, hidden)
    router, rules = normal(n_experts, hidden), Routing(n_experts, 3, renormalize=True)
    experts, weights = formulas.route(x.astype(np.float64) @ router.T, rules, None, None)
    expected = residual.astype(np.float64)
    for row, column in product(range(rows), range(3)):
        expert = experts[row, column]
        gate, up = (part[expert][1] @ x[row] for part in (gates, ups))
        both = np.concatenate([gate, up]) + biases[0].reshape(n_experts, -1)[expert]
        hidden_row = formulas.activate(*np.split(both, 2), "silu")
        y = downs[expert][1] @ hidden_row + biases[1].reshape(n_experts, -1)[expert]
        expected[row] += weights[row, column] * y
    given = ops.from_numpy(x)
    chosen = ops.route(given, ops.weight(floats(router)), rules)
    found = ops.mixture(
        given,
        *chosen,
        ops.experts([[gates[e][0], ups[e][0]] for e in range(n_experts)]),
        ops.experts([[downs[e][0]] for e in range(n_experts)]),
        "silu",
        ops.from_numpy(residual),
        *(ops.vector(floats(bias)) for bias in biases),
    )
    bound = {"f32": F32_BOUND, "q4": F32_BOUND, "bf16": BF16_BOUND}.get(form, 3e-3)
    if ops.name == "torch" and form != "f32":
        bound = BF16_BOUND
    agree(ops.to_numpy(found), expected, bound)
