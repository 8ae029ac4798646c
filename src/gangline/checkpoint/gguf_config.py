"""A GGUF file's metadata → the fields of Hugging Face's `config.json` for the same model.

One row for each architecture that can be read. What a converter leaves out because llama.cpp
knows it (https://github.com/ggml-org/llama.cpp, `conversion/` and `src/models/`) stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gangline.checkpoint.gguf import Array, Gguf
from gangline.errors import CheckpointError

ARCHITECTURE = "gguf_architecture"  # our own field of the config: the name in the file
MAX_LAYERS = 4096
MAX_SIZE = 2**31 - 1
LLAMA3_CONTEXT = 8192  # `original_max_position_embeddings` of every Llama 3.1 and later

Config = dict[str, Any]


class Facts(msgspec.Struct, frozen=True):
    """What an architecture has beyond the fields of all.

    `fields` maps config.json's names to keys of the metadata, `constants` are what no file says,
    `more` computes the rest.
    """

    name: str  # in config.json
    model_type: str
    fields: dict[str, str] = {}
    constants: Config = {}
    more: Callable[[Gguf, str, Config], Config] = lambda gguf, architecture, config: {}


def config_of(gguf: Gguf) -> Config:
    """The config of the model in a file; `CheckpointError` names what is missing or wrong."""
    architecture = gguf.get("general.architecture", str)
    facts = ARCHITECTURES.get(architecture)
    if facts is None:
        raise CheckpointError(
            f"{gguf.file}: architecture `{str(architecture)[:200]}` is not supported",
            hint=f"Supported in GGUF: {', '.join(ARCHITECTURES)}.",
        )
    config = _common(gguf, architecture)
    config |= {"architectures": [facts.name], "model_type": facts.model_type, **facts.constants}
    for name, key in facts.fields.items():
        value = _number(gguf, f"{architecture}.{key}")
        if value is not None:
            config[name] = value
    return config | facts.more(gguf, architecture, config)


def _common(gguf: Gguf, architecture: str) -> Config:
    """The fields of every architecture."""

    def number(key: str) -> Any:
        return _number(gguf, f"{architecture}.{key}")

    def present(name: str) -> bool:
        return name in gguf.entries

    n_layers = number("block_count")
    nextn = number("nextn_predict_layers") or 0
    if type(n_layers) is not int or not 0 < n_layers - nextn <= MAX_LAYERS:
        raise gguf.bad(f"{architecture}.block_count", n_layers, f"1 to {MAX_LAYERS}")
    embedding = gguf.entries.get("token_embd.weight")
    heads, hidden = number("attention.head_count"), number("embedding_length")
    for key, value in (("attention.head_count", heads), ("embedding_length", hidden)):
        if type(value) is not int or not 0 < value <= MAX_SIZE:
            raise gguf.bad(f"{architecture}.{key}", value, f"1 to {MAX_SIZE}")
    config = {
        ARCHITECTURE: architecture,
        "hidden_size": hidden,
        "num_hidden_layers": n_layers - nextn,
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "intermediate_size": number("feed_forward_length"),
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else None,
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"),
        "rope_scaling": _rope_scaling(gguf, architecture),
        "tie_word_embeddings": not present("output.weight"),
        "attention_bias": present("blk.0.attn_q.bias") or present("blk.0.attn_qkv.bias"),
        "mlp_bias": present("blk.0.ffn_down.bias"),
        "hidden_act": "silu",
        "bos_token_id": gguf.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": [
            token
            for name in ("eos", "eot", "eom")
            if (token := gguf.get(f"tokenizer.ggml.{name}_token_id", int)) is not None
        ],
    }
    return {name: value for name, value in config.items() if value is not None}


def _number(gguf: Gguf, key: str) -> Any:
    """A number or flag; of an array (one number per layer) the one that all layers share."""
    value = gguf.get(key, (int, float, bool, Array))
    if not isinstance(value, Array):
        return value
    if not 0 < value.count <= MAX_LAYERS:
        raise gguf.bad(key, f"{value.count} elements", f"1 to {MAX_LAYERS}")
    numbers = set(value.values())
    if len(numbers) != 1:
        raise gguf.bad(key, sorted(numbers), "the same for every layer")
    return numbers.pop()


def _rope_scaling(gguf: Gguf, architecture: str) -> Config | None:
    at = f"{architecture}.rope.scaling"
    kind = gguf.get(f"{at}.type", str)
    factor = gguf.get(f"{at}.factor", (int, float))
    if kind in (None, "none", "longrope") or factor is None:
        return _llama3_scaling(gguf) if kind in (None, "none") else None
    scaling = {"rope_type": kind, "factor": factor}
    for name, key in (
        ("original_max_position_embeddings", "original_context_length"),
        ("attention_factor", "attn_factor"),
        ("beta_fast", "yarn_beta_fast"),
        ("beta_slow", "yarn_beta_slow"),
    ):
        value = gguf.get(f"{at}.{key}", (int, float))
        if value is not None:
            scaling[name] = value
    return scaling


def _llama3_scaling(gguf: Gguf) -> Config | None:
    """Llama 3.1 and later keep a factor per frequency: 1 for the fast, the whole for the slow."""
    factors = gguf.floats("rope_freqs.weight")
    if not factors or max(factors) == 1:
        return None
    return {
        "rope_type": "llama3",
        "factor": max(factors),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    }


def _llama(gguf: Gguf, architecture: str, config: Config) -> Config:
    if not config.get("num_local_experts"):
        return {}
    return {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}


def _gemma(large: int) -> Callable[[Gguf, str, Config], Config]:
    """The largest model of each generation (told by its layers) scales scores unlike the others."""

    def more(gguf: Gguf, architecture: str, config: Config) -> Config:
        if config["num_hidden_layers"] != large:
            return {"query_pre_attn_scalar": config.get("head_dim")}
        return {"query_pre_attn_scalar": config["hidden_size"] // config["num_attention_heads"]}

    return more


def _phi3(gguf: Gguf, architecture: str, config: Config) -> Config:
    original = _number(gguf, f"{architecture}.rope.scaling.original_context_length")
    more = _partial_rotary(gguf, architecture, config)
    if original is not None:
        more["original_max_position_embeddings"] = original
    long, short = (gguf.floats(f"rope_factors_{name}.weight") for name in ("long", "short"))
    if long and short:
        more["rope_scaling"] = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    # Zero is how a file says that there is none.
    return more | {"sliding_window": config.get("sliding_window") or None}


def _olmo2(gguf: Gguf, architecture: str, config: Config) -> Config:
    if "sliding_window" not in config:
        return {}
    return {"architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3"}


def _partial_rotary(gguf: Gguf, architecture: str, config: Config) -> Config:
    rotating = _number(gguf, f"{architecture}.rope.dimension_count")
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {"partial_rotary_factor": rotating / head_dim} if rotating else {}


def _glm4_moe(gguf: Gguf, architecture: str, config: Config) -> Config:
    return {
        **_partial_rotary(gguf, architecture, config),
        "use_qk_norm": "blk.0.attn_q_norm.weight" in gguf.entries,
    }


def _smollm3(gguf: Gguf, architecture: str, config: Config) -> Config:
    n_layers = config["num_hidden_layers"]
    return {"no_rope_layers": [int((layer + 1) % 4 != 0) for layer in range(n_layers)]}


def _every(interval: int, one: str, others: str, n_layers: int) -> list[str]:
    """Every `interval`th layer is of one kind."""
    return [one if (layer + 1) % interval == 0 else others for layer in range(n_layers)]


def _sliding(interval: int) -> Callable[[Gguf, str, Config], Config]:
    """Every `interval`th layer attends to all positions, the others within a window."""

    def more(gguf: Gguf, architecture: str, config: Config) -> Config:
        n_layers = config["num_hidden_layers"]
        return {"layer_types": _every(interval, "full_attention", "sliding_attention", n_layers)}

    return more


def _gemma3(gguf: Gguf, architecture: str, config: Config) -> Config:
    return _gemma(62)(gguf, architecture, config) | _sliding(6)(gguf, architecture, config)


def _gemma2(gguf: Gguf, architecture: str, config: Config) -> Config:
    return _gemma(46)(gguf, architecture, config) | _sliding(2)(gguf, architecture, config)


def _gpt_oss(gguf: Gguf, architecture: str, config: Config) -> Config:
    return {
        **_sliding(2)(gguf, architecture, config),
        "intermediate_size": config.get("moe_intermediate_size", config.get("intermediate_size")),
        "rope_scaling": {**config.get("rope_scaling", {}), "truncate": False},
    }


def _deepseek(gguf: Gguf, architecture: str, config: Config) -> Config:
    def number(key: str) -> Any:
        return _number(gguf, f"{architecture}.{key}")

    rotating = number("rope.dimension_count")
    # The sizes of a head are said apart where the file is made for keys that stay compressed.
    key = number("attention.key_length_mla") or number("attention.key_length")
    value = number("attention.value_length_mla") or number("attention.value_length")
    if None in (rotating, key, value):
        raise gguf.bad(f"{architecture}.attention.key_length", key, "sizes of latent attention")
    sigmoid = number("expert_gating_func") == 2
    more = {
        "architectures": ["DeepseekV3ForCausalLM" if sigmoid else "DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v3" if sigmoid else "deepseek_v2",
        "qk_rope_head_dim": rotating,
        "qk_nope_head_dim": key - rotating,
        "v_head_dim": value,
        "head_dim": rotating,
        "num_key_value_heads": config["num_attention_heads"],
        # Older files do not say that DeepSeek V3 (256 experts) chooses among 8 groups.
        "n_group": number("expert_group_count") or (8 if number("expert_count") == 256 else 1),
    }
    more["topk_group"] = number("expert_group_used_count") or (4 if more["n_group"] == 8 else 1)
    scale = number("rope.scaling.yarn_log_multiplier")
    if scale is not None and "rope_scaling" in config:
        mscale = round(10 * scale, 6)
        more["rope_scaling"] = {
            **config["rope_scaling"],
            "mscale": mscale,
            "mscale_all_dim": mscale,
        }
    return more


def _qwen3_next(gguf: Gguf, architecture: str, config: Config) -> Config:
    inner, heads = (
        _number(gguf, f"{architecture}.ssm.{of}") for of in ("inner_size", "time_step_rank")
    )
    if not inner or not heads:
        raise gguf.bad(f"{architecture}.ssm.inner_size", inner, "sizes of linear attention")
    for name in ("linear_num_key_heads", "linear_key_head_dim"):
        if type(config.get(name)) is not int or config[name] < 1:
            raise gguf.bad(f"{architecture}.ssm", config.get(name), f"a `{name}`")
    interval = _number(gguf, f"{architecture}.full_attention_interval") or 4
    n_layers = config["num_hidden_layers"]
    return {
        **_partial_rotary(gguf, architecture, config),
        "linear_value_head_dim": inner // heads,
        "layer_types": _every(interval, "full_attention", "linear_attention", n_layers),
    }


_EXPERTS = {
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
_SHARED_EXPERTS = {
    **_EXPERTS,
    "n_routed_experts": "expert_count",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
}
_GELU = {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
_WINDOW = {"sliding_window": "attention.sliding_window"}

ARCHITECTURES = {
    "llama": Facts(
        "LlamaForCausalLM",
        "llama",
        {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        more=_llama,
    ),
    "qwen2": Facts("Qwen2ForCausalLM", "qwen2"),
    "qwen3": Facts("Qwen3ForCausalLM", "qwen3"),
    "qwen3moe": Facts(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        {**_EXPERTS, "num_experts": "expert_count"},
        {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "gemma2": Facts(
        "Gemma2ForCausalLM",
        "gemma2",
        {
            **_WINDOW,
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        _GELU,
        _gemma2,
    ),
    "gemma3": Facts(
        "Gemma3ForCausalLM",
        "gemma3_text",
        {**_WINDOW, "final_logit_softcapping": "final_logit_softcapping"},
        {**_GELU, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        _gemma3,
    ),
    "phi3": Facts("Phi3ForCausalLM", "phi3", _WINDOW, more=_phi3),
    "olmo2": Facts("Olmo2ForCausalLM", "olmo2", _WINDOW, more=_olmo2),
    "granite": Facts(
        "GraniteForCausalLM",
        "granite",
        {
            "attention_multiplier": "attention.scale",
            "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale",
            "logits_scaling": "logit_scale",
        },
    ),
    "glm4": Facts("Glm4ForCausalLM", "glm4", more=_partial_rotary),
    "glm4moe": Facts(
        "Glm4MoeForCausalLM",
        "glm4_moe",
        _SHARED_EXPERTS,
        {"n_group": 1, "topk_group": 1},
        _glm4_moe,
    ),
    "smollm3": Facts("SmolLM3ForCausalLM", "smollm3", more=_smollm3),
    "cohere2": Facts(
        "Cohere2ForCausalLM",
        "cohere2",
        {
            **_WINDOW,
            "layer_norm_eps": "attention.layer_norm_epsilon",
            "logit_scale": "logit_scale",
        },
        {"sliding_window_pattern": 4},
        _sliding(4),
    ),
    "gpt-oss": Facts(
        "GptOssForCausalLM",
        "gpt_oss",
        {**_WINDOW, **_EXPERTS, "num_local_experts": "expert_count"},
        {"swiglu_limit": 7.0},
        _gpt_oss,
    ),
    "deepseek2": Facts(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        {
            **_SHARED_EXPERTS,
            "q_lora_rank": "attention.q_lora_rank",
            "kv_lora_rank": "attention.kv_lora_rank",
        },
        more=_deepseek,
    ),
    "qwen3next": Facts(
        "Qwen3NextForCausalLM",
        "qwen3_next",
        {
            **_EXPERTS,
            "num_experts": "expert_count",
            "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
            "linear_conv_kernel_dim": "ssm.conv_kernel",
            "linear_key_head_dim": "ssm.state_size",
            "linear_num_key_heads": "ssm.group_count",
            "linear_num_value_heads": "ssm.time_step_rank",
        },
        {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        _qwen3_next,
    ),
}
