"""gpt-oss: sinks, every other layer with a window, biases everywhere, clamped experts."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import SLIDING, every_nth_full, sliding_window
from gangline.checkpoint.families.family import Extras, Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, Mixture, Routing, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    window = sliding_window(fields, 128)
    rope = rope_of(fields, fields.head_dim(64), theta=150_000.0)
    n_experts = fields.experts("num_local_experts")
    n_active = fields.count("num_experts_per_tok", limit=n_experts)
    routing = Routing(n_experts, n_active, scoring="softmax_chosen")
    mixture = Mixture(routing, fields.count("intermediate_size"))

    def layer(kind: str) -> LayerShape:
        rules = fields.attention(window=window if kind == SLIDING else 0, head_dim=64)
        return LayerShape(SelfAttention(rules, rope, sinks=True), mixture)

    return [layer(kind) for kind in every_nth_full(fields, 2, SLIDING)]


def extras(fields: Fields) -> Extras:
    fields.only("hidden_act", "silu")
    fields.only("swiglu_alpha", 1.702)
    fields.only("swiglu_limit", 7.0)
    return {"activation": "swiglu_clamped"}


FAMILY = Family(
    name="gpt_oss",
    architectures=("GptOssForCausalLM",),
    layers=layers,
    extras=extras,
    names=Names(router="mlp.router", stacked="mlp.experts"),
    interleaved=True,
)
