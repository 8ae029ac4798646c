"""Routing and mixtures of experts on every path: float64, bits, hostile numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Routing
from tests.kernels.arrays import F32, Guarded, matrix, same_bits, spread

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

ROUTINGS = {
    "qwen3_moe": Routing(13, 3, "softmax", True),
    "mixtral": Routing(8, 2, "softmax_chosen"),
    "deepseek_v3": Routing(24, 4, "sigmoid", True, 2.5, 6, 2),
    "all of them": Routing(5, 5, "sigmoid", False, 0.5),
    "one": Routing(33, 1, "softmax"),
    "pairs": Routing(16, 4, "softmax", False, 1.0, 8, 4),
}


def exact_route(logits: F64, rules: Routing, correction: F64 | None) -> tuple[I32, F64]:
    """Row by row as the docstring of Routing says."""
    if rules.scoring == "sigmoid":
        scores = 1 / (1 + np.exp(-logits))
    elif rules.scoring == "softmax":
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    else:
        scores = logits
    choice = scores if correction is None else scores + correction
    groups = np.sort(choice.reshape(len(logits), rules.n_groups, -1), axis=2)[..., -2:].sum(2)
    active = np.argsort(-groups, axis=1, kind="stable")[:, : rules.n_active_groups]
    seen = np.zeros(groups.shape, bool)
    np.put_along_axis(seen, active, True, axis=1)
    choice = np.where(seen.repeat(rules.n_experts // rules.n_groups, axis=1), choice, -np.inf)
    experts = np.argsort(-choice, axis=1, kind="stable")[:, : rules.n_active]
    weights = np.take_along_axis(scores, experts, axis=1)
    if rules.scoring == "softmax_chosen":
        weights = np.exp(weights - weights.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
    if rules.renormalize:
        weights = weights / weights.sum(1, keepdims=True)
    return experts.astype(np.int32), weights * rules.scale


@pytest.mark.parametrize("name", ROUTINGS)
@pytest.mark.parametrize("corrected", [False, True])
def test_route(path: str, name: str, corrected: bool) -> None:
    rules = ROUTINGS[name]
    random = np.random.default_rng(len(name))
    ops = Cpu(1)
    values = random.standard_normal((rules.n_experts, 40)).astype(np.float32)
    router = ops.weight(Tensor("w", "f32", values.shape, values))
    x = random.standard_normal((30, 40)).astype(np.float32)
    bias = random.standard_normal(rules.n_experts).astype(np.float32)
    correction = random.standard_normal(rules.n_experts).astype(np.float32) if corrected else None
    experts, weights = ops.route(x, router, rules, bias, correction)
    logits = x.astype(np.float64) @ values.astype(np.float64).T + bias
    expected, exact = exact_route(logits, rules, None if correction is None else correction * 1.0)
    assert experts.dtype == np.int32 and (experts == expected).all()
    np.testing.assert_allclose(weights, exact, rtol=2e-5)


def test_of_equal_scores_the_lower_expert_wins(path: str) -> None:
    ops = Cpu(1)
    router = ops.weight(Tensor("w", "f32", (12, 4), np.zeros((12, 4), np.float32)))
    x = np.ones((2, 4), np.float32)
    experts, weights = ops.route(x, router, Routing(12, 3, "softmax", True, 1.0, 4, 2))
    assert (experts == [0, 1, 2]).all()
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("name", ROUTINGS)
def test_whatever_the_numbers_a_row_gets_different_experts(path: str, name: str) -> None:
    rules = ROUTINGS[name]
    ops = Cpu(1)
    eye = np.eye(rules.n_experts, dtype=np.float32)
    router = ops.weight(Tensor("w", "f32", eye.shape, eye))
    rows = np.zeros((6, rules.n_experts), np.float32)
    rows[0], rows[1, 0], rows[2] = np.nan, np.nan, -np.inf
    rows[3], rows[4, ::2], rows[5] = np.inf, 1e38, 1e-44
    experts, _ = ops.route(rows, router, rules)
    for row in experts:
        assert len(set(row.tolist())) == rules.n_active
        assert row.min() >= 0 and row.max() < rules.n_experts


class Mixture:
    """Experts with drawn weights, and their exact result."""

    def __init__(self, ops: Cpu, kinds: tuple[str, str, str], sizes: tuple[int, int, int]) -> None:
        self.n, self.d, self.ffn = sizes
        random = np.random.default_rng([*sizes])
        gate, up, down = kinds
        self.parts = [
            (
                matrix(random, gate, self.ffn, self.d),
                matrix(random, up, self.ffn, self.d),
                matrix(random, down, self.d, self.ffn),
            )
            for _ in range(self.n)
        ]
        self.gate_up = ops.experts([part[:2] for part in self.parts])
        self.down = ops.experts([part[2:] for part in self.parts])
        self.gate_up_bias = spread(random, self.n * 2 * self.ffn)
        self.down_bias = spread(random, self.n * self.d)

    def one_by_one(self, ops: Cpu, x: F32, experts: I32, weights: F32, residual: F32) -> F32:
        """Each row and each expert by itself through `gated_mlp`, which has its own tests."""
        sums = residual.copy()
        pairs = [(ops.weight(*part[:2]), ops.weight(*part[2:])) for part in self.parts]
        for row, chosen in enumerate(experts):
            for expert, weight in zip(chosen, weights[row], strict=True):
                y = ops.gated_mlp(
                    x[row : row + 1],
                    *pairs[expert],
                    "silu",
                    None,
                    self.gate_up_bias.reshape(self.n, -1)[expert].copy(),
                    self.down_bias.reshape(self.n, -1)[expert].copy(),
                )
                sums[row : row + 1] = ops.add(sums[row : row + 1].copy(), y, float(weight))
        return sums

    def run(self, ops: Cpu, x: F32, experts: I32, weights: F32, residual: F32 | None) -> F32:
        biases = self.gate_up_bias, self.down_bias
        return ops.mixture(x, experts, weights, self.gate_up, self.down, "silu", residual, *biases)


CASES = {
    "dense": (("f32", "bf16", "f16"), (5, 17, 9)),
    "q4": (("q4", "q4", "q4"), (7, 64, 96)),
    "mixed": (("q4", "q8", "bf16"), (4, 96, 33)),
    "one expert": (("q8", "q8", "q8"), (1, 32, 32)),
}


def drawn_choice(random: np.random.Generator, t: int, n: int, n_active: int) -> tuple[I32, F32]:
    experts = np.stack([random.permutation(n)[:n_active] for _ in range(t)]).astype(np.int32)
    return experts, random.random((t, n_active), np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_mixture_is_the_sum_of_its_experts_bit_for_bit(path: str, name: str) -> None:
    """Against each expert alone: neither grouping nor other rows change a bit."""
    ops = Cpu(1)
    model = Mixture(ops, *CASES[name])
    random = np.random.default_rng(4)
    for t in (1, 2, 7, 50):
        x = spread(random, t, model.d)
        experts, weights = drawn_choice(random, t, model.n, min(3, model.n))
        residual = Guarded((t, model.d), spread(random, t, model.d))
        expected = model.one_by_one(ops, x, experts, weights, residual.array)
        assert model.run(ops, x, experts, weights, residual.array) is residual.array
        residual.check()
        assert same_bits(residual.array, expected)
        nothing = model.run(ops, x, experts, weights, None)
        zeros = np.zeros_like(x)
        assert same_bits(nothing, model.one_by_one(ops, x, experts, weights, zeros))


def test_threads_do_not_change_a_bit(path: str) -> None:
    """With enough rows that work is really split, and experts of very unlike popularity."""
    random = np.random.default_rng(1)
    x = spread(random, 60, 128)
    experts, weights = drawn_choice(random, 60, 6, 2)
    experts[:, 0], experts[:40, 1] = 3, 5
    found = []
    for threads in (1, 2, 5):
        _kernels.set_threads(threads)
        ops = Cpu(threads)
        model = Mixture(ops, ("q4", "q8", "q4"), (6, 128, 256))
        found.append(model.run(ops, x, experts, weights, None))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_special_numbers_stay_in_their_row(path: str) -> None:
    ops = Cpu(1)
    model = Mixture(ops, *CASES["q4"])
    random = np.random.default_rng(4)
    x = spread(random, 6, model.d)
    experts, weights = drawn_choice(random, 6, model.n, 2)
    clean = model.run(ops, x, experts, weights, None)
    x[1, 3], x[2, 60], x[3] = np.nan, np.inf, np.float32(1e-42)
    found = model.run(ops, x, experts, weights, None)
    assert np.isnan(found[1:3]).all() and np.isfinite(found[3]).all()
    assert same_bits(found[[0, 4, 5]], clean[[0, 4, 5]])


def test_what_does_not_fit_is_refused() -> None:
    ops = Cpu(1)
    model = Mixture(ops, *CASES["q4"])
    other = Mixture(ops, *CASES["dense"])
    x, weights = np.zeros((2, 64), np.float32), np.zeros((2, 1), np.float32)
    experts = np.zeros((2, 1), np.int32)
    router = ops.weight(Tensor("w", "f32", (6, 64), np.zeros((6, 64), np.float32)))
    half = _kernels.Experts(2)
    wrong = [
        lambda: model.run(ops, x, experts + 7, weights, None),
        lambda: model.run(ops, x, experts - 1, weights, None),
        lambda: model.run(ops, x[:1], experts, weights, None),
        lambda: model.run(ops, x, experts, weights[:, :0].copy(), None),
        lambda: ops.mixture(x, experts, weights, model.gate_up, other.down, "silu", None),
        lambda: ops.mixture(x, experts, weights, half, half, "silu", None),
        lambda: ops.experts([]),
        lambda: ops.experts([model.parts[0][:1], model.parts[1][2:]]),
        lambda: half.finish(),
        lambda: ops.route(x, router, Routing(6, 7)),
        lambda: ops.route(x, router, Routing(6, 0)),
        lambda: ops.route(x, router, Routing(6, 3, n_groups=3, n_active_groups=1)),
        lambda: ops.route(x, router, Routing(6, 1, n_groups=4, n_active_groups=1)),
        lambda: ops.route(x, router, Routing(6, 1), np.zeros(5, np.float32)),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(ValueError):
            call()
            pytest.fail(f"call {number} was not refused")
