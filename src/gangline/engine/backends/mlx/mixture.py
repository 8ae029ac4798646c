"""Mixtures of experts: the choice of a row's experts, and their gated MLPs."""

from __future__ import annotations

import math

import mlx.core as mx

from gangline.engine.backends.composed import CLAMP, SLOPE
from gangline.engine.backends.mlx.weights import Part
from gangline.engine.operations import Activation, Routing

SORTED_FROM = 64  # chosen experts of a step from which sorting them pays


def activate(gate: mx.array, up: mx.array, act: Activation) -> mx.array:
    """act(gate) * up, elementwise."""
    if act == "silu":
        return gate * mx.sigmoid(gate) * up
    if act == "relu2":
        return mx.square(mx.maximum(gate, 0)) * up
    if act == "gelu":
        return gate * 0.5 * (1 + mx.erf(gate / math.sqrt(2))) * up
    if act == "gelu_tanh":  # https://arxiv.org/abs/1606.08415, section 2
        inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate * gate * gate)
        return gate * 0.5 * (1 + mx.tanh(inner)) * up
    assert act == "swiglu_clamped", act
    gate, up = mx.minimum(gate, CLAMP), mx.clip(up, -CLAMP, CLAMP)
    return gate * mx.sigmoid(SLOPE * gate) * (up + 1)


class _Choosing:
    """MLX's part of `composed.choose_experts`."""

    def softmax(self, x: mx.array) -> mx.array:
        return mx.softmax(x, axis=-1)

    def sigmoid(self, x: mx.array) -> mx.array:
        return mx.sigmoid(x)

    def largest(self, scores: mx.array, n: int) -> mx.array:
        return mx.argsort(-scores, axis=-1)[:, :n].astype(mx.int32)

    def of_best_groups(self, scores: mx.array, rules: Routing) -> mx.array:
        groups = scores.reshape(scores.shape[0], rules.n_groups, -1)
        best_two = mx.sort(groups, axis=-1)[..., -2:].sum(axis=-1)  # (T, n_groups)
        best = self.largest(best_two, rules.n_active_groups)
        allowed = (best[..., None] == mx.arange(rules.n_groups)).any(axis=1)
        return mx.where(allowed[..., None], groups, -mx.inf).reshape(scores.shape)

    def take(self, scores: mx.array, chosen: mx.array) -> mx.array:
        return mx.take_along_axis(scores, chosen, axis=-1)


CHOOSING = _Choosing()


def mix_experts(
    x: mx.array,
    experts: mx.array,
    weights: mx.array,
    gate_up: Part,
    down: Part,
    act: Activation,
    gate_up_bias: mx.array | None,
    down_bias: mx.array | None,
) -> mx.array:
    """x (T, D), experts and weights (T, n) -> the weighted sums (T, D)."""
    n_rows, n_active = experts.shape
    chosen = experts.reshape(-1)  # of pairs of a row and one of its experts
    rows = mx.arange(n_rows * n_active) // n_active
    ordered = chosen.size >= SORTED_FROM
    if ordered:  # so that an expert's weights are read once for all of its rows
        order = mx.argsort(chosen)
        chosen, rows = chosen[order], rows[order]
    both = gate_up.gathered_product(x[rows][:, None], chosen, ordered)  # (pairs, 1, 2 F)
    if gate_up_bias is not None:
        both = both + gate_up_bias.reshape(-1, 1, both.shape[-1])[chosen]
    gate, up = mx.split(both, 2, axis=-1)
    y = down.gathered_product(activate(gate, up, act), chosen, ordered)  # (pairs, 1, D)
    if down_bias is not None:
        y = y + down_bias.reshape(-1, 1, y.shape[-1])[chosen]
    if ordered:
        y = y[mx.argsort(order)]
    return (y.reshape(n_rows, n_active, -1) * weights[..., None]).sum(axis=1)
