"""DeepSeek V3 and R1, Kimi K2 (and K2.5's text part): latent attention, experts in groups chosen by
corrected sigmoids."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import dense_first
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import MAX_HEAD_DIM, Fields
from gangline.checkpoint.rotation import rope_of, yarn_magnitude
from gangline.checkpoint.shape import LatentAttention, LayerShape

MAX_LATENT = 4096


def layers(fields: Fields) -> Sequence[LayerShape]:
    plain = fields.count("qk_nope_head_dim", 128, limit=MAX_HEAD_DIM)
    turning = fields.count("qk_rope_head_dim", 64, limit=MAX_HEAD_DIM)
    rope = rope_of(fields, turning, neighbours=fields.flag("rope_interleave", True))
    attention = LatentAttention(
        n_heads=fields.heads("num_attention_heads"),
        query_rank=fields.count_or_zero("q_lora_rank"),
        latent=fields.count("kv_lora_rank", 512, limit=MAX_LATENT),
        plain_dim=plain,
        rope=rope,
        value_dim=fields.count("v_head_dim", 128, limit=MAX_HEAD_DIM),
        scale=(plain + turning) ** -0.5 * _stretch(fields) ** 2,
    )
    return dense_first(fields, attention)


def _stretch(fields: Fields) -> float:
    """What longer contexts multiply queries and keys by, besides the rotation's own magnitude."""
    found = fields.part("rope_parameters").config or fields.part("rope_scaling").config
    scaling = Fields(fields.file, found)
    if scaling.get("rope_type", scaling.get("type", "default")) == "default":
        return 1.0
    share = scaling.get("mscale_all_dim", 0)
    if not share:
        return 1.0
    return yarn_magnitude(scaling.positive("factor"), scaling.positive("mscale_all_dim"))


FAMILY = Family(
    name="deepseek_v3",
    architectures=(
        "DeepseekV3ForCausalLM",
        "KimiK25ForConditionalGeneration",
        "Kimi_K25ForConditionalGeneration",  # as transformers spells it
    ),
    layers=layers,
    text_config="text_config",
    model_types=("kimi_k2",),
)
