"""Mixtures of experts: the choice of a row's experts, and their gated MLPs."""

from __future__ import annotations

import math

import mlx.core as mx

from gangline.engine.backends.mlx.weights import Part, Weight
from gangline.engine.operations import Activation, Routing

SORTED_FROM = 64  # chosen experts of a step from which sorting them pays
TINY = 1e-20  # beside the sum of weights that are made to add up to 1
CLAMP, SLOPE = 7.0, 1.702  # of gpt-oss's activation


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


def choose_experts(
    x: mx.array,
    router: Weight,
    rules: Routing,
    bias: mx.array | None,
    correction: mx.array | None,
) -> tuple[mx.array, mx.array]:
    """x (T, D) -> experts (T, n_active) int32 and their weights (T, n_active)."""
    scores = router.exact_product(x)
    if bias is not None:
        scores = scores + bias
    if rules.scoring == "softmax":
        scores = mx.softmax(scores, axis=-1)
    elif rules.scoring == "sigmoid":
        scores = mx.sigmoid(scores)
    wanted = scores if correction is None else scores + correction
    chosen = _largest(_of_best_groups(wanted, rules), rules.n_active)
    weights = mx.take_along_axis(scores, chosen, axis=-1)
    if rules.scoring == "softmax_chosen":
        weights = mx.softmax(weights, axis=-1)
    if rules.renormalize:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + TINY)
    return chosen.astype(mx.int32), weights * rules.scale


def _of_best_groups(wanted: mx.array, rules: Routing) -> mx.array:
    """Scores (T, E), minus infinity outside the best groups."""
    if rules.n_groups == 1:
        return wanted
    groups = wanted.reshape(wanted.shape[0], rules.n_groups, -1)
    best_two = mx.sort(groups, axis=-1)[..., -2:].sum(axis=-1)  # (T, n_groups)
    best = _largest(best_two, rules.n_active_groups)
    allowed = (best[..., None] == mx.arange(rules.n_groups)).any(axis=1)
    return mx.where(allowed[..., None], groups, -mx.inf).reshape(wanted.shape)


def _largest(scores: mx.array, n: int) -> mx.array:
    """The n largest of each row, the largest first; of equal ones the lower number first."""
    return mx.argsort(-scores, axis=-1)[:, :n]


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
