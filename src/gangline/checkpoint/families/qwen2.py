"""Qwen 2 and 2.5: biases on queries, keys and values; windows if the config turns them on."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp, qwen_kinds, sliding_window, windowed
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("use_mrope", False)
    mlp = dense_mlp(fields)
    rope = rope_of(fields, fields.head_dim())
    window = sliding_window(fields, 4096)
    return [LayerShape(mixer, mlp) for mixer in windowed(fields, rope, qwen_kinds(fields), window)]


FAMILY = Family(name="qwen2", architectures=("Qwen2ForCausalLM",), layers=layers)
