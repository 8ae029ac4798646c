"""The key and value cache, and attention over it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.engine.backends.reference.activations import cap_scores
from gangline.engine.operations import F32, Attention, Batch

BLOCK = 64  # positions per step of the walk over the cache


class Cache(msgspec.Struct, frozen=True):
    """Keys and values of one layer, one row of positions per cache slot."""

    keys: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dh)
    values: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dv); a view of shared keys


def attend(qkv: F32, cache: Cache, batch: Batch, rules: Attention, sinks: F32 | None = None) -> F32:
    """`Operations.attend`."""
    n_heads, n_kv_heads = rules.n_heads, rules.n_kv_heads
    end_q = n_heads * rules.head_dim
    end_k = end_q + n_kv_heads * rules.head_dim
    queries, keys, values = np.split(qkv, [end_q, end_k], axis=1)
    queries = queries.reshape(len(qkv), n_heads, rules.head_dim) * np.float32(rules.scale)
    slots = np.repeat(batch.slots, batch.counts)
    cache.keys[slots, batch.positions] = keys.reshape(len(qkv), n_kv_heads, -1)
    if not rules.shared_values:
        cache.values[slots, batch.positions] = values.reshape(len(qkv), n_kv_heads, -1)
    out = np.empty((len(qkv), n_heads, rules.value_dim), np.float32)
    for row, (slot, position) in enumerate(zip(slots, batch.positions, strict=True)):
        first = max(0, position + 1 - rules.window) if rules.window else 0
        for head in range(n_heads):
            kv_head = head * n_kv_heads // n_heads
            out[row, head] = _attend_one(
                queries[row, head],
                cache.keys[slot, : position + 1, kv_head],
                cache.values[slot, : position + 1, kv_head],
                first,
                rules.soft_cap,
                None if sinks is None else sinks[head],
            )
    return out.reshape(len(qkv), n_heads * rules.value_dim)


def _attend_one(
    query: F32,
    keys: NDArray[np.floating[Any]],
    values: NDArray[np.floating[Any]],
    first: int,
    soft_cap: float,
    sink: np.float32 | None,
) -> F32:
    """query (Dh,), keys (P, Dh), values (P, Dv) -> (Dv,): softmax in one pass over blocks.

    Positions below `first` are not seen. A sink is a score that is there before all others.
    """
    largest_score = np.float32(-np.inf) if sink is None else sink
    total = np.float32(0 if sink is None else 1)
    out = np.zeros(values.shape[1], np.float32)
    # What is beyond the cache's float16 has become infinite: that shows in the result.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(first - first % BLOCK, len(keys), BLOCK):
            scores = keys[start : start + BLOCK].astype(np.float32) @ query
            if soft_cap:
                scores = cap_scores(scores, soft_cap)
            scores[: max(0, first - start)] = -np.inf
            new_largest = max(largest_score, scores.max())
            weights = np.exp(scores - new_largest)
            kept = np.exp(largest_score - new_largest)
            total = total * kept + weights.sum()
            out = out * kept + weights @ values[start : start + BLOCK].astype(np.float32)
            largest_score = new_largest
        return out / total
