"""How many numbers a model's layers hold, from the fields of a published `config.json`; no bytes.

What a family of models calls its sizes and how it mixes layers is told here, and only here;
`shape.py` turns the numbers into bytes and arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gangline.errors import UsageError

NORM_WEIGHTS_PER_HIDDEN = 2  # two norms a layer, small next to everything else

# Kernels that a graph launches for a layer's parts, counted in the usual decoders: norm, residual,
# projections, rope, cache, attention; gate and up, product, down. They stand for the time that a
# layer takes whatever its size; what one launch costs is fitted for each engine and machine.
OPERATIONS = {"attention": 9, "latent": 22, "linear": 26, "dense": 5, "experts": 16, "none": 0}
NORM_OPERATIONS = 2  # of queries and keys, or behind attention and feed-forward
_NORMS_QUERIES = re.compile(r"qwen3|gemma[34]|olmo2|minimax_m2|glm4_moe$")
_NORMS_BEHIND = re.compile(r"gemma|olmo2|glm4$")


class Elements(msgspec.Struct, frozen=True):
    """Numbers of a layer, before anybody says how many bits each takes."""

    mixing: int  # of `shared`, those in which tokens see each other
    shared: int
    expert: int
    n_experts: int
    n_active: int
    cache: int  # of a token
    window: int
    state: int
    pair: int  # multiply-adds of attention for a token and one before it
    operations: int
    cache_parts: int

    @property
    def weights(self) -> int:
        return self.shared + self.n_experts * self.expert


class Fields:
    """Sizes in a `config.json`, by the several names that they go by."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        inner = config.get("text_config")
        self.text: Mapping[str, Any] = {**config, **inner} if isinstance(inner, dict) else config
        self.n_layers = self.count("num_hidden_layers")
        self.hidden = self.count("hidden_size")
        self.n_heads = self.count("num_attention_heads")
        self.n_kv_heads = self.count("num_key_value_heads", self.n_heads)
        self.head_dim = self.count("head_dim", self.hidden // self.n_heads)
        self.vocab = self.count("vocab_size")
        gemma = str(self.text.get("model_type", "")).startswith("gemma")
        self.tied = bool(self.text.get("tie_word_embeddings", gemma))

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number; UsageError where there is none and no default."""
        value = self.text.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"the model's config says {name} = {value!r}, expected a number")
        return value

    def first(self, *names: str) -> int:
        """The first of these that is given; 0 where none is."""
        return next((self.count(name) for name in names if self.text.get(name)), 0)


def elements_of(fields: Fields) -> list[Elements]:
    """Every layer of the model."""
    kinds = layer_kinds(fields)
    return [_elements(fields, kind, layer) for layer, kind in enumerate(kinds)]


# How often a layer attends to everything, where the config has a window and no list of its layers
# (the families' published modelling code).
_FULL_EVERY = {"gpt_oss": 2, "gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
_MAMBA_PATTERN = {"M": "mamba", "*": "full_only", "E": "ffn_only", "-": "ffn_only"}


def layer_kinds(fields: Fields) -> list[str]:
    """For each layer: "full", "window", "linear"; of hybrids also "mamba", "full_only", …"""
    text, n = fields.text, fields.n_layers
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [_MAMBA_PATTERN.get(letter, "ffn_only") for letter in pattern]
    types = text.get("layer_types")
    if isinstance(types, list) and len(types) == n:
        return [
            "linear" if "linear" in str(t) else "window" if _is_window(str(t)) else "full"
            for t in types
        ]
    if interval := fields.first("full_attention_interval"):
        return ["full" if (i + 1) % interval == 0 else "linear" for i in range(n)]
    recurrent = text.get("attn_type_list")
    if isinstance(recurrent, list) and len(recurrent) == n:  # MiniMax-M1: 0 is lightning attention
        return ["full" if one else "lightning" for one in recurrent]
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return ["full"] * n
    every = fields.first("sliding_window_pattern", "_sliding_window_pattern") or _FULL_EVERY.get(
        str(text.get("model_type", "")), 0
    )
    return ["full" if every and (i + 1) % every == 0 else "window" for i in range(n)]


def _is_window(name: str) -> bool:
    return "sliding" in name or "chunked" in name or "local" in name


def _elements(fields: Fields, kind: str, layer: int) -> Elements:
    mixing = _mixing(fields, kind)
    shared, expert, n_experts, n_active, ffn = _feed_forward(fields, kind, layer)
    return Elements(
        mixing=mixing.weights,
        shared=mixing.weights + shared + NORM_WEIGHTS_PER_HIDDEN * fields.hidden,
        expert=expert,
        n_experts=n_experts,
        n_active=n_active,
        cache=mixing.cache,
        window=fields.first("sliding_window", "attention_chunk_size") if kind == "window" else 0,
        state=mixing.state,
        pair=mixing.pair,
        operations=_operations(fields, mixing.kind, ffn),
        cache_parts=mixing.parts,
    )


def _operations(fields: Fields, mixing: str, ffn: str) -> int:
    """Kernels of a layer; some families have norms that the usual decoders do not."""
    family = str(fields.text.get("model_type", ""))
    count = OPERATIONS[mixing] + OPERATIONS[ffn]
    if mixing == "attention" and _NORMS_QUERIES.match(family):
        count += NORM_OPERATIONS
    if ffn != "none" and _NORMS_BEHIND.match(family):
        count += NORM_OPERATIONS
    if ffn == "experts" and fields.text.get("enable_moe_block"):  # a dense block beside them
        count += OPERATIONS["dense"] + NORM_OPERATIONS
    return count


class _Mixing(NamedTuple):
    """The part of a layer in which tokens see each other."""

    kind: str  # a key of OPERATIONS
    weights: int = 0
    cache: int = 0
    state: int = 0
    pair: int = 0
    parts: int = 1


def _mixing(fields: Fields, kind: str) -> _Mixing:
    hidden, heads = fields.hidden, fields.n_heads
    if kind == "ffn_only":
        return _Mixing("none")
    if kind == "mamba":
        n, width = fields.count("mamba_num_heads"), fields.count("mamba_head_dim")
        groups, state = fields.count("n_groups", 8), fields.count("ssm_state_size", 128)
        inner = n * width
        weights = hidden * (2 * inner + 2 * groups * state + n) + inner * hidden
        return _Mixing("linear", weights, state=inner * state)
    if kind == "lightning":
        inner = heads * fields.head_dim
        return _Mixing("linear", 5 * hidden * inner, state=inner * fields.head_dim)
    if kind == "linear":
        keys = fields.count("linear_num_key_heads", heads)
        key_dim = fields.count("linear_key_head_dim", fields.head_dim)
        values = fields.count("linear_num_value_heads", heads)
        value_dim = fields.count("linear_value_head_dim", fields.head_dim)
        inner = values * value_dim
        weights = hidden * (2 * keys * key_dim + 3 * inner + 2 * values)  # q, k, v, gate, out
        return _Mixing("linear", weights, state=inner * key_dim)
    if rank := fields.first("kv_lora_rank"):  # latent attention (DeepSeek V2, arXiv:2405.04434)
        rope, nope = fields.count("qk_rope_head_dim"), fields.count("qk_nope_head_dim")
        value = fields.count("v_head_dim")
        queries = heads * (nope + rope)
        q_rank = fields.first("q_lora_rank")
        weights = q_rank * (hidden + queries) if q_rank else hidden * queries
        weights += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
        if index_heads := fields.first("index_n_heads"):  # sparse attention (arXiv:2512.02556)
            index_dim = fields.count("index_head_dim")
            weights += q_rank * index_heads * index_dim + hidden * (index_dim + index_heads)
        pair = heads * (2 * rank + rope)  # absorbed: queries and values stay in the latent space
        return _Mixing("latent", weights, rank + rope, pair=pair)
    kv_heads, width = fields.n_kv_heads, fields.head_dim
    made = 2  # keys and values, each by a matrix
    if kind == "full" and (wide := fields.first("global_head_dim")):  # Gemma 4
        width = wide
        kv_heads = fields.first("num_global_key_value_heads") or kv_heads
        # One matrix makes both; they differ once keys are rotated, so that the cache keeps both.
        made = 1 if fields.text.get("attention_k_eq_v") else 2
    gate = 1 if fields.text.get("attn_output_gate") else 0
    weights = hidden * width * (heads * (2 + gate) + made * kv_heads)
    return _Mixing(
        "attention", weights, 2 * kv_heads * width, pair=2 * heads * width, parts=kv_heads
    )


def _feed_forward(fields: Fields, kind: str, layer: int) -> tuple[int, int, int, int, str]:
    """(shared weights, weights of an expert, experts, experts per token, kind of operations)."""
    if kind in ("mamba", "full_only"):
        return 0, 0, 0, 0, "none"
    text, hidden = fields.text, fields.hidden
    matrices = 2 if text.get("mlp_hidden_act") == "relu2" else 3
    width = fields.first("intermediate_size", "moe_intermediate_size")
    dense = matrices * hidden * (fields.first("intermediate_size_mlp") or width)  # Llama 4
    n_experts = fields.first("num_experts", "n_routed_experts", "num_local_experts")
    n_active = fields.first("num_experts_per_tok", "top_k_experts", "experts_per_token")
    if not n_experts or not n_active or not _has_experts(fields, layer):
        return dense, 0, 0, 0, "dense"
    expert_width = fields.first("moe_intermediate_size", "expert_intermediate_size") or width
    shared_width = fields.first(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"
    ) or expert_width * fields.first("n_shared_experts", "num_shared_experts")
    if fields.text.get("intermediate_size_mlp"):  # Llama 4: one shared expert, no field
        shared_width = width
    latent = fields.first("moe_latent_size") or hidden
    shared = matrices * hidden * shared_width + hidden * n_experts
    if latent != hidden:
        shared += 2 * hidden * latent
    if text.get("enable_moe_block"):  # Gemma 4: a dense block beside the experts
        shared += dense
    return shared, matrices * latent * expert_width, n_experts, n_active, "experts"


def _has_experts(fields: Fields, layer: int) -> bool:
    text = fields.text
    if layer < fields.count("first_k_dense_replace", 0):
        return False
    only_dense = text.get("mlp_only_layers")
    if isinstance(only_dense, list) and layer in only_dense:
        return False
    step = fields.first("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step") or 1
    return (layer + 1) % step == 0
