"""The gated delta rule on every path: float64, chunks, lanes, threads, hostile numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline import _kernels
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Batch, DeltaNet
from tests.kernels.arrays import F32, same_bits

F64 = NDArray[np.float64]

SIZES = {
    "like qwen3_next": DeltaNet(2, 4, 32, 32, 4),
    "odd": DeltaNet(3, 3, 5, 7, 3),
    "more than four vectors": DeltaNet(1, 3, 17, 90, 2),
    "one tap": DeltaNet(1, 1, 1, 1, 1),
    "most taps": DeltaNet(1, 2, 16, 80, 8),
}


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


class Rule:
    """A layer's weights and one sequence of inputs."""

    def __init__(self, sizes: DeltaNet, t: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)

        def drawn(*shape: int) -> F32:
            return random.standard_normal(shape).astype(np.float32)

        self.sizes = sizes
        self.mixed = drawn(t, sizes.width)
        self.beta, self.decay = drawn(t, sizes.n_value_heads), drawn(t, sizes.n_value_heads)
        self.weights = drawn(sizes.width * sizes.kernel), drawn(sizes.n_value_heads), self.beta[0]

    def exact(self) -> F64:
        """All rows from a fresh state, by the docstring of `Operations.delta_net`."""
        sizes = self.sizes
        convolution, decay_log, decay_bias = (w.astype(np.float64) for w in self.weights)
        taps = convolution.reshape(sizes.width, sizes.kernel)
        before = np.zeros((sizes.kernel - 1, sizes.width))
        rows = np.concatenate([before, self.mixed.astype(np.float64)])
        state = np.zeros((sizes.n_value_heads, sizes.key_dim, sizes.value_dim))
        shares = sizes.n_value_heads // sizes.n_key_heads
        out = np.empty((len(self.mixed), sizes.n_value_heads, sizes.value_dim))
        ends = [sizes.n_key_heads * sizes.key_dim, 2 * sizes.n_key_heads * sizes.key_dim]
        for t in range(len(self.mixed)):
            x = np.einsum("kw,wk->w", rows[t : t + sizes.kernel], taps)
            x = x / (1 + np.exp(-x))
            q, k, v = np.split(x, ends)
            q, k = (part.reshape(sizes.n_key_heads, -1) for part in (q, k))
            q, k = (y / np.sqrt((y**2).sum(1, keepdims=True) + 1e-6) for y in (q, k))
            write = 1 / (1 + np.exp(-self.beta[t].astype(np.float64)))
            soft = np.logaddexp(0, self.decay[t].astype(np.float64) + decay_bias)
            for head in range(sizes.n_value_heads):
                key, value = k[head // shares], v.reshape(sizes.n_value_heads, -1)[head]
                state[head] *= np.exp(-np.exp(decay_log[head]) * soft[head])
                state[head] += np.outer(key, write[head] * (value - key @ state[head]))
                out[t, head] = q[head // shares] @ state[head] / np.sqrt(sizes.key_dim)
        return out.reshape(len(self.mixed), -1)

    def run(self, chunks: list[int], others: bool = False) -> F32:
        """In slot 2; with others, a second lane has as many rows of its own in each step."""
        ops = Cpu(_kernels.threads())
        state = ops.delta_state(3, self.sizes)
        noise = Rule(self.sizes, len(self.mixed), seed=9)
        parts, at = [], 0
        for count in chunks:
            rules = [noise, self] if others else [self]
            mixed, beta, decay = (
                np.concatenate([getattr(rule, name)[at : at + count] for rule in rules])
                for name in ("mixed", "beta", "decay")
            )
            slots, n = ints(0, 2) if others else ints(2), len(rules)
            batch = ops.batch(Batch.of(slots, ints(*[at] * n), ints(*[count] * n)), 3, 4096)
            out = ops.delta_net(mixed, beta, decay, state, batch, self.sizes, *self.weights)
            parts.append(out[-count:])
            at += count
        return np.concatenate(parts)


@pytest.mark.parametrize("name", SIZES)
def test_delta_net(path: str, name: str) -> None:
    rule = Rule(SIZES[name], 40)
    exact = rule.exact()
    np.testing.assert_allclose(rule.run([40]), exact, rtol=1e-4, atol=2e-5 * np.abs(exact).max())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("others", [False, True])
def test_chunks_and_lanes_do_not_change_a_bit(path: str, name: str, others: bool) -> None:
    rule = Rule(SIZES[name], 40)
    whole = rule.run([40])
    for chunks in ([1] * 40, [1, 2, 20, 17], [39, 1]):
        assert same_bits(rule.run(chunks, others), whole)


def test_threads_do_not_change_a_bit(path: str) -> None:
    rule = Rule(DeltaNet(4, 8, 64, 64, 4), 60)
    found = []
    for threads in (1, 2, 5):
        _kernels.set_threads(threads)
        found.append(rule.run([60], others=True))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_a_new_sequence_does_not_see_the_old_one(path: str) -> None:
    """Not even where the old one left NaNs and infinities."""
    rule = Rule(SIZES["like qwen3_next"], 20)
    ops = Cpu(1)
    state = ops.delta_state(1, rule.sizes)
    batch = ops.batch(Batch.of(ints(0), ints(0), ints(20)), 1, 64)

    def run(mixed: F32) -> F32:
        inputs = mixed, rule.beta, rule.decay
        return ops.delta_net(*inputs, state, batch, rule.sizes, *rule.weights)

    dirty = rule.mixed.copy()
    dirty[5, 7], dirty[8] = np.nan, np.inf
    spoiled = run(dirty)
    assert np.isnan(spoiled).any()
    assert same_bits(run(rule.mixed), rule.run([20]))
    tiny = run(rule.mixed * np.float32(1e-42))
    assert np.isfinite(tiny).all()


def test_extreme_gates(path: str) -> None:
    """Decay and beta far out: nothing is kept, all is kept, nothing is written; no NaN appears."""
    rule = Rule(SIZES["odd"], 12)
    for number in (-3e38, -100.0, 100.0, 3e38, np.inf, -np.inf):
        rule.beta[3], rule.decay[5] = number, number
        assert np.isfinite(rule.run([12])).all()


def test_what_does_not_fit_is_refused() -> None:
    rule = Rule(SIZES["odd"], 4)
    ops = Cpu(1)
    state = ops.delta_state(1, rule.sizes)
    fitting, wide = (ops.batch(Batch.of(ints(0), ints(0), ints(4)), lanes, 64) for lanes in (1, 2))
    inputs = rule.mixed, rule.beta, rule.decay

    def run(inputs: tuple[F32, ...], batch: _kernels.Batch, weights: tuple[F32, ...]) -> F32:
        return ops.delta_net(*inputs, state, batch, rule.sizes, *weights)

    wrong = [
        lambda: run(inputs, wide, rule.weights),
        lambda: run((rule.mixed[:3], rule.beta, rule.decay), fitting, rule.weights),
        lambda: run((rule.mixed, rule.beta[:, :2].copy(), rule.decay), fitting, rule.weights),
        lambda: run(inputs, fitting, (rule.weights[0][1:], *rule.weights[1:])),
        lambda: ops.delta_state(0, rule.sizes),
        lambda: ops.delta_state(1, DeltaNet(2, 3, 4, 4, 4)),
        lambda: ops.delta_state(1, DeltaNet(1, 1, 4, 4, 9)),
        lambda: ops.delta_state(1, DeltaNet(1, 1, 0, 4, 4)),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(ValueError):
            call()
            pytest.fail(f"call {number} was not refused")
