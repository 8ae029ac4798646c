"""What a config says about rotary positions → `Rope`.

transformers 5 writes one `rope_parameters` object, where layer kinds differ one per kind; older
configs have `rope_theta`, `rope_scaling` and `partial_rotary_factor` side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import Rope, RopeKind, RopeScaling

KINDS: dict[str, RopeKind] = {
    "default": "default",
    "linear": "linear",
    "dynamic": "dynamic",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",  # the name in the first Phi-3 configs
}


def rope_of(
    fields: Fields,
    dim: int,
    *,
    theta: float = 10000.0,
    partial: float = 1.0,
    neighbours: bool = False,
) -> Rope:
    """The rotation of heads of `dim` numbers; `theta` and `partial` are the family's defaults."""
    found = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise fields.bad("rope_scaling", found, "an object")
    return rope_from(
        fields,
        found,
        dim,
        theta=found.get("rope_theta", fields.get("rope_theta", theta)),
        partial=found.get("partial_rotary_factor", fields.get("partial_rotary_factor", partial)),
        neighbours=neighbours,
    )


def rope_from(
    fields: Fields,
    found: Mapping[str, Any],
    dim: int,
    *,
    theta: Any,
    partial: Any = 1.0,
    neighbours: bool = False,
) -> Rope:
    """The rotation that the object `found` describes; theta and partial are still to be checked."""
    theta = fields.check_positive("rope_theta", theta)
    share = fields.check_positive("partial_rotary_factor", partial)
    turning = int(dim * share)
    if share > 1 or turning < 2 or turning % 2:
        raise fields.bad("partial_rotary_factor", share, f"an even part of {dim}")
    if theta <= 1:
        raise fields.bad("rope_theta", theta, "more than 1")
    return Rope(turning, theta, _scaling(fields, found, turning), neighbours)


def _scaling(fields: Fields, found: Mapping[str, Any], dim: int) -> RopeScaling:
    name = found.get("rope_type", found.get("type", "default"))
    if not isinstance(name, str) or name not in KINDS:
        raise fields.bad("rope_scaling", name, f"one of {', '.join(KINDS)}")
    kind = KINDS[name]
    part = Fields(fields.file, {f"rope_scaling.{key}": value for key, value in found.items()})
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling("linear", part.positive("rope_scaling.factor"))
    if kind == "llama3":
        return _llama3(part)
    context = fields.count("max_position_embeddings", 2048)
    if kind == "dynamic":
        if dim < 4:
            raise fields.bad("rope_scaling", name, "at least two pairs that rotate")
        part.only("rope_scaling.alpha")  # Hunyuan's, which raises theta always
        factor = part.positive("rope_scaling.factor")
        return RopeScaling("dynamic", factor, original_context=context)
    original = part.count("rope_scaling.original_max_position_embeddings", context)
    original = fields.count("original_max_position_embeddings", original)
    factor = part.positive("rope_scaling.factor", context / original)
    if kind == "yarn":
        return _yarn(part, factor, original)
    return _longrope(part, factor, original, dim)


def _llama3(part: Fields) -> RopeScaling:
    factor = part.positive("rope_scaling.factor")
    low = part.positive("rope_scaling.low_freq_factor", 1.0)
    high = part.positive("rope_scaling.high_freq_factor", 4.0)
    if high <= low:
        raise part.bad("rope_scaling.high_freq_factor", high, f"more than {low}")
    original = part.count("rope_scaling.original_max_position_embeddings", 8192)
    return RopeScaling("llama3", factor, low, high, original)


def _yarn(part: Fields, factor: float, original: int) -> RopeScaling:
    """Section 3 of https://arxiv.org/abs/2309.00071; `mscale` as DeepSeek-V3 has it."""
    over, under = (part.get(f"rope_scaling.{name}") for name in ("mscale", "mscale_all_dim"))
    magnitude = yarn_magnitude(factor)
    if over and under:
        over = part.check_positive("rope_scaling.mscale", over)
        under = part.check_positive("rope_scaling.mscale_all_dim", under)
        magnitude = yarn_magnitude(factor, over) / yarn_magnitude(factor, under)
    fast = part.positive("rope_scaling.beta_fast", 32.0)
    slow = part.positive("rope_scaling.beta_slow", 1.0)
    if fast <= slow:
        raise part.bad("rope_scaling.beta_fast", fast, f"more than {slow}")
    return RopeScaling(
        "yarn",
        factor,
        original_context=original,
        beta_fast=fast,
        beta_slow=slow,
        truncate=part.flag("rope_scaling.truncate", True),
        magnitude=part.positive("rope_scaling.attention_factor", magnitude),
    )


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """Equation 22 of the paper, its 0.1 multiplied by `scale`."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(part: Fields, factor: float, original: int, dim: int) -> RopeScaling:
    magnitude = 1.0
    if factor > 1:
        if original < 2:
            name = "rope_scaling.original_max_position_embeddings"
            raise part.bad(name, original, "at least 2")
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original))
    return RopeScaling(
        "longrope",
        factor,
        original_context=original,
        magnitude=part.positive("rope_scaling.attention_factor", magnitude),
        short=_factors(part, "rope_scaling.short_factor", dim // 2),
        long=_factors(part, "rope_scaling.long_factor", dim // 2),
    )


def _factors(part: Fields, name: str, count: int) -> tuple[float, ...]:
    """One factor for each pair."""
    found = part.get(name)
    if not isinstance(found, list) or len(found) != count:
        raise part.bad(name, found, f"a list of {count} numbers")
    return tuple(part.check_positive(name, value) for value in found)
