"""Qwen 3: each head of queries and keys is normed."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp, qwen_kinds, sliding_window, windowed
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    mlp = dense_mlp(fields)
    rope = rope_of(fields, fields.head_dim(128))
    window = sliding_window(fields, 4096)
    mixers = windowed(fields, rope, qwen_kinds(fields), window, head_norm="head")
    return [LayerShape(mixer, mlp) for mixer in mixers]


FAMILY = Family(name="qwen3", architectures=("Qwen3ForCausalLM",), layers=layers)
