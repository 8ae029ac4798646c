"""Angles of rotary position embeddings: https://arxiv.org/abs/2104.09864; pure functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import RopeScaling
from gangline.engine.operations import F32


def cos_sin(context: int, head_dim: int, theta: float, scaling: RopeScaling) -> F32:
    """(context, 2, Dh/2): cosines and sines for each position.

    Frequencies and angles are float32, as in the code the models were trained with; the cosine
    of a float32 angle is taken in float64 and rounded once, so that machines with different
    mathematics libraries make the same table.
    """
    positions = np.arange(context, dtype=np.float32)
    angles = np.outer(positions, frequencies(head_dim, theta, scaling))  # (context, Dh/2)
    exact = angles.astype(np.float64)
    return np.stack([np.cos(exact), np.sin(exact)], axis=1).astype(np.float32)


def frequencies(head_dim: int, theta: float, scaling: RopeScaling) -> F32:
    """(Dh/2,) radians per position."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    plain = (1.0 / theta**exponents).astype(np.float32)
    if scaling.kind == "default":
        return plain
    slow = plain / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return slow
    assert scaling.kind == "llama3", scaling.kind
    return _llama3(plain, slow, scaling)


def _llama3(plain: F32, slow: F32, scaling: RopeScaling) -> F32:
    """Keep short waves, stretch long ones, blend between (Llama 3.1's reference code)."""
    waves: NDArray[np.float32] = np.float32(2 * math.pi) / plain
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    share = (scaling.original_context / waves - low) / (high - low)
    share = np.clip(share, 0, 1).astype(np.float32)  # 1 where waves are short
    return ((1 - share) * slow + share * plain).astype(np.float32)
