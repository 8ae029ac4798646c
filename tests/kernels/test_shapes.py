"""Every kernel on every path against float64, on drawn shapes and with numbers of every kind.

`test_values.py` has the edges that are known to matter; here hypothesis looks for the others.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.backends.reference import dense
from gangline.engine.operations import Attention, Batch
from tests.kernels.arrays import DTYPES, F32, Guarded, error_bound, matrix, seen_by, spread

seeds = st.integers(0, 2**32 - 1)
threads = st.integers(1, 3)
# The fixture `path` is the same for all inputs of a test, as it should be.
some = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@given(
    seed=seeds,
    threads=threads,
    t=st.integers(1, 40),
    rows=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    k=st.integers(1, 7),
    bias=st.booleans(),
    add=st.booleans(),
)
@pytest.mark.parametrize("kind", DTYPES)
@some
def test_linear(
    path: str, kind: str, seed: int, threads: int, t: int, rows: list[int], k: int, bias: bool,
    add: bool,
) -> None:  # fmt: skip
    """Any number of parts, rows and columns (groups of 32, 64 and 128, or single columns)."""
    random = np.random.default_rng(seed)
    k = 32 * k if kind in ("q4", "q8") else int(random.integers(1, 8 * k + 1))
    ops = Cpu(threads)
    tensors = [matrix(random, kind, n, k) for n in rows]
    x = Guarded((t, k), spread(random, t, k))
    b = spread(random, sum(rows)) if bias else None
    y = Guarded((t, sum(rows)), spread(random, t, sum(rows)) if add else np.nan)
    before = y.array.astype(np.float64) if add else np.zeros(y.array.shape)
    _kernels.linear(x.array, ops.weight(*tensors), b, y.array, add)
    y.check()
    products = [seen_by(w, x.array) @ dense(w).astype(np.float64).T for w in tensors]
    exact = np.concatenate(products, axis=1)
    bound = np.concatenate([error_bound(x.array, w) for w in tensors], axis=1)
    if b is not None:
        exact += b
        bound += (np.abs(exact) + np.abs(b)) * 2.0**-23
    bound += (np.abs(exact) + np.abs(before)) * 2.0**-23
    assert (np.abs(y.array - (exact + before)) <= bound).all()


@given(seed=seeds, threads=threads, t=st.integers(1, 50), d=st.integers(1, 300))
@some
def test_rms_norm(path: str, seed: int, threads: int, t: int, d: int) -> None:
    random = np.random.default_rng(seed)
    Cpu(threads)
    x, w, y = spread(random, t, d), spread(random, d), Guarded((t, d))
    _kernels.rms_norm(x, w, 1e-6, y.array)
    y.check()
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(y.array, exact, rtol=1e-6)


def attention(qkv: F32, n_heads: int, n_kv_heads: int, head_dim: int, scale: float) -> np.ndarray:
    """Causal attention of one whole sequence, in float64: (T, n_heads Dh)."""
    heads = qkv.reshape(len(qkv), -1, head_dim).astype(np.float64).transpose(1, 0, 2)
    keys, values = heads[n_heads : n_heads + n_kv_heads], heads[n_heads + n_kv_heads :]
    shared = n_heads // n_kv_heads
    scores = heads[:n_heads] @ keys.repeat(shared, axis=0).transpose(0, 2, 1) * scale
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ values.repeat(shared, axis=0)).transpose(1, 0, 2).reshape(len(qkv), -1)


@given(
    seed=seeds,
    threads=threads,
    counts=st.lists(st.integers(1, 140), min_size=1, max_size=4),
    n_kv_heads=st.integers(1, 3),
    shared=st.integers(1, 9),
    head_dim=st.integers(1, 40),
    data=st.data(),
)
@some
def test_attend_of_lanes_of_unlike_length(
    path: str, seed: int, threads: int, counts: list[int], n_kv_heads: int, shared: int,
    head_dim: int, data: st.DataObject,
) -> None:  # fmt: skip
    """Lanes in any slots; each is cut in two steps at a place of its own."""
    random = np.random.default_rng(seed)
    ops, n_heads = Cpu(threads), n_kv_heads * shared
    width = (n_heads + 2 * n_kv_heads) * head_dim
    slots = data.draw(st.permutations(range(4)))[: len(counts)]
    cuts = [data.draw(st.integers(0, count)) for count in counts]
    whole = [random.standard_normal((count, width)).astype(np.float32) for count in counts]
    scale = head_dim**-0.5
    rules = Attention(n_heads, n_kv_heads, head_dim, head_dim, scale)
    cache = ops.cache(4, 140, rules, "f32")
    found: list[list[F32]] = [[] for _ in counts]
    for begin, end in ((ints(*[0] * len(cuts)), ints(*cuts)), (ints(*cuts), ints(*counts))):
        used = [lane for lane in range(len(counts)) if end[lane] > begin[lane]]
        if not used:
            continue
        qkv = np.concatenate([whole[lane][begin[lane] : end[lane]] for lane in used])
        batch = Batch.of(ints(*(slots[lane] for lane in used)), begin[used], (end - begin)[used])
        out = Guarded((len(qkv), n_heads * head_dim))
        prepared = ops.batch(batch, 4, 140)
        _kernels.attend(qkv, cache, prepared, n_heads, scale, 0, 0.0, None, out.array)
        out.check()
        for lane, rows in zip(used, np.split(out.array, np.cumsum(batch.counts)[:-1]), strict=True):
            found[lane].append(rows.copy())
    for lane, rows in enumerate(found):
        exact = attention(whole[lane], n_heads, n_kv_heads, head_dim, scale)
        np.testing.assert_allclose(np.concatenate(rows), exact, atol=3e-6, rtol=1e-4)


def test_special_numbers_in_rms_norm(path: str) -> None:
    """A NaN or an infinity spoils its own row only; denormals are squared to zero, eps remains."""
    x = spread(np.random.default_rng(0), 5, 40)
    ones = np.ones(40, np.float32)
    clean, y = np.empty_like(x), np.empty_like(x)
    _kernels.rms_norm(x, ones, 1e-5, clean)
    x[1, 7], x[2, 39], x[3] = np.nan, np.inf, np.float32(3e-40)
    _kernels.rms_norm(x, ones, 1e-5, y)
    assert np.isnan(y[1]).all()
    assert np.isnan(y[2, 39]) and (y[2, :39] == 0).all()
    np.testing.assert_allclose(y[3], 3e-40 / np.sqrt(1e-5), rtol=1e-3)
    assert (y[[0, 4]] == clean[[0, 4]]).all()


def test_special_numbers_in_attend(path: str) -> None:
    """What is not a number stays in the lane and the heads that see it, from its position on."""
    random = np.random.default_rng(1)
    ops, dim, n_heads, n_kv_heads = Cpu(1), 24, 4, 2
    qkv = random.standard_normal((60, (n_heads + 2 * n_kv_heads) * dim)).astype(np.float32)
    batch = ops.batch(Batch.of(ints(0, 1), ints(0, 0), ints(30, 30)), 2, 64)

    def run(rows: F32) -> F32:
        rules = Attention(n_heads, n_kv_heads, dim, dim, 0.2)
        cache = ops.cache(2, 64, rules, "f32")
        return ops.attend(rows, cache, batch, rules).reshape(60, n_heads, dim)

    clean = run(qkv)
    for number in (np.nan, np.inf):
        spoiled = qkv.copy()
        spoiled[5, (n_heads + n_kv_heads) * dim + 3] = number  # a value of the first kv head
        out = run(spoiled)
        hit = np.zeros(out.shape, bool)
        hit[5:30, :2, 3] = True
        assert not np.isfinite(out[hit]).any()
        assert (out[~hit] == clean[~hit]).all()
    spoiled = qkv.copy()
    spoiled[5, n_heads * dim] = np.nan  # a key of the first kv head
    out = run(spoiled)
    hit = np.zeros(out.shape, bool)
    hit[5:30, :2] = True
    assert np.isnan(out[hit]).all() and (out[~hit] == clean[~hit]).all()
    tiny = qkv.copy()
    tiny[:, (n_heads + n_kv_heads) * dim :] = np.float32(1e-42)
    np.testing.assert_allclose(run(tiny), np.float32(1e-42), rtol=2e-3)


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh", "relu2"])
def test_special_numbers_in_gated_mlp(path: str, act: str) -> None:
    """Through identity matrices of one row each: NaN stays NaN, no number becomes one."""
    ops = Cpu(1)
    x = np.array([[np.nan], [3e38], [-3e38], [1e-42], [-1e-42], [0.0]], np.float32)
    ones, out = np.ones((1, 1), np.float32), np.zeros((6, 1), np.float32)
    gate_up = ops.weight(Tensor("g", "f32", (1, 1), ones), Tensor("u", "f32", (1, 1), 0 * ones))
    down = ops.weight(Tensor("d", "f32", (1, 1), ones))
    ops.gated_mlp(x, gate_up, down, act, out, ints(0, 1).astype(np.float32))
    assert np.isnan(out[0]).all()
    assert out[1] == (np.inf if act == "relu2" else np.float32(3e38))
    assert (np.abs(out[2:]) <= 1e-42).all()
