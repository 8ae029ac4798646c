"""A shape small enough to write and run in a moment, known by the name `tiny`."""

from __future__ import annotations

import pytest

from gangline.bench.shapes import SHAPES, Shape

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 192,
    "max_position_embeddings": 512,
    "vocab_size": 320,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, like in (("tiny", "llama-3.1-8b"), ("tiny-tied", "llama-3.2-1b")):
        monkeypatch.setitem(SHAPES, name, Shape("tests", SHAPES[like].config | SIZES))
    experts = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
    moe = SHAPES["qwen3-30b-a3b"].config | SIZES | experts
    monkeypatch.setitem(SHAPES, "tiny-moe", Shape("tests", moe))
    gemma = SHAPES["gemma-3-4b"].config | SIZES | {"sliding_window": 5}
    monkeypatch.setitem(SHAPES, "tiny-gemma", Shape("tests", gemma))
    oss = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 128}
    oss = SHAPES["gpt-oss-20b"].config | SIZES | oss
    monkeypatch.setitem(SHAPES, "tiny-oss", Shape("tests", oss))
    latent = {
        "num_key_value_heads": 4,
        "moe_intermediate_size": 64,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 1,
        "q_lora_rank": 64,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
    }
    latent = SHAPES["deepseek-v3"].config | SIZES | latent
    monkeypatch.setitem(SHAPES, "tiny-latent", Shape("tests", latent))
