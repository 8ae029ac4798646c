"""Mistral 7B and the models of its block: Llama's, with a window in the first version; and the text
part of Mistral Small 3.1 and later, which see."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_mlp, sliding_window, uniform
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape


def layers(fields: Fields) -> Sequence[LayerShape]:
    fields.only("layer_types")  # Ministral's alternating layers
    fields.only("model_type", "mistral", "mistral3")  # Ministral 3 scales queries by position
    return uniform(fields, dense_mlp(fields), window=sliding_window(fields, 4096))


FAMILY = Family(
    name="mistral",
    architectures=("MistralForCausalLM", "Mistral3ForConditionalGeneration"),
    layers=layers,
    text_config="text_config",
)
