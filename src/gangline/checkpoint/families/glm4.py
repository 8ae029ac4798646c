"""GLM 4 (0414): norms before and behind both halves, half of a head rotates, in neighbours."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp
from gangline.checkpoint.families.family import Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    rules = fields.attention()
    rope = rope_of(fields, rules.head_dim, partial=0.5, neighbours=True)
    return [LayerShape(SelfAttention(rules, rope), dense_mlp(fields))] * fields.n_layers


FAMILY = Family(
    name="glm4",
    architectures=("Glm4ForCausalLM",),
    layers=layers,
    names=Names(
        attention_output_norm="post_self_attn_layernorm",
        mlp_output_norm="post_mlp_layernorm",
        gate_up="mlp.gate_up_proj",
    ),
)
