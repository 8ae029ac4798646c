"""Phi 3 and 4 mini: queries, keys and values in one matrix, gate and up in one; long rotations."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp, sliding_window, uniform
from gangline.checkpoint.families.family import Family, Names
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    return uniform(fields, dense_mlp(fields), window=sliding_window(fields))


FAMILY = Family(
    name="phi3",
    architectures=("Phi3ForCausalLM",),
    layers=layers,
    names=Names(qkv="self_attn.qkv_proj", gate_up="mlp.gate_up_proj"),
)
