"""Qwen 3: each head of queries and keys is normed."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import qwen_dense
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    return qwen_dense(fields, head_norm="head", head_dim=128)


FAMILY = Family(name="qwen3", architectures=("Qwen3ForCausalLM",), layers=layers)
