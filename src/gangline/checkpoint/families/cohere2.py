"""Command R7B and its kin: attention and MLP side by side, layer norms, and three layers with
a window and rotation to one with neither."""

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
    fields.only("use_qk_norm", False)
    fields.only("rotary_pct", 1.0)
    window = sliding_window(fields, 4096)
    rope = rope_of(fields, fields.head_dim(), neighbours=True)
    mlp = dense_mlp(fields)
    near = LayerShape(SelfAttention(fields.attention(window=window), rope), mlp)
    far = LayerShape(SelfAttention(fields.attention(), None), mlp)
    interval = fields.count("sliding_window_pattern", 4)
    kinds = every_nth_full(fields, interval, SLIDING)
    return [near if kind == SLIDING else far for kind in kinds]


def extras(fields: Fields) -> Extras:
    return {"logit_scale": fields.positive("logit_scale", 0.0625)}


FAMILY = Family(
    name="cohere2",
    architectures=("Cohere2ForCausalLM",),
    layers=layers,
    extras=extras,
    names=Names(mlp_norm=""),
    norm="layer",
    parallel=True,
    defaults={"tie_word_embeddings": True},
)
