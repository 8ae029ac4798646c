"""The gated delta rule on MLX's own operation, with the state of each lane."""

from __future__ import annotations

import mlx.core as mx

from gangline.engine.backends.mlx.attention import Step
from gangline.engine.operations import DeltaNet

TINY = 1e-6  # below the square root of the norms of queries and keys


class DeltaState:
    """What a layer remembers of each lane: its last mixed rows and its matrices, float32."""

    def __init__(self, lanes: int, rules: DeltaNet) -> None:
        heads = rules.n_value_heads
        self.new_rows = mx.zeros((rules.kernel - 1, rules.width))
        self.new_matrices = mx.zeros((1, heads, rules.value_dim, rules.key_dim))  # transposed
        self.rows = [self.new_rows] * lanes
        self.matrices = [self.new_matrices] * lanes


def delta_net(
    mixed: mx.array,
    beta: mx.array,
    decay: mx.array,
    state: DeltaState,
    step: Step,
    rules: DeltaNet,
    convolution: mx.array,
    decay_log: mx.array,
    decay_bias: mx.array,
) -> mx.array:
    """mixed (T, width), beta and decay (T, n_value_heads) -> (T, n_value_heads value_dim)."""
    taps = convolution.reshape(rules.width, rules.kernel)
    strength = mx.sigmoid(beta)
    kept = mx.exp(-mx.exp(decay_log) * mx.logaddexp(decay + decay_bias, 0.0))
    results = []
    for slot, start, first, end in step.sequences:
        n_rows = end - first
        before = state.rows[slot] if start else state.new_rows
        matrices = state.matrices[slot] if start else state.new_matrices
        rows = mx.concatenate([before, mixed[first:end]])  # (kernel - 1 + n, width)
        state.rows[slot] = rows[n_rows:]
        summed = sum(rows[tap : tap + n_rows] * taps[:, tap] for tap in range(rules.kernel))
        queries, keys, values = _parts(summed * mx.sigmoid(summed), rules)
        out, state.matrices[slot] = mx.fast.gated_delta_update(
            _unit(queries) * rules.key_dim**-0.5,
            _unit(keys),
            values,
            kept[None, first:end],
            strength[None, first:end],
            matrices,
        )
        results.append(out.reshape(n_rows, -1))
    return results[0] if len(results) == 1 else mx.concatenate(results)


def _parts(rows: mx.array, rules: DeltaNet) -> list[mx.array]:
    """(n, width) -> queries and keys (1, n, n_key_heads, key_dim), values likewise."""
    n_keys = rules.n_key_heads * rules.key_dim
    queries, keys, values = mx.split(rows, [n_keys, 2 * n_keys], axis=1)
    key_shape = (1, rows.shape[0], rules.n_key_heads, rules.key_dim)
    value_shape = (1, rows.shape[0], rules.n_value_heads, rules.value_dim)
    return [queries.reshape(key_shape), keys.reshape(key_shape), values.reshape(value_shape)]


def _unit(x: mx.array) -> mx.array:
    return x * mx.rsqrt(mx.sum(x * x, axis=-1, keepdims=True) + TINY)
