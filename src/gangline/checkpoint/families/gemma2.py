"""Gemma 2: norms before and behind both halves, every other layer with a window, soft caps."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import (
    SLIDING,
    dense_mlp,
    every_nth_full,
    sliding_window,
)
from gangline.checkpoint.families.family import Extras, Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("use_bidirectional_attention", False)
    window = sliding_window(fields, 4096)
    rope = rope_of(fields, fields.head_dim(256))
    mlp = dense_mlp(fields)

    def layer(kind: str) -> LayerShape:
        rules = fields.attention(
            scale=fields.positive("query_pre_attn_scalar", 256) ** -0.5,
            window=window if kind == SLIDING else 0,
            soft_cap=fields.cap("attn_logit_softcapping", 50.0),
            head_dim=256,
        )
        return LayerShape(SelfAttention(rules, rope), mlp)

    return [layer(kind) for kind in every_nth_full(fields, 2, SLIDING)]


def extras(fields: Fields) -> Extras:
    return {
        "activation": fields.activation("hidden_activation", "gelu_pytorch_tanh"),
        "embedding_scale": fields.count("hidden_size") ** 0.5,
        "logit_cap": fields.cap("final_logit_softcapping", 30.0),
    }


FAMILY = Family(
    name="gemma2",
    architectures=("Gemma2ForCausalLM",),
    layers=layers,
    extras=extras,
    names=Names(
        attention_output_norm="post_attention_layernorm",
        mlp_norm="pre_feedforward_layernorm",
        mlp_output_norm="post_feedforward_layernorm",
    ),
    unit_offset=True,
    defaults={"tie_word_embeddings": True},
)
