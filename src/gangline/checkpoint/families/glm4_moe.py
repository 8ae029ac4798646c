"""GLM 4.5 and later with experts: DeepSeek's routing behind ordinary attention."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_first
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    rules = fields.attention()
    normed = fields.flag("use_qk_norm", False)
    rope = rope_of(fields, rules.head_dim, partial=0.5)
    return dense_first(fields, SelfAttention(rules, rope, "head" if normed else "none"))


FAMILY = Family(name="glm4_moe", architectures=("Glm4MoeForCausalLM",), layers=layers)
