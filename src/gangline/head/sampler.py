"""From logits to one token: greedy, or drawn by a generator that is keyed, not stateful.

The draw at a position depends on (seed, position) alone, so a step that is computed again, on
whatever machine, draws the same token from the same logits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gangline.errors import GanglineError
from gangline.head.requests import Sampling

_MASK = (1 << 64) - 1


def sample(logits: NDArray[np.float32], sampling: Sampling, position: int) -> int:
    """The token that stands at `position`, from float32 logits (V,).

    Raises GanglineError where the logits hold NaN: the weights are broken, not the request.
    """
    best = int(np.argmax(logits))
    if not np.isfinite(logits[best]):
        raise GanglineError(
            f"the model computed {logits[best]} at position {position}",
            hint="its weights are damaged or do not fit its config.json",
        )
    if sampling.temperature == 0:
        return best
    weights = np.exp((logits.astype(np.float64) - float(logits[best])) / sampling.temperature)
    if sampling.top_p >= 1:  # no nucleus: any order of the tokens will do
        cumulative = np.cumsum(weights)
        threshold = uniform(sampling.seed, position) * cumulative[-1]
        return min(int(np.searchsorted(cumulative, threshold, side="right")), len(weights) - 1)
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    total = cumulative[-1]
    # The nucleus: the shortest run of likeliest tokens whose weight reaches top_p of the whole.
    n_kept = 1 + int(np.searchsorted(cumulative, sampling.top_p * total, side="left"))
    n_kept = min(n_kept, len(order))
    threshold = uniform(sampling.seed, position) * cumulative[n_kept - 1]
    chosen = int(np.searchsorted(cumulative[:n_kept], threshold, side="right"))
    return int(order[min(chosen, n_kept - 1)])


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on (seed, position) alone.

    Two rounds of SplitMix64's output function (Steele, Lea, Flood 2014), one per key.
    """
    return (_mix(_mix(seed & _MASK) ^ (position & _MASK)) >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
