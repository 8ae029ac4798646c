"""Angles of rotary position embeddings: https://arxiv.org/abs/2104.09864; pure functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import Rope, RopeScaling
from gangline.engine.operations import F32


def cos_sin(context: int, rope: Rope) -> F32:
    """(context, 2, R/2): cosines and sines for each position.

    Frequencies and angles are float32, as in the code the models were trained with; the cosine
    of a float32 angle is taken in float64 and rounded once, so that machines with different
    mathematics libraries make the same table.
    """
    positions = np.arange(context, dtype=np.float32)
    angles = np.outer(positions, frequencies(rope, context))  # (context, R/2)
    exact = angles.astype(np.float64)
    table = np.stack([np.cos(exact), np.sin(exact)], axis=1)
    return (table * rope.scaling.magnitude).astype(np.float32)


def frequencies(rope: Rope, context: int) -> F32:
    """(R/2,) radians per position, for sequences of up to `context` tokens."""
    scaling = rope.scaling
    exponents = np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim
    if scaling.kind == "dynamic":
        return (1.0 / _raised(rope, context) ** exponents).astype(np.float32)
    waves = (rope.theta**exponents).astype(np.float32)
    plain = (1.0 / rope.theta**exponents).astype(np.float32)
    slow = plain / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return slow
    if scaling.kind == "llama3":
        return _llama3(plain, slow, scaling)
    if scaling.kind == "yarn":
        return _yarn(plain, slow, rope)
    if scaling.kind == "longrope":
        # One set for all positions of a loaded model, or a prompt's chunks would not agree.
        factors = scaling.long if context > scaling.original_context else scaling.short
        return (1 / (np.array(factors, np.float32) * waves)).astype(np.float32)
    assert scaling.kind == "default", scaling.kind
    return plain


def _raised(rope: Rope, context: int) -> float:
    """Theta for a context: as it is up to the original one, then so that the slowest pair is
    stretched (transformers, `_compute_dynamic_ntk_parameters`). One theta for all positions of a
    loaded model, as with long rotations."""
    scaling = rope.scaling
    beyond = max(context / scaling.original_context, 1.0)
    stretch = scaling.factor * beyond - (scaling.factor - 1)
    return float(rope.theta * stretch ** (rope.dim / (rope.dim - 2)))


def _llama3(plain: F32, slow: F32, scaling: RopeScaling) -> F32:
    """Keep short waves, stretch long ones, blend between (Llama 3.1's reference code)."""
    waves: NDArray[np.float32] = np.float32(2 * math.pi) / plain
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    share = (scaling.original_context / waves - low) / (high - low)
    share = np.clip(share, 0, 1).astype(np.float32)  # 1 where waves are short
    return ((1 - share) * slow + share * plain).astype(np.float32)


def _yarn(plain: F32, slow: F32, rope: Rope) -> F32:
    """Keep pairs that turn more than `beta_fast` times within the original context, stretch those
    that turn less than `beta_slow` times, a ramp between (section 3.2 of the paper)."""
    scaling = rope.scaling
    low, high = (
        rope.dim
        * math.log(scaling.original_context / (turns * 2 * math.pi))
        / (2 * math.log(rope.theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    )
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    span = high - low if high != low else 0.001
    pairs = np.arange(rope.dim // 2, dtype=np.float32)
    share = np.clip((pairs - np.float32(low)) / np.float32(span), 0, 1)  # 1: stretched
    blended: F32 = (slow * share + plain * (1 - share)).astype(np.float32)
    return blended
