"""Model families: one short file each, listed here; docs/families.md says how to add one.

They are here and not in the engine because a plan needs a model's sizes on machines that run
nothing; they know no tensor and no array library.
"""

from __future__ import annotations

from gangline.checkpoint.families import (
    cohere2,
    deepseek_v3,
    gemma2,
    gemma3,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    smollm3,
)
from gangline.checkpoint.families.family import Family, Names

__all__ = ["ARCHITECTURES", "FAMILIES", "MODEL_TYPES", "Family", "Names"]

_MODULES = (
    cohere2,
    deepseek_v3,
    gemma2,
    gemma3,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    smollm3,
)

FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}

# Architecture of config.json → family.
ARCHITECTURES: dict[str, Family] = {
    architecture: family for family in FAMILIES.values() for architecture in family.architectures
}

# `model_type` of config.json, for those without architectures → architecture.
MODEL_TYPES: dict[str, str] = {
    model_type: family.architectures[0]
    for family in FAMILIES.values()
    for model_type in (family.name, *family.model_types)
}
