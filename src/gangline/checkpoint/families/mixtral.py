"""Mixtral: Mistral's attention, and eight experts of which two are asked."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import sliding_window
from gangline.checkpoint.families.family import Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, Mixture, Routing, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    rules = fields.attention(window=sliding_window(fields))
    n_experts = fields.experts("num_local_experts", 8)
    n_active = fields.count("num_experts_per_tok", 2, limit=n_experts)
    routing = Routing(n_experts, n_active, renormalize=True)
    mixture = Mixture(routing, fields.count("intermediate_size"))
    attention = SelfAttention(rules, rope_of(fields, rules.head_dim, theta=1e6))
    return [LayerShape(attention, mixture)] * fields.n_layers


FAMILY = Family(
    name="mixtral",
    architectures=("MixtralForCausalLM",),
    layers=layers,
    names=Names(
        router="block_sparse_moe.gate",
        expert="block_sparse_moe.experts.{expert}",
        expert_gate="w1",
        expert_up="w3",
        expert_down="w2",
        stacked="block_sparse_moe.switch_mlp",
    ),
)
