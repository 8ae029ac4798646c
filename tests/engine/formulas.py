"""The operations as formulas in float64: what every back end is compared with.

Written from the docstrings of `engine/operations.py`, row by row and without blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gangline.engine.operations import Activation, Attention, DeltaNet, Routing

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def sigmoid(x: Any) -> F64:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax(x: F64) -> F64:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def rms_norm(x: F64, w: F64, eps: float) -> F64:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * w


def activate(gate: F64, up: F64, act: Activation) -> F64:
    if act == "silu":
        return gate * sigmoid(gate) * up
    if act == "relu2":
        return np.square(np.maximum(gate, 0)) * up
    if act == "gelu":
        return gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2))) * up
    if act == "gelu_tanh":
        return gate * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up
    gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0)
    return gate * sigmoid(1.702 * gate) * (up + 1)


def rope(qkv: F64, table: F64, positions: I64, rules: Attention) -> F64:
    out, half = qkv.copy(), table.shape[2]
    for head in range(rules.n_heads + rules.n_kv_heads):
        first = head * rules.head_dim
        for i in range(half):
            a, b = qkv[:, first + i], qkv[:, first + half + i]
            cos, sin = table[positions, 0, i], table[positions, 1, i]
            out[:, first + i] = a * cos - b * sin
            out[:, first + half + i] = b * cos + a * sin
    return out


def attend(qkv: F64, rules: Attention, sinks: F64 | None) -> F64:
    """One lane from position 0: qkv (P, width) -> (P, H Dv)."""
    heads, kv_heads, dim = rules.n_heads, rules.n_kv_heads, rules.head_dim
    queries = qkv[:, : heads * dim].reshape(len(qkv), heads, dim)
    keys = qkv[:, heads * dim : (heads + kv_heads) * dim].reshape(len(qkv), kv_heads, dim)
    if rules.shared_values:
        values = keys[..., : rules.value_dim]
    else:
        values = qkv[:, (heads + kv_heads) * dim :].reshape(len(qkv), kv_heads, rules.value_dim)
    out = np.zeros((len(qkv), heads, rules.value_dim))
    for row in range(len(qkv)):
        first = max(0, row - rules.window + 1) if rules.window else 0
        for head in range(heads):
            key_head = head * kv_heads // heads
            scores = keys[first : row + 1, key_head] @ queries[row, head] * rules.scale
            if rules.soft_cap:
                scores = rules.soft_cap * np.tanh(scores / rules.soft_cap)
            if sinks is not None:
                scores = np.append(scores, sinks[head])
            weights = softmax(scores)[: row + 1 - first]
            out[row, head] = weights @ values[first : row + 1, key_head]
    return out.reshape(len(qkv), -1)


def delta_net(
    mixed: F64,
    beta: F64,
    decay: F64,
    rules: DeltaNet,
    convolution: F64,
    decay_log: F64,
    decay_bias: F64,
) -> F64:
    """One lane from position 0: mixed (P, width) -> (P, n_value_heads value_dim)."""
    taps = convolution.reshape(rules.width, rules.kernel)
    padded = np.concatenate([np.zeros((rules.kernel - 1, rules.width)), mixed])
    n_keys = rules.n_key_heads * rules.key_dim
    states = np.zeros((rules.n_value_heads, rules.key_dim, rules.value_dim))
    out = np.zeros((len(mixed), rules.n_value_heads, rules.value_dim))
    for row in range(len(mixed)):
        summed = np.einsum("kw,wk->w", padded[row : row + rules.kernel], taps)
        summed = summed * sigmoid(summed)
        queries, keys = summed[: 2 * n_keys].reshape(2, rules.n_key_heads, rules.key_dim)
        values = summed[2 * n_keys :].reshape(rules.n_value_heads, rules.value_dim)
        for head in range(rules.n_value_heads):
            key_head = head * rules.n_key_heads // rules.n_value_heads
            query, key = (
                x[key_head] / np.sqrt(np.square(x[key_head]).sum() + 1e-6) for x in (queries, keys)
            )
            softplus = np.logaddexp(decay[row, head] + decay_bias[head], 0)
            states[head] *= np.exp(-np.exp(decay_log[head]) * softplus)
            error = values[head] - key @ states[head]
            states[head] += np.outer(key, sigmoid(beta[row, head]) * error)
            out[row, head] = query / math.sqrt(rules.key_dim) @ states[head]
    return out.reshape(len(mixed), -1)


def route(scores: F64, rules: Routing, bias: F64 | None, correction: F64 | None) -> tuple[I64, F64]:
    """scores (T, E) -> experts and weights (T, n_active)."""
    experts, weights = [], []
    for row in scores if bias is None else scores + bias:
        scored = {"softmax": softmax, "sigmoid": sigmoid}.get(rules.scoring, lambda x: x)(row)
        wanted = scored if correction is None else scored + correction
        groups = wanted.reshape(rules.n_groups, -1)
        sums = np.sort(groups, axis=-1)[:, -2:].sum(-1)
        best = np.argsort(-sums, kind="stable")[: rules.n_active_groups]
        allowed = np.full(groups.shape, -np.inf)
        allowed[best] = groups[best]
        chosen = np.argsort(-allowed.reshape(-1), kind="stable")[: rules.n_active]
        weight = softmax(scored[chosen]) if rules.scoring == "softmax_chosen" else scored[chosen]
        if rules.renormalize:
            weight = weight / weight.sum()
        experts.append(chosen)
        weights.append(weight * rules.scale)
    return np.array(experts), np.array(weights)
