"""What a planner needs to know of a model: bytes and arithmetic per layer; no file, no clock.

`cost_of_config` derives all of it from the fields of a published `config.json`, so that a model can
be planned before it is downloaded; `layers_of_config` gives the same facts for files whose sizes
are known. Elements are counted, then turned into bytes by the bits per weight that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gangline.errors import UsageError

MIN_BITS, MAX_BITS = 1.0, 32.0
CACHE_BYTES = 2  # per element of a cache: half precision, as every engine here stores it
MXFP4_BITS = 4.25  # four bits and an eight-bit scale for each 32 weights (OCP Microscaling 1.0)
KEPT_BITS = 8.5  # what quantizers keep a model's other matrices in where its experts are MXFP4
NORM_WEIGHTS_PER_HIDDEN = 2  # two norms a layer, small next to everything else

# From 32 rows of gpt-oss-120b in one step on a DGX Spark, which read as many experts as 13
# independent rows would (ggml-org/llama.cpp benches/dgx-spark.md @4c7e989).
ALIKE = 0.75

# Kernels that a graph launches for a layer's parts, counted in the usual decoders: norm, residual,
# projections, rope, cache, attention; gate and up, product, down. They stand for the time that a
# layer takes whatever its size; what one launch costs is fitted for each engine and machine.
OPERATIONS = {"attention": 9, "latent": 14, "linear": 30, "dense": 5, "experts": 16, "none": 0}


class LayerCost(msgspec.Struct, frozen=True, array_like=True):
    """One layer: what it holds, what a token reads of it, what a token calculates in it.

    Weights fall into those that every token reads and `n_experts` experts of `expert_bytes` each,
    of which a token reads `n_active`.
    """

    shared_bytes: int  # attention, norms, router, shared experts; all of a dense layer
    expert_bytes: int = 0  # of one expert
    n_experts: int = 0
    n_active: int = 0
    cache_bytes_per_token: int = 0
    window: int = 0  # tokens that the cache keeps; 0: all of them
    state_bytes: int = 0  # of a lane whatever its length, in layers of linear attention
    flops_per_token: int = 0  # two for each weight that a token uses
    flops_per_pair: int = 0  # attention: for each token and each token before it
    operations: int = 14
    expert_flops: int = 0  # of one row in one expert
    cache_parts: int = 1  # machines that can share the cache: one for each key head
    keeps_all: bool = False  # the engine keeps room for the whole context behind a window too

    @property
    def weight_bytes(self) -> int:
        """What the layer holds."""
        return self.shared_bytes + self.n_experts * self.expert_bytes

    def read_bytes(self, lanes: int = 1) -> float:
        """Weights that one step of `lanes` rows reads."""
        return self.shared_bytes + self.experts_read(lanes) * self.expert_bytes

    def experts_read(self, lanes: int) -> float:
        """Experts that `lanes` rows choose together.

        An expert is left alone by one row with probability 1 - n_active/n_experts. Rows choose
        alike: `lanes` of them touch as many experts as lanes**ALIKE independent ones would.
        """
        if not self.n_experts:
            return 0.0
        untouched: float = (1 - self.n_active / self.n_experts) ** (lanes**ALIKE)
        return self.n_experts * (1 - untouched)

    def cached_tokens(self, depth: float) -> float:
        """Tokens of the past that attention reads behind `depth` tokens."""
        return min(depth, self.window) if self.window else depth

    def cache_bytes(self, context: int) -> int:
        """What one lane of `context` tokens keeps in this layer."""
        tokens = min(context, self.window) if self.window and not self.keeps_all else context
        return self.cache_bytes_per_token * tokens + self.state_bytes


class ModelCost(msgspec.Struct, frozen=True):
    """The bytes of a model by the places where they can lie, and the work of its layers."""

    layer_bytes: tuple[int, ...]  # weights of each layer
    embedding_bytes: int
    output_bytes: int  # 0 when the output matrix is the embedding table
    kv_bytes_per_token: int  # keys and values of one token in one layer, where `layers` is empty
    hidden_size: int
    max_context: int  # tokens the model was trained for
    layers: tuple[LayerCost, ...] = ()  # one for each layer; empty: every token reads all bytes
    output_flops: int = 0  # of one row of logits

    @property
    def n_layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def head_bytes(self) -> int:
        """Weights that only the head holds."""
        return self.embedding_bytes + self.output_bytes

    @property
    def head_read_bytes(self) -> int:
        """What the head reads per token besides its layers: the output matrix, tied or not."""
        return self.output_bytes or self.embedding_bytes

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return sum(self.layer_bytes) + self.head_bytes

    @property
    def layer_costs(self) -> tuple[LayerCost, ...]:
        """`layers`, or what the bytes alone say: about four bits and two operations a weight."""
        if self.layers:
            return self.layers
        return tuple(
            LayerCost(
                shared_bytes=n_bytes,
                cache_bytes_per_token=self.kv_bytes_per_token,
                flops_per_token=4 * n_bytes,
                flops_per_pair=2 * self.kv_bytes_per_token,
            )
            for n_bytes in self.layer_bytes
        )


def cost_of_config(config: Mapping[str, Any], bits: float) -> ModelCost:
    """What a published model costs at `bits` per weight, scales included; UsageError.

    Models that are published in MXFP4 keep their experts in it whatever is asked for below 16.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise UsageError(
            f"{bits:g} bits per weight are outside {MIN_BITS:g}..{MAX_BITS:g}", param="bits"
        )
    fields = Fields(config)
    expert_bits = rest_bits = bits
    if fields.text.get("model_type") == "gpt_oss" and bits < 16:
        expert_bits, rest_bits = min(bits, MXFP4_BITS), max(bits, KEPT_BITS)
    layers = tuple(
        elements.cost(rest_bits, expert_bits, fields) for elements in elements_of(fields)
    )
    table = _bytes(fields.hidden * fields.vocab, rest_bits)
    return ModelCost(
        layer_bytes=tuple(layer.weight_bytes for layer in layers),
        embedding_bytes=table,
        output_bytes=0 if fields.tied else table,
        kv_bytes_per_token=max(layer.cache_bytes_per_token for layer in layers),
        hidden_size=fields.hidden,
        max_context=fields.count("max_position_embeddings", 8192),
        layers=layers,
        output_flops=2 * fields.hidden * fields.vocab,
    )


def with_layers(
    cost: ModelCost, config: Mapping[str, Any], caches: Sequence[tuple[int, int]]
) -> ModelCost:
    """The cost of files whose sizes are known, with the work of each layer from their config.

    `caches` are each layer's bytes per token and per lane, as the engine that reads the files keeps
    them. Unchanged where the config says nothing that fits the files.
    """
    try:
        fields = Fields(config)
        elements = elements_of(fields)
    except UsageError:
        return cost
    if len(elements) != cost.n_layers or not all(part.weights for part in elements):
        return cost
    layers = []
    for part, n_bytes, (per_token, per_lane) in zip(
        elements, cost.layer_bytes, caches, strict=True
    ):
        bits = 8 * n_bytes / part.weights
        layer = part.cost(bits, bits, fields)
        layers.append(
            msgspec.structs.replace(
                layer,
                shared_bytes=max(0, n_bytes - layer.n_experts * layer.expert_bytes),
                cache_bytes_per_token=per_token,
                state_bytes=per_lane,
                keeps_all=True,
            )
        )
    return msgspec.structs.replace(
        cost, layers=tuple(layers), output_flops=2 * fields.hidden * fields.vocab
    )


def bits_of(cost: ModelCost) -> float:
    """Average bits per weight, from the arithmetic that the layers ask for; 4.5 if unknown."""
    if not cost.layers:
        return 4.5
    weights = sum(
        layer.flops_per_token / 2 + (layer.n_experts - layer.n_active) * layer.expert_flops / 2
        for layer in cost.layers
    )
    return round(8 * sum(cost.layer_bytes) / max(weights, 1), 2)


def active_weights(config: Mapping[str, Any]) -> tuple[int, int]:
    """All weights, and those that one token uses: the embedding counts only if it is the output."""
    fields = Fields(config)
    table = fields.hidden * fields.vocab
    layers = elements_of(fields)
    total = sum(layer.weights for layer in layers) + table * (1 if fields.tied else 2)
    used = sum(layer.shared + layer.n_active * layer.expert for layer in layers) + table
    return total, used


class Elements(msgspec.Struct, frozen=True):
    """Numbers of a layer, before anybody says how many bits each takes."""

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

    def cost(self, bits: float, expert_bits: float, fields: Fields) -> LayerCost:
        return LayerCost(
            shared_bytes=_bytes(self.shared, bits),
            expert_bytes=_bytes(self.expert, expert_bits),
            n_experts=self.n_experts,
            n_active=self.n_active,
            cache_bytes_per_token=CACHE_BYTES * self.cache,
            window=self.window,
            state_bytes=2 * CACHE_BYTES * self.state,  # running sums are kept in float32
            flops_per_token=2 * (self.shared + self.n_active * self.expert + 2 * self.state),
            flops_per_pair=2 * self.pair,
            operations=self.operations,
            expert_flops=2 * self.expert,
            cache_parts=self.cache_parts,
        )


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
        shared=mixing.weights + shared + NORM_WEIGHTS_PER_HIDDEN * fields.hidden,
        expert=expert,
        n_experts=n_experts,
        n_active=n_active,
        cache=mixing.cache,
        window=fields.first("sliding_window", "attention_chunk_size") if kind == "window" else 0,
        state=mixing.state,
        pair=mixing.pair,
        operations=OPERATIONS[mixing.kind] + OPERATIONS[ffn],
        cache_parts=mixing.parts,
    )


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


def _bytes(elements: float, bits: float) -> int:
    return math.ceil(elements * bits / 8)
