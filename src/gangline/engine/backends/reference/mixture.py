"""Which experts a row goes to."""

from __future__ import annotations

import numpy as np

from gangline.engine.backends.reference.activations import sigmoid, softmax
from gangline.engine.operations import F32, I32, Routing


def choose_experts(scores: F32, rules: Routing, correction: F32 | None) -> tuple[I32, F32]:
    """`Operations.route` from the router's products (T, E) on."""
    if rules.scoring == "sigmoid":
        scores = sigmoid(scores)
    elif rules.scoring == "softmax":
        scores = softmax(scores)
    choice = scores if correction is None else scores + correction
    if rules.n_groups > 1:
        choice = _within_best_groups(choice, rules)
    chosen = largest(choice, rules.n_active)
    weights: F32 = np.take_along_axis(scores, chosen, axis=1)
    if rules.scoring == "softmax_chosen":
        weights = softmax(weights)
    if rules.renormalize:
        weights = weights / (weights.sum(1, keepdims=True) + np.float32(1e-20))
    return chosen, weights * np.float32(rules.scale)


def _within_best_groups(choice: F32, rules: Routing) -> F32:
    """Scores (T, E), minus infinity outside of the groups with the largest two best scores."""
    groups = choice.reshape(len(choice), rules.n_groups, -1)
    two_best = np.sort(groups, axis=2)[:, :, -2:].sum(2)
    best = largest(two_best, rules.n_active_groups)
    seen = np.zeros(two_best.shape, bool)
    np.put_along_axis(seen, best, True, axis=1)
    masked: F32 = np.where(seen[:, :, None], groups, np.float32(-np.inf)).reshape(choice.shape)
    return masked


def largest(scores: F32, count: int) -> I32:
    """scores (T, E) -> columns (T, count) of the largest, in falling order; the lower of equals."""
    columns: I32 = np.argsort(-scores, axis=1, kind="stable")[:, :count].astype(np.int32)
    return columns
