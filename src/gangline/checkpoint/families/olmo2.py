"""OLMo 2: norms behind both halves only, and of all heads of queries and keys as one row."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp
from gangline.checkpoint.families.family import Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    rules = fields.attention()
    attention = SelfAttention(rules, rope_of(fields, rules.head_dim), head_norm="whole")
    return [LayerShape(attention, dense_mlp(fields))] * fields.n_layers


FAMILY = Family(
    name="olmo2",
    architectures=("Olmo2ForCausalLM",),
    layers=layers,
    names=Names(
        attention_norm="",
        attention_output_norm="post_attention_layernorm",
        mlp_norm="",
        mlp_output_norm="post_feedforward_layernorm",
    ),
)
