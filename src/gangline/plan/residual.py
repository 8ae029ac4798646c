"""What predictions were wrong by, so that the next one is better; pure.

A residual is measured speed over predicted speed, kept for a model on machines in their order. The
next prediction of the same is multiplied by it; one in another order, which nodes alike take by
chance, or of another model on these machines by what those have in common, because most of an error
is the machines'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from gangline.facts import NodeId, Prediction

NEWEST_SHARE = 0.5  # of a new measurement in the logarithm of what is kept
LARGEST = 4.0  # beyond this factor, a prediction is no scaled one but a wrong one
SETTLED_ERROR = 0.05  # decoding on one machine differs from run to run by this much
KEEP = 256  # residuals of one cluster; the oldest are dropped


class Residual(msgspec.Struct, frozen=True):
    """Of one model on machines in the order of the stages."""

    fingerprint: str
    machines: tuple[NodeId, ...]
    ratio: float  # measured over predicted, the prediction taken without any residual
    error: float  # relative: how far the last measurement was from the scaled prediction
    measured_at: str  # ISO 8601 date


class Scale(msgspec.Struct, frozen=True):
    """What to multiply a prediction by, and its relative error then."""

    factor: float
    error: float


def note_measurement(
    known: Iterable[Residual],
    fingerprint: str,
    machines: Sequence[NodeId],
    prediction: Prediction,
    measured_tps: float,
    day: str,
) -> tuple[Residual, ...]:
    """The residuals with one more measurement; the newest is the last."""
    if measured_tps <= 0 or prediction.decode_tps <= 0:
        return tuple(known)
    key = (fingerprint, tuple(machines))
    kept = [one for one in known if (one.fingerprint, one.machines) != key]
    before = next((one for one in known if (one.fingerprint, one.machines) == key), None)
    ratio = measured_tps * prediction.scale / prediction.decode_tps
    if before is not None:
        share = NEWEST_SHARE * math.log(ratio) + (1 - NEWEST_SHARE) * math.log(before.ratio)
        ratio = math.exp(share)
    ratio = min(LARGEST, max(1 / LARGEST, ratio))
    error = abs(measured_tps / prediction.decode_tps - 1)
    return (*kept, Residual(*key, round(ratio, 4), round(error, 4), day))[-KEEP:]


def find_scale(
    known: Iterable[Residual], fingerprint: str, machines: Sequence[NodeId]
) -> Scale | None:
    """What earlier loads teach of this one; None where nothing was measured on these machines."""
    order = tuple(machines)
    same = [one for one in known if set(one.machines) == set(order)]
    ours = [one for one in same if one.fingerprint == fingerprint]
    for one in ours:
        if one.machines == order:
            return Scale(one.ratio, max(one.error / 2, SETTLED_ERROR))
    here = ours or [one for one in same if one.machines == order] or same
    if not here:
        return None
    logs = [math.log(one.ratio) for one in here]
    middle = sum(logs) / len(logs)
    spread = math.sqrt(sum((value - middle) ** 2 for value in logs) / len(logs))
    return Scale(math.exp(middle), max(2 * spread, 2 * SETTLED_ERROR))


def scale_prediction(prediction: Prediction, scale: Scale | None) -> Prediction:
    """The prediction as earlier measurements correct it; its error never grows by that."""
    if scale is None:
        return prediction
    return Prediction(
        decode_tps=prediction.decode_tps * scale.factor,
        error=min(prediction.error, scale.error),
        scale=prediction.scale * scale.factor,
    )
