"""Every kernel on every path against float64, on odd shapes, with guards around its buffers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.backends.reference import dense
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
    steps = np.abs(x).reshape(9, -1, size).max(-1).repeat(size, axis=1) / 120
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


def test_swiglu_clamped_is_that_of_gpt_oss(path: str) -> None:
    """Against its definition: gate at most 7, up within 7 of zero."""
    random = np.random.default_rng(1)
    ops = Cpu(1)
    eye = np.eye(40, dtype=np.float32)
    gate_up = ops.weight(*(Tensor("w", "f32", eye.shape, eye) for _ in range(2)))
    down = ops.weight(Tensor("w", "f32", eye.shape, eye))
    x = (6 * random.standard_normal((3, 40))).astype(np.float32)
    shift = np.concatenate([np.zeros(40), 6 * random.standard_normal(40)]).astype(np.float32)
    found = ops.gated_mlp(x, gate_up, down, "swiglu_clamped", None, shift)
    gate = np.minimum(x.astype(np.float64), 7)
    up = np.clip((x + shift[40:]).astype(np.float64), -7, 7)
    exact = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    np.testing.assert_allclose(found, exact, rtol=2e-6, atol=1e-6)


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
