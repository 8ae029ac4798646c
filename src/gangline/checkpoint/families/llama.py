"""Llama 2, 3, 3.1 and later text models, and the many models of the same block."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp, uniform
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    return uniform(fields, dense_mlp(fields))


FAMILY = Family(name="llama", architectures=("LlamaForCausalLM",), layers=layers)
