"""Layers that several families have."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import (
    HeadNorm,
    LatentAttention,
    LayerShape,
    Mixture,
    Mlp,
    Routing,
    SelfAttention,
)

FULL, SLIDING = "full_attention", "sliding_attention"


def dense_mlp(fields: Fields) -> Mlp:
    return Mlp(fields.count("intermediate_size"))


def uniform(fields: Fields, mlp: Mlp | Mixture, *, window: int = 0) -> Sequence[LayerShape]:
    """The same attention in every layer."""
    rules = fields.attention(window=window)
    attention = SelfAttention(rules, rope_of(fields, rules.head_dim))
    return [LayerShape(attention, mlp)] * fields.n_layers


def sliding_window(fields: Fields, default: int = 0) -> int:
    """`sliding_window`; 0 where the config says there is none."""
    if "sliding_window" in fields.config and fields.config["sliding_window"] is None:
        return 0
    return fields.count_or_zero("sliding_window", default)


def qwen_dense(
    fields: Fields, *, head_norm: HeadNorm = "none", head_dim: int | None = None
) -> list[LayerShape]:
    """Qwen's layers see everything, unless `use_sliding_window`: then up to the first
    `max_window_layers` of them, or those that `layer_types` names."""
    window = sliding_window(fields, 4096) if fields.flag("use_sliding_window", False) else 0
    first = fields.count_or_zero("max_window_layers", 28)
    default = [SLIDING if window and n >= first else FULL for n in range(fields.n_layers)]
    rope, mlp = rope_of(fields, fields.head_dim(head_dim)), dense_mlp(fields)

    def layer(kind: str) -> LayerShape:
        rules = fields.attention(window=window if kind == SLIDING else 0, head_dim=head_dim)
        return LayerShape(SelfAttention(rules, rope, head_norm), mlp)

    return [layer(kind) for kind in fields.layer_types((FULL, SLIDING), default)]


def softmax_mixture(fields: Fields, *, renormalize: bool, shared_width: int = 0) -> Mixture:
    """Experts chosen by a softmax over all of them, as Qwen names the fields; and perhaps one
    whose share each row decides."""
    n_experts = fields.experts("num_experts", fields.get("num_local_experts"))
    n_active = fields.count("num_experts_per_tok", limit=n_experts)
    routing = Routing(n_experts, n_active, renormalize=renormalize)
    width = fields.count("moe_intermediate_size")
    return Mixture(routing, width, shared_width=shared_width, shared_gate=shared_width > 0)


def sparse_layers(fields: Fields) -> list[bool]:
    """Which layers have experts: `decoder_sparse_step` and `mlp_only_layers`."""
    step = fields.count("decoder_sparse_step", 1)
    dense = set(fields.whole_numbers("mlp_only_layers") or ())
    return [(layer + 1) % step == 0 and layer not in dense for layer in range(fields.n_layers)]


def corrected_mixture(fields: Fields) -> Mixture:
    """Experts in groups, chosen by corrected sigmoids, and shared ones: DeepSeek-V3's names."""
    fields.only("scoring_func", "sigmoid")
    fields.only("topk_method", "noaux_tc")
    fields.only("moe_layer_freq", 1)
    n_experts = fields.experts("n_routed_experts")
    n_groups = fields.count("n_group", 1)
    n_active_groups = fields.count("topk_group", 1, limit=n_groups)
    if n_experts % n_groups or (n_groups > 1 and n_experts // n_groups < 2):
        raise fields.bad("n_group", n_groups, f"a part of {n_experts} experts, at least 2 in each")
    routing = Routing(
        n_experts,
        fields.count("num_experts_per_tok", limit=n_experts // n_groups * n_active_groups),
        scoring="sigmoid",
        renormalize=fields.flag("norm_topk_prob", True),
        scale=fields.positive("routed_scaling_factor", 1.0),
        n_groups=n_groups,
        n_active_groups=n_active_groups,
    )
    width = fields.count("moe_intermediate_size")
    shared_width = width * fields.count_or_zero("n_shared_experts")
    return Mixture(routing, width, correction=True, shared_width=shared_width)


def dense_first(fields: Fields, mixer: SelfAttention | LatentAttention) -> list[LayerShape]:
    """The same attention everywhere; experts behind the first `first_k_dense_replace` layers."""
    first = fields.count_or_zero("first_k_dense_replace")
    mixture, mlp = corrected_mixture(fields), dense_mlp(fields)
    return [
        LayerShape(mixer, mlp if layer < first else mixture) for layer in range(fields.n_layers)
    ]


def every_nth_full(fields: Fields, interval: int, other: str) -> tuple[str, ...]:
    """`layer_types`; by default each `interval`th sees everything, the rest are `other`."""
    default = [other if (layer + 1) % interval else FULL for layer in range(fields.n_layers)]
    return fields.layer_types((FULL, other), default)
