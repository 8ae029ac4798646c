"""Attention over a cache of one array per lane, which grows as its tokens arrive."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from gangline.engine.operations import Attention, Batch, CacheDtype

GROWTH = 256  # positions by which a lane's memory grows


class Rows(NamedTuple):
    """Rows `first <= row < end` of a step: positions from `start` of the lane in `slot`."""

    slot: int
    start: int
    first: int
    end: int

    @property
    def n_rows(self) -> int:
        return self.end - self.first


class Step:
    """A checked batch, and what the layers of one step share."""

    def __init__(self, batch: Batch) -> None:
        self.sequences: list[Rows] = []
        first = 0
        for slot, start, count in zip(
            batch.slots.tolist(), batch.starts.tolist(), batch.counts.tolist(), strict=True
        ):
            self.sequences.append(Rows(slot, start, first, first + count))
            first += count
        self._positions = mx.array(batch.positions)
        # Of each table by its identity, with the table: while it is held nothing else has its id.
        self._rotations: dict[int, tuple[mx.array, mx.array]] = {}
        self._masks: dict[tuple[int, int, int], mx.array] = {}

    def rotation(self, table: mx.array) -> mx.array:
        """Rows of a rope table, (T, 2, 1, R / 2)."""
        if id(table) not in self._rotations:
            self._rotations[id(table)] = table, table[self._positions][:, :, None]
        return self._rotations[id(table)][1]

    def mask(self, start: int, count: int, window: int) -> mx.array:
        """Who sees whom: (count, keys from the first that any row sees), as truth values."""
        form = start, count, window
        if form not in self._masks:
            rows = mx.arange(start, start + count)[:, None]
            keys = mx.arange(first_visible(start, window), start + count)[None]
            visible = keys <= rows
            self._masks[form] = visible & (keys > rows - window) if window else visible
        return self._masks[form]


class Cache:
    """Keys and values of one layer; a lane has memory for the tokens that it has had."""

    def __init__(self, lanes: int, context: int, rules: Attention, dtype: CacheDtype) -> None:
        self.dtype = mx.float16 if dtype == "f16" else mx.float32
        self._context = context
        heads = rules.n_kv_heads
        self._keys = [mx.zeros((heads, 0, rules.head_dim), self.dtype)] * lanes
        self._values = [mx.zeros((heads, 0, rules.value_dim), self.dtype)] * lanes

    def append_keys(self, slot: int, start: int, keys: mx.array) -> mx.array:
        """Keep keys (KV, n, Dh) from position `start` on; all of the lane's so far."""
        return self._append(self._keys, slot, start, keys)

    def append_values(self, slot: int, start: int, values: mx.array) -> mx.array:
        """As `append_keys`."""
        return self._append(self._values, slot, start, values)

    def _append(self, lanes: list[mx.array], slot: int, start: int, new: mx.array) -> mx.array:
        heads, capacity, width = lanes[slot].shape
        end = start + new.shape[1]
        if end > capacity:
            wanted = min(self._context, -(-end // GROWTH) * GROWTH)
            room = mx.zeros((heads, wanted - capacity, width), self.dtype)
            lanes[slot] = mx.concatenate([lanes[slot], room], axis=1)
        # The list holds the only reference, so that MLX writes where the lane lies.
        lanes[slot][:, start:end] = new.astype(self.dtype)
        return lanes[slot][:, :end]


def first_visible(position: int, window: int) -> int:
    """The first position that a row at `position` sees."""
    return max(0, position - window + 1) if window else 0


def attend(
    qkv: mx.array, cache: Cache, step: Step, rules: Attention, sinks: mx.array | None
) -> mx.array:
    """qkv (T, width) -> (T, H Dv)."""
    n_rows, heads, kv_heads = qkv.shape[0], rules.n_heads, rules.n_kv_heads
    query_end, key_end = heads * rules.head_dim, (heads + kv_heads) * rules.head_dim
    queries = _heads(qkv[:, :query_end], heads).astype(cache.dtype)  # (H, T, Dh)
    keys = _heads(qkv[:, query_end:key_end], kv_heads)
    values = None if rules.shared_values else _heads(qkv[:, key_end:], kv_heads)
    if sinks is not None:
        sinks = sinks.astype(cache.dtype)
    results = []
    for sequence in step.sequences:
        slot, start, first, end = sequence
        k = cache.append_keys(slot, start, keys[:, first:end])
        if values is None:
            v = k[..., : rules.value_dim]
        else:
            v = cache.append_values(slot, start, values[:, first:end])
        seen = first_visible(start, rules.window)
        results.append(
            _scores_and_values(
                queries[:, first:end], k[:, seen:], v[:, seen:], step, sequence, rules, sinks
            )
        )
    out = results[0] if len(results) == 1 else mx.concatenate(results, axis=1)  # (H, T, Dv)
    return out.swapaxes(0, 1).reshape(n_rows, heads * rules.value_dim).astype(mx.float32)


def _scores_and_values(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    step: Step,
    sequence: Rows,
    rules: Attention,
    sinks: mx.array | None,
) -> mx.array:
    """q (H, n, Dh), k and v (KV, P, …) -> (H, n, Dv)."""
    start, count = sequence.start, sequence.n_rows
    # A window that reaches back to the first position hides nothing.
    window = rules.window if rules.window < start + count else 0
    if rules.soft_cap:
        mask = step.mask(start, count, window)
        return _capped(q, k, v, mask, rules, sinks)
    mask = None if count == 1 else step.mask(start, count, window) if window else "causal"
    return mx.fast.scaled_dot_product_attention(
        q[None], k[None], v[None], scale=rules.scale, mask=mask, sinks=sinks
    )[0]


def _capped(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    mask: mx.array,
    rules: Attention,
    sinks: mx.array | None,
) -> mx.array:
    """Attention with capped scores, which MLX's own operation does not know."""
    n_kv_heads = k.shape[0]
    grouped = q.reshape(n_kv_heads, -1, *q.shape[1:])  # (KV, H / KV, n, Dh)
    products = (grouped @ k[:, None].swapaxes(-1, -2)).astype(mx.float32) * rules.scale
    scores = mx.where(mask, rules.soft_cap * mx.tanh(products / rules.soft_cap), -mx.inf)
    if sinks is not None:
        sink = mx.broadcast_to(sinks.reshape(n_kv_heads, -1, 1, 1), (*scores.shape[:-1], 1))
        scores = mx.concatenate([scores, sink.astype(mx.float32)], axis=-1)
    weights = mx.softmax(scores, axis=-1)
    if sinks is not None:
        weights = weights[..., :-1]
    return (weights.astype(v.dtype) @ v[:, None]).reshape(*q.shape[:2], v.shape[-1])


def _heads(rows: mx.array, n_heads: int) -> mx.array:
    """(T, H D) -> (H, T, D)."""
    return rows.reshape(rows.shape[0], n_heads, -1).swapaxes(0, 1)
