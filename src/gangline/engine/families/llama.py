"""Llama 2, 3 and the many models of the same block."""

from __future__ import annotations

from gangline.engine.families.family import Family

LLAMA = Family(
    name="llama",
    attention_norm="model.layers.{layer}.input_layernorm",
    query="model.layers.{layer}.self_attn.q_proj",
    key="model.layers.{layer}.self_attn.k_proj",
    value="model.layers.{layer}.self_attn.v_proj",
    attention_output="model.layers.{layer}.self_attn.o_proj",
    mlp_norm="model.layers.{layer}.post_attention_layernorm",
    gate="model.layers.{layer}.mlp.gate_proj",
    up="model.layers.{layer}.mlp.up_proj",
    down="model.layers.{layer}.mlp.down_proj",
    embedding="model.embed_tokens",
    final_norm="model.norm",
    output="lm_head",
)
