"""Attention over a cache of keys and values, with the variations that recur among families."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from gangline.checkpoint.shape import Attention, SelfAttention
from gangline.engine.layers.project import Projection, load_projection
from gangline.engine.loader import Loader, Rows, rotating_rows
from gangline.engine.operations import Operations


class CachedAttention(msgspec.Struct, frozen=True):
    """One layer's attention; what the layer does without is None."""

    rules: Attention
    qkv: Any  # (rules.width, D), below it the gates' rows (H Dh, D)
    qkv_bias: Any | None
    gated: bool
    query_norm: Any | None
    key_norm: Any | None
    norm_eps: float
    rope: Any | None
    sinks: Any | None  # (H,)
    cache: Any
    output: Projection

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual + what attention makes of it."""
        rules = self.rules
        rows = ops.linear(x, self.qkv, self.qkv_bias)
        if self.gated:
            rows, gate = ops.split(rows, (rules.width, rules.n_heads * rules.head_dim))
        if self.query_norm is not None:
            rows = ops.head_norm(rows, self.query_norm, self.key_norm, rules, self.norm_eps)
        if self.rope is not None:
            rows = ops.rope(rows, self.rope, batch, rules)
        y = ops.attend(rows, self.cache, batch, rules, self.sinks)
        if self.gated:
            y = ops.sigmoid_gate(y, gate)
        return self.output.run(ops, y, residual)


def load_attention(loader: Loader, at: str, shape: SelfAttention) -> CachedAttention:
    """The tensors whose names begin with `at`."""
    rules, names = shape.rules, loader.names
    rows = _fused_rows(at + names.qkv, shape) if names.qkv else _separate_rows(loader, at, shape)
    query_norm = key_norm = None
    if shape.head_norm != "none":
        n_q, n_k = (rules.n_heads, rules.n_kv_heads) if shape.head_norm == "whole" else (1, 1)
        query_norm = loader.norm(at + names.query_norm, n_q * rules.head_dim)
        key_norm = loader.norm(at + names.key_norm, n_k * rules.head_dim)
    return CachedAttention(
        rules=rules,
        qkv=loader.matrix(*rows, columns=loader.shape.hidden),
        qkv_bias=loader.bias(*rows),
        gated=shape.gated,
        query_norm=query_norm,
        key_norm=key_norm,
        norm_eps=loader.shape.norm_eps,
        rope=None if shape.rope is None else loader.rope_table(shape.rope),
        sinks=loader.vector(at + names.sinks, rules.n_heads) if shape.sinks else None,
        cache=loader.cache(rules),
        output=load_projection(
            loader, at + names.attention_output, rules.n_heads * rules.value_dim
        ),
    )


def _fused_rows(module: str, shape: SelfAttention) -> list[Rows]:
    assert not shape.gated and not (shape.rope and shape.rope.neighbours), "no family has both"
    return [Rows(module, shape.rules.width)]


def _separate_rows(loader: Loader, at: str, shape: SelfAttention) -> list[Rows]:
    rules, names = shape.rules, loader.names
    n_q, n_k = rules.n_heads * rules.head_dim, rules.n_kv_heads * rules.head_dim
    key = Rows(at + names.key, n_k, rotating_rows(rules.n_kv_heads, rules.head_dim, shape.rope))
    value = Rows(at + names.value, rules.n_kv_heads * rules.value_dim)
    if not shape.gated:
        chosen = rotating_rows(rules.n_heads, rules.head_dim, shape.rope)
        return [Rows(at + names.query, n_q, chosen), key, value]
    # Each head has its query's rows, then its gate's.
    pairs = np.arange(2 * n_q).reshape(rules.n_heads, 2, rules.head_dim)
    query, gate = (Rows(at + names.query, 2 * n_q, pairs[:, i].reshape(-1)) for i in (0, 1))
    return [query, key, value, gate]
