"""Parameters of a model counted from its config.json, for checking the catalogue.

Written from the papers' descriptions and apart from the package, so that an error of one is not
hidden by the same error of the other. Norms, gates of a few numbers and biases of experts are left
out: they are below a thousandth of every model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Config = dict[str, Any]


class Count(NamedTuple):
    """Matrix elements; `embedding` and `output` are one matrix where they are tied."""

    layers: int
    active_layers: int
    embedding: int
    output: int

    @property
    def total(self) -> int:
        return self.layers + self.embedding + self.output


def count_parameters(config: Config) -> Count:
    """All parameters, and those of the layers that one token passes."""
    total = active = 0
    for layer in range(config["num_hidden_layers"]):
        mixer = _mixer(config, layer)
        dense, expert, n_experts, n_used = _feed_forward(config, layer)
        total += mixer + dense + n_experts * expert
        active += mixer + dense + n_used * expert
    table = config["vocab_size"] * config["hidden_size"]
    return Count(total, active, table, 0 if config["tie_word_embeddings"] else table)


def _mixer(config: Config, layer: int) -> int:
    """What mixes positions: attention in its forms, or a recurrence."""
    hidden = config["hidden_size"]
    if "kv_lora_rank" in config:
        return _latent_attention(config)
    if "full_attention_interval" in config and (layer + 1) % config["full_attention_interval"]:
        return _gated_delta(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    n_gates = 1 if "full_attention_interval" in config else 0  # one per query, in the same matrix
    n_values = 1
    if "attn_type_list" in config and not config["attn_type_list"][layer]:  # lightning attention
        kv_heads, n_gates = heads, 1
    if "global_head_dim" in config and config["layer_types"][layer] == "full_attention":
        head_dim, kv_heads = config["global_head_dim"], config["num_global_key_value_heads"]
        n_values = 0 if config["attention_k_eq_v"] else 1
    queries = hidden * heads * head_dim * (2 + n_gates)  # with the output matrix
    return queries + hidden * kv_heads * head_dim * (1 + n_values)


def _latent_attention(config: Config) -> int:
    """DeepSeek-V2, arXiv:2405.04434, section 2.1; the indexer: DeepSeek-V3.2, arXiv:2512.02556."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = (config[f"{n}_head_dim"] for n in ("qk_nope", "qk_rope", "v"))
    rank, q_rank = config["kv_lora_rank"], config.get("q_lora_rank")
    queries = heads * (nope + rope) * (q_rank or hidden) + (hidden * q_rank if q_rank else 0)
    keys_values = hidden * (rank + rope) + rank * heads * (nope + value)
    index_heads, index_dim = config.get("index_n_heads", 0), config.get("index_head_dim", 0)
    index = (q_rank or 0) * index_heads * index_dim + hidden * (index_dim + index_heads)
    return queries + keys_values + heads * value * hidden + index


def _gated_delta(config: Config) -> int:
    """Gated DeltaNet, arXiv:2412.06464, with a gate as wide as its values."""
    hidden = config["hidden_size"]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] * config["linear_value_head_dim"]
    conv = config["linear_conv_kernel_dim"] * (2 * keys + values)
    return hidden * (2 * keys + 3 * values + 2 * config["linear_num_value_heads"]) + conv


def _feed_forward(config: Config, layer: int) -> tuple[int, int, int, int]:
    """Parameters that every token passes, of one expert, experts, experts that a token uses."""
    hidden = config["hidden_size"]
    dense = 3 * hidden * config.get("intermediate_size", 0)
    n_experts = next(
        (
            config[key]
            for key in ("num_experts", "num_local_experts", "n_routed_experts")
            if key in config
        ),
        0,
    )
    step = config.get("interleave_moe_layer_step", 1)
    if not n_experts or layer < config.get("first_k_dense_replace", 0) or (layer + 1) % step:
        return 3 * hidden * config.get("intermediate_size_mlp", 0) or dense, 0, 0, 0
    used = config.get("num_experts_per_tok") or config["top_k_experts"]
    expert = 3 * hidden * (config.get("moe_intermediate_size") or config["intermediate_size"])
    always = hidden * n_experts  # the router
    always += 3 * hidden * config.get("shared_expert_intermediate_size", 0)
    always += expert * config.get("n_shared_experts", 0)
    if "intermediate_size_mlp" in config:  # Llama 4 adds one expert that all tokens pass
        always += expert
    if config.get("enable_moe_block"):  # Gemma 4 adds a dense part of its own width
        always += dense
    return always, expert, n_experts, used
