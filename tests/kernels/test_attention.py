"""Rotation, norms of heads, cache and attention on every path against float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline.checkpoint.shape import CacheDtype
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Attention, Batch
from tests.kernels.arrays import F32, Guarded, same_bits, spread

F64 = NDArray[np.float64]

PLAIN = Attention(4, 2, 10, 10, 10**-0.5)
RULES = {
    "one head": Attention(1, 1, 2, 2, 0.7),
    "odd heads": PLAIN,
    "more heads than fit at once": Attention(18, 2, 32, 32, 0.2),
    "wide": Attention(14, 2, 80, 80, 0.1),
    "window": Attention(4, 2, 16, 16, 0.3, window=70),
    "window of one": Attention(3, 1, 16, 16, 0.3, window=1),
    "window of a block": Attention(3, 3, 20, 20, 0.3, window=64),
    "soft cap": Attention(6, 2, 32, 32, 1.0, soft_cap=3.0),
    "narrow values": Attention(4, 2, 24, 9, 0.2),
    "wide values": Attention(4, 2, 9, 40, 0.4),
    "latent": Attention(11, 1, 22, 17, 0.3, shared_values=True),
    "latent, all rules": Attention(3, 1, 33, 33, 0.5, 80, 2.0, True),
    "largest": Attention(2, 1, 576, 512, 0.05, shared_values=True),
}


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def parts_of(qkv: F32, rules: Attention) -> tuple[F64, F64, F64]:
    """Queries (T, H, Dh), keys (T, KV, Dh), values (T, KV, Dv)."""
    t, wide = len(qkv), qkv.astype(np.float64)
    ends = [rules.n_heads * rules.head_dim, (rules.n_heads + rules.n_kv_heads) * rules.head_dim]
    queries, keys, values = np.split(wide, ends, axis=1)
    keys = keys.reshape(t, rules.n_kv_heads, rules.head_dim)
    if rules.shared_values:
        return queries.reshape(t, -1, rules.head_dim), keys, keys[..., : rules.value_dim]
    values = values.reshape(t, rules.n_kv_heads, rules.value_dim)
    return queries.reshape(t, -1, rules.head_dim), keys, values


def exact_attention(qkv: F32, rules: Attention, sinks: F32 | None) -> F64:
    """One sequence from position 0, (T, H Dv), by a plain softmax."""
    queries, keys, values = parts_of(qkv, rules)
    back = np.subtract.outer(np.arange(len(qkv)), np.arange(len(qkv)))
    visible = (back >= 0) & ((back < rules.window) | (rules.window == 0))
    heads = []
    for head in range(rules.n_heads):
        kv_head = head * rules.n_kv_heads // rules.n_heads
        scores = queries[:, head] @ keys[:, kv_head].T * rules.scale
        if rules.soft_cap:
            scores = rules.soft_cap * np.tanh(scores / rules.soft_cap)
        scores = np.where(visible, scores, -np.inf)
        if sinks is not None:
            scores = np.hstack([scores, np.full((len(qkv), 1), sinks[head])])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        heads.append(weights[:, : len(qkv)] @ values[:, kv_head])
    return np.concatenate(heads, axis=1)


def drawn(random: np.random.Generator, t: int, rules: Attention, dtype: CacheDtype) -> F32:
    """Fused rows; keys and values are numbers that the cache's dtype holds exactly."""
    qkv = random.standard_normal((t, rules.width)).astype(np.float32)
    if dtype == "f16":
        stored = qkv[:, rules.n_heads * rules.head_dim :]
        stored *= np.float32(2.0) ** random.integers(-14, 1, stored.shape)
        stored[...] = stored.astype(np.float16)
    return qkv


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("with_sinks", [False, True])
def test_attend(path: str, name: str, dtype: CacheDtype, with_sinks: bool) -> None:
    """Two lanes, one of them over several blocks of the cache."""
    rules = RULES[name]
    random = np.random.default_rng(len(name))
    ops, count = Cpu(1), 150
    cache = ops.cache(3, 160, rules, dtype)
    qkv = drawn(random, count + 2, rules, dtype)
    sinks = random.standard_normal(rules.n_heads).astype(np.float32) if with_sinks else None
    batch = ops.batch(Batch.of(ints(2, 0), ints(0, 0), ints(count, 2)), 3, 160)
    out = ops.attend(qkv, cache, batch, rules, sinks)
    for rows in (slice(0, count), slice(count, count + 2)):
        exact = exact_attention(qkv[rows], rules, sinks)
        np.testing.assert_allclose(out[rows], exact, atol=3e-6, rtol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_chunks_and_other_lanes_do_not_change_a_bit(path: str, name: str) -> None:
    rules = RULES[name]
    random = np.random.default_rng(3)
    qkv = drawn(random, 200, rules, "f32")
    noise = drawn(random, 200, rules, "f32")
    sinks = spread(random, rules.n_heads)
    ops = Cpu(1)

    def run(chunks: list[int], others: bool) -> F32:
        cache = ops.cache(3, 256, rules)
        parts, at = [], 0
        for count in chunks:
            rows = [noise[at : at + count]] * others + [qkv[at : at + count]]
            slots, starts = ints(*[0, 2][1 - others :]), ints(*[at] * len(rows))
            batch = Batch.of(slots, starts, ints(*[count] * len(rows)))
            out = ops.attend(np.concatenate(rows), cache, ops.batch(batch, 3, 256), rules, sinks)
            parts.append(out[-count:])
            at += count
        return np.concatenate(parts)

    whole = run([200], False)
    assert np.isfinite(whole).all()
    assert same_bits(run([1] * 66 + [64, 63, 7], True), whole)
    assert same_bits(run([63, 1, 64, 65, 7], False), whole)


def test_what_a_window_hides_is_not_looked_at(path: str) -> None:
    """NaNs and infinities at positions before the window do not reach a row."""
    rules = Attention(3, 1, 16, 16, 0.3, window=20)
    random = np.random.default_rng(2)
    qkv = drawn(random, 120, rules, "f32")
    dirty = qkv.copy()
    dirty[:70, 48:] = np.nan
    dirty[10:60:2, 48:] = np.inf
    batch = Batch.of(ints(0), ints(0), ints(120))
    ops = Cpu(1)
    clean, found = (
        ops.attend(rows, ops.cache(1, 128, rules), ops.batch(batch, 1, 128), rules)
        for rows in (qkv, dirty)
    )
    assert same_bits(found[89:], clean[89:])
    assert np.isnan(found[:88]).all()


def test_extreme_scores_and_sinks(path: str) -> None:
    """A sink far above all scores takes everything, one far below nothing; nothing hangs."""
    rules = Attention(4, 1, 16, 16, 1.0)
    random = np.random.default_rng(2)
    qkv = drawn(random, 80, rules, "f32")
    batch = Batch.of(ints(0), ints(0), ints(80))

    def run(rows: F32, sinks: F32 | None) -> F32:
        ops = Cpu(1)
        cache = ops.cache(1, 128, rules)
        return ops.attend(rows, cache, ops.batch(batch, 1, 128), rules, sinks)

    plain = run(qkv, None)
    found = run(qkv, np.array([1e4, -1e4, -np.inf, np.nan], np.float32))
    assert (found[:, :16] == 0).all()
    np.testing.assert_allclose(found[:, 16:48], plain[:, 16:48], rtol=2e-6, atol=1e-7)
    assert np.isnan(found[:, 48:]).all()
    huge = qkv * np.float32(1e4)
    assert np.isfinite(run(huge, None)).all()
    tiny = qkv * np.float32(1e-40)
    np.testing.assert_allclose(run(tiny, None), 0, atol=1e-4)


def test_the_cache_rounds_to_half_precision_as_numpy_does(path: str) -> None:
    """Every 997th float as the only value of a sequence comes back rounded to the nearest half."""
    rules = Attention(1, 1, 16, 16, 1.0)
    ops = Cpu(1)
    bits = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32)[: 16 * 200_000]
    values = bits.view(np.float32)[: len(bits) // 16 * 16].reshape(-1, 16)
    values = values[(np.abs(values) <= 65504).all(-1)]
    cache = ops.cache(1, 1, rules)
    batch = ops.batch(Batch.of(ints(0), ints(0), ints(1)), 1, 1)
    qkv = np.zeros((1, 48), np.float32)
    for row in values[:: max(1, len(values) // 20_000)]:
        qkv[0, 32:] = row
        found = ops.attend(qkv, cache, batch, rules)[0]
        assert (found == row.astype(np.float16).astype(np.float32)).all()


@pytest.mark.parametrize("shared", [False, True])
def test_attend_ignores_what_an_earlier_sequence_left(path: str, shared: bool) -> None:
    """A slot that held NaNs and infinities at later positions serves a new sequence cleanly."""
    rules = Attention(1, 1, 16, 16, 0.25, shared_values=shared)
    ops = Cpu(1)
    clean, used = ops.cache(1, 64, rules), ops.cache(1, 64, rules)
    dirt = np.full((40, rules.width), np.nan, np.float32)
    dirt[::2] = np.inf
    ops.attend(dirt, used, ops.batch(Batch.of(ints(0), ints(0), ints(40)), 1, 64), rules)
    qkv = spread(np.random.default_rng(1), 5, rules.width)
    batch = ops.batch(Batch.of(ints(0), ints(0), ints(5)), 1, 64)
    found, expected = (ops.attend(qkv, cache, batch, rules) for cache in (used, clean))
    assert same_bits(found, expected) and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("head_dim", "rotated"), [(2, 2), (10, 10), (32, 32), (34, 34), (64, 16), (20, 2), (80, 70)]
)
def test_rope(path: str, head_dim: int, rotated: int) -> None:
    random = np.random.default_rng(head_dim)
    rules = Attention(3, 1, head_dim, 7, 1.0)
    ops, half = Cpu(1), rotated // 2
    table = spread(random, 20, 2, half)
    batch = Batch.of(ints(2, 0), ints(7, 0), ints(3, 2))
    qkv = Guarded((5, rules.width), spread(random, 5, rules.width))
    before = qkv.array.astype(np.float64)
    assert ops.rope(qkv.array, table, ops.batch(batch, 4, 20), rules) is qkv.array
    qkv.check()
    assert (qkv.array[:, 4 * head_dim :] == before[:, 4 * head_dim :]).all(), "values stay"
    old, new = (x[:, : 4 * head_dim].reshape(5, 4, head_dim) for x in (before, qkv.array))
    assert (new[..., rotated:] == old[..., rotated:]).all(), "the rest of a head stays"
    cos = table[batch.positions, None, 0].astype(np.float64)
    sin = table[batch.positions, None, 1].astype(np.float64)
    a, b = old[..., :half], old[..., half:rotated]
    size = np.abs(a * cos) + np.abs(b * sin)
    assert (np.abs(new[..., :half] - (a * cos - b * sin)) <= size * 2.0**-22).all()
    size = np.abs(b * cos) + np.abs(a * sin)
    assert (np.abs(new[..., half:rotated] - (b * cos + a * sin)) <= size * 2.0**-22).all()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("head_dim", [5, 16, 70])
def test_head_norm(path: str, head_dim: int, whole: bool) -> None:
    random = np.random.default_rng(head_dim)
    rules = Attention(4, 2, head_dim, 3, 1.0)
    ops = Cpu(1)
    qkv = Guarded((5, rules.width), spread(random, 5, rules.width))
    before = qkv.array.astype(np.float64)
    q = spread(random, (4 if whole else 1) * head_dim)
    k = spread(random, (2 if whole else 1) * head_dim)
    assert ops.head_norm(qkv.array, q, k, rules, 1e-5) is qkv.array
    qkv.check()
    end = 6 * head_dim
    assert (qkv.array[:, end:] == before[:, end:]).all(), "values stay"
    for first, last, w in ((0, 4 * head_dim, q), (4 * head_dim, end, k)):
        rows = before[:, first:last].reshape(5, -1, len(w))
        exact = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5) * w
        found = qkv.array[:, first:last].reshape(exact.shape)
        np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("head_dim", [5, 16, 70])
def test_gated_norm(path: str, head_dim: int) -> None:
    random = np.random.default_rng(head_dim)
    x = Guarded((5, 3 * head_dim), spread(random, 5, 3 * head_dim))
    gate = (5 * random.standard_normal(x.array.shape)).astype(np.float32)
    w = spread(random, head_dim)
    rows = x.array.astype(np.float64).reshape(5, 3, head_dim)
    normed = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5) * w
    exact = normed.reshape(5, -1) * (gate / (1 + np.exp(-gate.astype(np.float64))))
    assert Cpu(1).gated_norm(x.array, gate, w, 1e-5) is x.array
    x.check()
    np.testing.assert_allclose(x.array, exact, rtol=2e-6)


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_linear_heads(path: str, kind: str) -> None:
    for t, n_heads, n, k in ((1, 1, 1, 1), (3, 5, 7, 17), (2, 3, 33, 64)):
        random = np.random.default_rng([t, n, k])
        values = spread(random, n_heads * n, k).view(np.uint32) & 0xFFFF0000  # exact in bf16
        wide = values.view(np.float32)
        stored = wide if kind == "f32" else (values >> 16).astype(np.uint16)
        ops = Cpu(1)
        w = ops.head_weight(Tensor("w", kind, wide.shape, stored), n_heads)
        x = spread(random, t, n_heads * k)
        found = ops.linear_heads(x, w).reshape(t, n_heads, n)
        parts = x.reshape(t, n_heads, k).astype(np.float64), wide.reshape(n_heads, n, k)
        exact = np.einsum("thk,hnk->thn", *parts)
        size = np.einsum("thk,hnk->thn", *map(np.abs, parts))
        assert (np.abs(found - exact) <= size * k * 2.0**-24).all()
