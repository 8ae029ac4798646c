"""Qwen3-Next: three layers with a gated delta rule to one with gated attention; experts."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import (
    FULL,
    dense_mlp,
    every_nth_full,
    softmax_mixture,
    sparse_layers,
)
from gangline.checkpoint.families.family import Family, Names
from gangline.checkpoint.fields import MAX_HEAD_DIM, Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import DeltaAttention, DeltaNet, LayerShape, SelfAttention

LINEAR = "linear_attention"


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("hidden_act", "silu")  # of the convolution and the gate of the delta rule as well
    rules = fields.attention(head_dim=256)
    rope = rope_of(fields, rules.head_dim, partial=0.25)
    attention = SelfAttention(rules, rope, head_norm="head", gated=True)
    delta = DeltaAttention(_delta_rules(fields))
    mixture = softmax_mixture(
        fields,
        renormalize=fields.flag("norm_topk_prob", True),
        shared_width=fields.count("shared_expert_intermediate_size"),
    )
    kinds = every_nth_full(fields, fields.count("full_attention_interval", 4), LINEAR)
    return [
        LayerShape(attention if kind == FULL else delta, mixture if sparse else dense_mlp(fields))
        for kind, sparse in zip(kinds, sparse_layers(fields), strict=True)
    ]


def _delta_rules(fields: Fields) -> DeltaNet:
    n_key_heads = fields.heads("linear_num_key_heads", 16)
    n_value_heads = fields.heads("linear_num_value_heads", 32)
    if n_value_heads % n_key_heads:
        raise fields.bad("linear_num_value_heads", n_value_heads, f"a multiple of {n_key_heads}")
    return DeltaNet(
        n_key_heads,
        n_value_heads,
        key_dim=fields.count("linear_key_head_dim", 128, limit=MAX_HEAD_DIM),
        value_dim=fields.count("linear_value_head_dim", 128, limit=MAX_HEAD_DIM),
        kernel=fields.count("linear_conv_kernel_dim", 4, limit=64),
    )


FAMILY = Family(
    name="qwen3_next",
    architectures=("Qwen3NextForCausalLM",),
    layers=layers,
    names=Names(shared="mlp.shared_expert"),
    unit_offset=True,
    no_offset_beside=".switch_mlp.",  # MLX adds the 1 when it converts a checkpoint
)
