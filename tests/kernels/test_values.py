"""Every kernel on every path against float64, on odd shapes, with guards around its buffers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.shape import CacheDtype
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.backends.reference import dense
from gangline.engine.operations import Batch
from tests.kernels.arrays import DTYPES, Guarded, error_bound, matrix, seen_by, spread

ODD_SHAPES = [(1, 1, 1), (1, 3, 17), (2, 5, 15), (3, 4, 16), (5, 9, 33), (4, 8, 64), (67, 2, 31)]
GROUPED_SHAPES = [
    (1, 1, 32), (1, 5, 64), (3, 4, 96), (5, 33, 128), (2, 16, 320), (66, 2, 32), (15, 50, 64),
]  # fmt: skip


def shapes_of(kind: str) -> list[tuple[int, int, int]]:
    return GROUPED_SHAPES if kind in ("q4", "q8") else ODD_SHAPES


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
def test_linear(path: str, kind: str, bias: bool) -> None:
    ops = Cpu(1)
    for t, n, k in shapes_of(kind):
        random = np.random.default_rng([t, n, k])
        tensor = matrix(random, kind, n, k)
        x = Guarded((t, k), spread(random, t, k))
        b = spread(random, n) if bias else None
        y = Guarded((t, n), np.nan)
        _kernels.linear(x.array, ops.weight(tensor), b, y.array, False)
        y.check()
        exact = seen_by(tensor, x.array) @ dense(tensor).astype(np.float64).T
        bound = error_bound(x.array, tensor)
        if b is not None:
            exact += b
            bound += (np.abs(exact) + np.abs(b)) * 2.0**-23
        assert (np.abs(y.array - exact) <= bound).all(), (t, n, k)


@pytest.mark.parametrize("kind", ["q4", "q8"])
def test_rounding_of_activations_costs_at_most_half_a_step(path: str, kind: str) -> None:
    """Products with quantized weights against exact ones: the bound that the docs state."""
    ops = Cpu(1)
    random = np.random.default_rng(5)
    tensor = matrix(random, kind, 33, 256)
    assert tensor.quantized is not None
    x, w = spread(random, 9, 256), dense(tensor).astype(np.float64)
    size = tensor.quantized.group_size
    steps = np.abs(x).reshape(9, -1, size).max(-1).repeat(size, axis=1) / 127
    bound = steps / 2 @ np.abs(w).T * 1.001 + error_bound(x, tensor)
    assert (np.abs(ops.linear(x, ops.weight(tensor)) - x.astype(np.float64) @ w.T) <= bound).all()


@pytest.mark.parametrize("kind", DTYPES)
def test_linear_of_parts_adds_to_what_is_there(path: str, kind: str) -> None:
    ops = Cpu(1)
    random = np.random.default_rng(3)
    parts = [matrix(random, kind, n, 64) for n in (5, 1, 6)]
    x = spread(random, 3, 64)
    residual = Guarded((3, 12), spread(random, 3, 12))
    before = residual.array.copy()
    ops.linear_add(x, ops.weight(*parts), residual.array)
    residual.check()
    separate = np.concatenate([ops.linear(x, ops.weight(part)) for part in parts], axis=1)
    assert (residual.array == before + separate).all()


@pytest.mark.parametrize("kind", DTYPES)
def test_embed_gives_the_rows_exactly(path: str, kind: str) -> None:
    ops = Cpu(1)
    random = np.random.default_rng(4)
    for k in (32, 96) if kind in ("q4", "q8") else (1, 17, 64):
        tensor = matrix(random, kind, 7, k)
        ids = np.array([6, 0, 3, 3], np.int32)
        assert (ops.embed(ops.table(tensor), ids) == dense(tensor)[ids]).all()


@pytest.mark.parametrize("d", [1, 15, 16, 17, 64, 257])
def test_rms_norm(path: str, d: int) -> None:
    random = np.random.default_rng(d)
    x, w = spread(random, 5, d), spread(random, d)
    y = Guarded((5, d))
    _kernels.rms_norm(x, w, 1e-5, y.array)
    y.check()
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * w
    np.testing.assert_allclose(y.array, exact, rtol=1e-6)


@pytest.mark.parametrize("head_dim", [2, 10, 32, 34, 64])
def test_rope(path: str, head_dim: int) -> None:
    random = np.random.default_rng(head_dim)
    ops, half, n_heads, n_kv_heads = Cpu(1), head_dim // 2, 3, 1
    table = spread(random, 20, 2, half)
    ints = [np.array(v, np.int32) for v in ((2, 0), (7, 0), (3, 2))]
    batch = Batch.of(*ints)
    qkv = Guarded((5, 5 * head_dim), spread(random, 5, 5 * head_dim))
    before = qkv.array.reshape(5, 5, 2, half).astype(np.float64)
    ops.rope(qkv.array, table, ops.batch(batch, 4, 20), n_heads, n_kv_heads)
    qkv.check()
    after = qkv.array.reshape(5, 5, 2, half)
    cos = table[batch.positions, None, 0].astype(np.float64)
    sin = table[batch.positions, None, 1].astype(np.float64)
    a, b = before[:, :4, 0], before[:, :4, 1]
    size = np.abs(a * cos) + np.abs(b * sin)
    assert (np.abs(after[:, :4, 0] - (a * cos - b * sin)) <= size * 2.0**-22).all()
    size = np.abs(b * cos) + np.abs(a * sin)
    assert (np.abs(after[:, :4, 1] - (b * cos + a * sin)) <= size * 2.0**-22).all()
    assert (after[:, 4] == before[:, 4]).all(), "values are not rotated"


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim"), [(1, 1, 2), (4, 2, 10), (18, 2, 32), (14, 2, 80)]
)
def test_attend(path: str, n_heads: int, n_kv_heads: int, head_dim: int, dtype: CacheDtype) -> None:
    """Two lanes, one of them over several blocks of the cache, against a plain softmax."""
    random = np.random.default_rng(head_dim)
    ops = Cpu(1)
    width, count = (n_heads + 2 * n_kv_heads) * head_dim, 150
    cache = ops.cache(3, 160, n_kv_heads, head_dim, dtype)
    qkv = random.standard_normal((count + 2, width)).astype(np.float32)
    if dtype == "f16":  # keys and values that half precision holds exactly, subnormals among them
        stored = qkv[:, n_heads * head_dim :]
        stored *= np.float32(2.0) ** random.integers(-14, 1, stored.shape)
        stored[...] = stored.astype(np.float16)
    ints = [np.array(v, np.int32) for v in ((2, 0), (0, 0), (count, 2))]
    out = Guarded((count + 2, n_heads * head_dim))
    scale = head_dim**-0.5
    _kernels.attend(qkv, cache, ops.batch(Batch.of(*ints), 3, 160), n_heads, scale, out.array)
    out.check()
    for rows in (slice(0, count), slice(count, count + 2)):
        heads = qkv[rows].reshape(-1, n_heads + 2 * n_kv_heads, head_dim).astype(np.float64)
        for head in range(n_heads):
            kv_head = n_heads + head * n_kv_heads // n_heads
            scores = heads[:, head] @ heads[:, kv_head].T * scale
            scores[np.triu_indices(len(scores), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            exact = weights @ heads[:, kv_head + n_kv_heads]
            found = out.array[rows, head * head_dim : (head + 1) * head_dim]
            np.testing.assert_allclose(found, exact, atol=2e-6, rtol=1e-4)


def test_the_cache_rounds_to_half_precision_as_numpy_does(path: str) -> None:
    """Every 997th float as the only value of a sequence comes back rounded to the nearest half."""
    ops = Cpu(1)
    bits = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32)[: 16 * 200_000]
    values = bits.view(np.float32)[: len(bits) // 16 * 16].reshape(-1, 16)
    values = values[(np.abs(values) <= 65504).all(-1)]
    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    cache = ops.cache(1, 1, 1, 16)
    batch = ops.batch(Batch.of(zero, zero, one), 1, 1)
    qkv = np.zeros((1, 48), np.float32)
    for row in values[:: max(1, len(values) // 20_000)]:
        qkv[0, 32:] = row
        found = ops.attend(qkv, cache, batch, 1, 1.0)[0]
        assert (found == row.astype(np.float16).astype(np.float32)).all()


def test_attend_ignores_what_an_earlier_sequence_left(path: str) -> None:
    """A slot that held NaNs and infinities at later positions serves a new sequence cleanly."""
    ops = Cpu(1)
    random = np.random.default_rng(1)
    zero, rows = np.zeros(1, np.int32), np.array([40], np.int32)
    clean, used = ops.cache(1, 64, 1, 16), ops.cache(1, 64, 1, 16)
    dirt = np.full((40, 48), np.nan, np.float32)
    dirt[::2] = np.inf
    ops.attend(dirt, used, ops.batch(Batch.of(zero, zero, rows), 1, 64), 1, 0.25)
    qkv = spread(random, 5, 48)
    batch = ops.batch(Batch.of(zero, zero, np.array([5], np.int32)), 1, 64)
    assert (ops.attend(qkv, used, batch, 1, 0.25) == ops.attend(qkv, clean, batch, 1, 0.25)).all()


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


ACTIVATIONS = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * normal_cdf(x),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "relu2": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gated_mlp(path: str, act: str) -> None:
    """With identity matrices the activation itself is seen, from tiny to large numbers."""
    n = 301
    ops = Cpu(1)
    x = np.concatenate(
        [np.linspace(-30, 30, n - 8), [0, -0.0, 1e-30, -1e-30, 80, -80, 1e-3, -1e-3]]
    )
    x = x.astype(np.float32)[None]
    ones = np.zeros((n, n), np.float32)
    identity = np.eye(n, dtype=np.float32)
    gate_up = ops.weight(Tensor("g", "f32", (n, n), identity), Tensor("u", "f32", (n, n), ones))
    down = ops.weight(Tensor("d", "f32", (n, n), identity))
    residual = Guarded((1, n), 0.0)
    bias = np.concatenate([np.zeros(n), np.ones(n)]).astype(np.float32)  # up is 1 by its bias
    ops.gated_mlp(x, gate_up, down, act, residual.array, bias)
    residual.check()
    exact = [ACTIVATIONS[act](float(v)) for v in x[0]]
    np.testing.assert_allclose(residual.array[0], exact, rtol=3e-6, atol=5e-7)


@pytest.mark.parametrize("kind", DTYPES)
def test_special_numbers_reach_the_result(path: str, kind: str) -> None:
    """NaN, infinities and denormals in x do what IEEE arithmetic says, in their own row only."""
    random = np.random.default_rng(5)
    tensor = matrix(random, kind, 6, 64)
    x = spread(random, 5, 64)
    clean = Cpu(1).linear(x, Cpu(1).weight(tensor))
    x[1, 3], x[2, 60], x[3] = np.nan, np.inf, np.float32(1e-42)
    y = Cpu(1).linear(x, Cpu(1).weight(tensor))
    assert np.isnan(y[1]).all()
    assert (y[[0, 4]] == clean[[0, 4]]).all()
    if tensor.quantized is not None:  # no code stands for infinity, and tiny groups are zero
        assert np.isnan(y[2]).all() and (y[3] == 0).all()
        return
    column = dense(tensor)[:, 60]
    assert (y[2, column > 0] == np.inf).all() and (y[2, column < 0] == -np.inf).all()
    assert np.isnan(y[2, column == 0]).all()
    tiny = x[3].astype(np.float64) @ dense(tensor).astype(np.float64).T
    assert (np.abs(y[3] - tiny) <= 64 * 2.0**-149 + 1e-5 * np.abs(tiny)).all()
    assert (tiny != 0).any() and (y[3] != 0).any(), "denormals must not be flushed"


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_every_half_precision_number_converts_exactly(path: str, kind: str) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    stored = bits.view(np.float16) if kind == "f16" else bits
    tensor = Tensor("w", kind, (256, 256), stored.reshape(256, 256))
    ops = Cpu(1)
    found = ops.embed(ops.table(tensor), np.arange(256, dtype=np.int32)).reshape(-1)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    if kind == "f16":
        expected = stored.astype(np.float32)
    numbers = ~np.isnan(expected)
    assert np.isnan(found[~numbers]).all()
    assert (found[numbers].view(np.uint32) == expected[numbers].view(np.uint32)).all()


@pytest.mark.parametrize("kind", ["q4", "q8"])
def test_a_tensor_that_is_a_weight_is_embedded_from_it(kind: str) -> None:
    """As with a tied output: the very rows, from a copy that outlives tensor and weight."""
    ops = Cpu(1)
    random = np.random.default_rng(4)
    ids = np.array([34, 0, 3, 16, 15], np.int32)
    for k in (32, 192, 256):  # groups of 32, 64 and 128
        tensor, other = matrix(random, kind, 35, k), matrix(random, kind, 35, k)
        expected = dense(tensor)[ids], dense(other)[ids]
        weight = ops.weight(tensor)
        tables = ops.table(tensor), ops.table(other)
        del weight
        tensor.data[...] = 0
        for table, rows in zip(tables, expected, strict=True):
            assert (ops.embed(table, ids) == rows).all()
