"""Qwen 2 and 2.5: biases on queries, keys and values; windows if the config turns them on."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import qwen_dense
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("use_mrope", False)
    return qwen_dense(fields)


FAMILY = Family(name="qwen2", architectures=("Qwen2ForCausalLM",), layers=layers)
