"""Qwen 3 with experts: a softmax over all of them before the choice."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import (
    dense_mlp,
    sliding_window,
    softmax_mixture,
    sparse_layers,
)
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    window = sliding_window(fields, 4096) if fields.flag("use_sliding_window", False) else 0
    rules = fields.attention(window=window)
    attention = SelfAttention(rules, rope_of(fields, rules.head_dim), head_norm="head")
    mixture = softmax_mixture(fields, renormalize=fields.flag("norm_topk_prob", False))
    return [
        LayerShape(attention, mixture if sparse else dense_mlp(fields))
        for sparse in sparse_layers(fields)
    ]


FAMILY = Family(name="qwen3_moe", architectures=("Qwen3MoeForCausalLM",), layers=layers)
