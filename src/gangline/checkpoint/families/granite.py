"""Granite 3: Llama's block with multipliers of embedding, scores, halves and logits."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp
from gangline.checkpoint.families.family import Extras, Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    rules = fields.attention(scale=fields.positive("attention_multiplier", 1.0))
    attention = SelfAttention(rules, rope_of(fields, rules.head_dim))
    return [LayerShape(attention, dense_mlp(fields))] * fields.n_layers


def extras(fields: Fields) -> Extras:
    return {
        "embedding_scale": fields.positive("embedding_multiplier", 1.0),
        "residual_scale": fields.positive("residual_multiplier", 1.0),
        "logit_scale": 1 / fields.positive("logits_scaling", 1.0),
    }


FAMILY = Family(name="granite", architectures=("GraniteForCausalLM",), layers=layers, extras=extras)
