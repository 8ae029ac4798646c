"""What a planner needs to know of a model: bytes and arithmetic per layer; no file, no clock.

`cost_of_config` derives all of it from the fields of a published `config.json`, so that a model can
be planned before it is downloaded; `with_layers` gives the same facts for files whose sizes
are known. Elements are counted, then turned into bytes by the bits per weight that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gangline.errors import UsageError
from gangline.plan.elements import Elements, Fields, elements_of

MIN_BITS, MAX_BITS = 1.0, 32.0
CACHE_BYTES = 2  # per element of a cache: half precision, as every engine here stores it
MXFP4_BITS = 4.25  # four bits and an eight-bit scale for each 32 weights (OCP Microscaling 1.0)
KEPT_BITS = 8.5  # what quantizers keep a model's other matrices in where its experts are MXFP4

# From 32 rows of gpt-oss-120b in one step on a DGX Spark, which read as many experts as 13
# independent rows would (ggml-org/llama.cpp benches/dgx-spark.md @4c7e989).
ALIKE = 0.75


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
    mlp_flops: int = 0  # of `flops_per_token`, what comes behind the attention; 0: not known

    def without_mlp(self) -> LayerCost:
        """The arithmetic of a row whose result nobody reads: its keys and values alone are kept."""
        if not self.mlp_flops:
            return self
        left = self.flops_per_token - self.mlp_flops
        return msgspec.structs.replace(self, flops_per_token=left, n_active=0, mlp_flops=0)

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
    layers = tuple(_layer_cost(part, rest_bits, expert_bits) for part in elements_of(fields))
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
        layer = _layer_cost(part, bits, bits)
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


def _layer_cost(part: Elements, bits: float, expert_bits: float) -> LayerCost:
    """A layer's numbers as bytes and arithmetic."""
    return LayerCost(
        shared_bytes=_bytes(part.shared, bits),
        expert_bytes=_bytes(part.expert, expert_bits),
        n_experts=part.n_experts,
        n_active=part.n_active,
        cache_bytes_per_token=CACHE_BYTES * part.cache,
        window=part.window,
        state_bytes=2 * CACHE_BYTES * part.state,  # running sums are kept in float32
        flops_per_token=2 * (part.shared + part.n_active * part.expert + 2 * part.state),
        flops_per_pair=2 * part.pair,
        operations=part.operations,
        expert_flops=2 * part.expert,
        cache_parts=part.cache_parts,
        mlp_flops=2 * (part.shared - part.mixing + part.n_active * part.expert),
    )


def _bytes(elements: float, bits: float) -> int:
    return math.ceil(elements * bits / 8)
