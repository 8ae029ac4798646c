"""Named models as their publishers describe them: the `config.json` of each, as data.

A shape is a real model without its weights: fields of the config that say nothing about the
computation (initializers, versions of libraries) are left out. `source` names the file.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """A model's config, and where it is published."""

    source: str
    config: dict[str, Any]


def _llama3(factor: float) -> dict[str, Any]:
    """What the Llama 3.1 and 3.2 text models have in common; `factor` stretches the rope."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256,
    }


_QWEN3 = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "use_sliding_window": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}
_QWEN3_DENSE = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **_QWEN3}
_QWEN3_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **_QWEN3}

SHAPES: dict[str, Shape] = {
    "llama-3.2-1b": Shape(
        "https://huggingface.co/meta-llama/Llama-3.2-1B/blob/main/config.json",
        {
            **_llama3(32.0),
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3.2-3b": Shape(
        "https://huggingface.co/meta-llama/Llama-3.2-3B/blob/main/config.json",
        {
            **_llama3(32.0),
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3.1-8b": Shape(
        "https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json",
        {
            **_llama3(8.0),
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3-0.6b": Shape(
        "https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
        {
            **_QWEN3_DENSE,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 3072,
            "max_window_layers": 28,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-4b": Shape(
        "https://huggingface.co/Qwen/Qwen3-4B/blob/main/config.json",
        {
            **_QWEN3_DENSE,
            "hidden_size": 2560,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 9728,
            "max_window_layers": 36,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-30b-a3b": Shape(
        "https://huggingface.co/Qwen/Qwen3-30B-A3B/blob/main/config.json",
        {
            **_QWEN3_MOE,
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "max_window_layers": 48,
            "tie_word_embeddings": False,
        },
    ),
    "moe-64x4": Shape(
        "made up: as many active weights as llama-3.2-1b, from 4 of 64 experts",
        {
            **_QWEN3_MOE,
            "vocab_size": 128256,
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 8192,
            "moe_intermediate_size": 2048,
            "num_experts": 64,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "max_window_layers": 16,
            "tie_word_embeddings": True,
        },
    ),
    "gemma-3-4b": Shape(
        "https://huggingface.co/google/gemma-3-4b-it/blob/main/config.json",
        {
            "architectures": ["Gemma3ForCausalLM"],  # its text part
            "model_type": "gemma3_text",
            "attention_bias": False,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "max_position_embeddings": 131072,
            "num_attention_heads": 8,
            "num_hidden_layers": 34,
            "num_key_value_heads": 4,
            "query_pre_attn_scalar": 256,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "rope_theta": 1000000.0,
            "sliding_window": 1024,
            "sliding_window_pattern": 6,
            "tie_word_embeddings": True,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
            "vocab_size": 262208,
        },
    ),
    "gpt-oss-20b": Shape(
        "https://huggingface.co/openai/gpt-oss-20b/blob/main/config.json",
        {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "attention_bias": True,
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "max_position_embeddings": 131072,
            "num_attention_heads": 64,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 24,
            "num_key_value_heads": 8,
            "num_local_experts": 32,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "rope_type": "yarn",
                "truncate": False,
            },
            "rope_theta": 150000,
            "sliding_window": 128,
            "swiglu_limit": 7.0,
            "tie_word_embeddings": False,
            "eos_token_id": 200002,
            "torch_dtype": "bfloat16",
            "vocab_size": 201088,
        },
    ),
    "deepseek-v3": Shape(
        "https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json",
        {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "attention_bias": False,
            "first_k_dense_replace": 3,
            "hidden_act": "silu",
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "max_position_embeddings": 163840,
            "moe_intermediate_size": 2048,
            "moe_layer_freq": 1,
            "n_group": 8,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_attention_heads": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 128,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "rope_theta": 10000,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": False,
            "topk_group": 4,
            "topk_method": "noaux_tc",
            "v_head_dim": 128,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
            "vocab_size": 129280,
        },
    ),
}
