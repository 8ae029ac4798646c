"""Gemma 3, its text part: Gemma 2's norms, five layers with a window to one without, each kind
with a rotation of its own, and no soft caps."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families import gemma2
from gangline.checkpoint.families.common import (
    FULL,
    SLIDING,
    dense_mlp,
    every_nth_full,
    sliding_window,
)
from gangline.checkpoint.families.family import Extras, Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_from
from gangline.checkpoint.shape import LayerShape, Rope, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("use_bidirectional_attention", False)
    ropes, window = _ropes(fields), sliding_window(fields, 4096)
    mlp = dense_mlp(fields)

    def layer(kind: str) -> LayerShape:
        rules = fields.attention(
            scale=fields.positive("query_pre_attn_scalar", 256) ** -0.5,
            window=window if kind == SLIDING else 0,
            soft_cap=fields.cap("attn_logit_softcapping"),
        )
        return LayerShape(SelfAttention(rules, ropes[kind], head_norm="head"), mlp)

    interval = fields.count("sliding_window_pattern", 6)
    return [layer(kind) for kind in every_nth_full(fields, interval, SLIDING)]


def extras(fields: Fields) -> Extras:
    return gemma2.extras(fields) | {"logit_cap": fields.cap("final_logit_softcapping")}


def _ropes(fields: Fields) -> dict[str, Rope]:
    found = fields.part("rope_parameters")
    full = found.part(FULL).config or fields.part("rope_scaling").config
    sliding = found.part(SLIDING).config
    theta = full.get("rope_theta", fields.get("rope_theta", 1e6))
    local = sliding.get("rope_theta", fields.get("rope_local_base_freq", 1e4))
    return {
        FULL: rope_from(fields, full, fields.head_dim(), theta=theta),
        SLIDING: rope_from(fields, sliding, fields.head_dim(), theta=local),
    }


FAMILY = Family(
    name="gemma3",
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    layers=layers,
    extras=extras,
    names=gemma2.FAMILY.names,
    unit_offset=True,
    model_types=("gemma3_text",),
    text_config="text_config",
    defaults={  # of transformers' Gemma3TextConfig: published configs say what differs from them
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
    },
)
