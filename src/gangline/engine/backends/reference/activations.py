"""Functions of single numbers, and softmax."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gangline.engine.operations import F32, Activation

CLAMP = 7.0  # of "swiglu_clamped", and the factor inside its sigmoid
CLAMP_SLOPE = 1.702


def softmax(x: F32) -> F32:
    """Over the last dimension."""
    weights = np.exp(x - x.max(-1, keepdims=True))
    shares: F32 = weights / weights.sum(-1, keepdims=True)
    return shares


def sigmoid(x: F32) -> F32:
    with np.errstate(over="ignore"):  # 1 / infinity is the limit
        return (1 / (1 + np.exp(-x))).astype(np.float32)


def cap_scores(x: F32, cap: float) -> F32:
    capped: F32 = np.float32(cap) * np.tanh(x / np.float32(cap))
    return capped


def gated(gate: F32, up: F32, act: Activation) -> F32:
    """What a gated MLP makes of its two halves."""
    if act == "swiglu_clamped":
        gate, up = np.minimum(gate, np.float32(CLAMP)), np.clip(up, -CLAMP, CLAMP)
        return gate * sigmoid(np.float32(CLAMP_SLOPE) * gate) * (up + 1)
    return activate(gate, act) * up


def activate(x: F32, act: Activation) -> F32:
    """The activation functions, elementwise."""
    y: NDArray[np.floating]
    with np.errstate(over="ignore"):  # x / infinity is the limit
        if act == "silu":
            y = x / (1 + np.exp(-x))
        elif act == "relu2":
            y = np.square(np.maximum(x, 0))
        elif act == "gelu_tanh":  # https://arxiv.org/abs/1606.08415, section 2
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
            y = x * 0.5 * (1 + np.tanh(inner))
        else:
            assert act == "gelu", act
            error_function = np.vectorize(math.erf, otypes=[np.float64])
            y = x * 0.5 * (1 + error_function(x / math.sqrt(2)))
    return y.astype(np.float32)
