"""What is done to each number by itself, on every path against float64."""

from __future__ import annotations

import numpy as np
import pytest

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from tests.kernels.arrays import Guarded, same_bits, spread

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3e38, -3e38, 90.0, -90.0]


@pytest.mark.parametrize("d", [1, 15, 16, 17, 64, 257])
def test_layer_norm(path: str, d: int) -> None:
    random = np.random.default_rng(d)
    x, w = spread(random, 5, d) + np.float32(3), spread(random, d)
    y = Cpu(1).layer_norm(x, w, 1e-5)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [1, 16, 131])
def test_add_is_one_fused_multiply_add(path: str, d: int) -> None:
    random = np.random.default_rng(d)
    x, residual = spread(random, 3, d), Guarded((3, d), spread(random, 3, d))
    scale = np.float32(0.22)
    exact = residual.array.astype(np.float64) + np.float64(scale) * x  # products are exact
    assert Cpu(1).add(residual.array, x, float(scale)) is residual.array
    residual.check()
    assert (residual.array == exact.astype(np.float32)).all()


@pytest.mark.parametrize("one_gate", [False, True])
def test_sigmoid_gate(path: str, one_gate: bool) -> None:
    random = np.random.default_rng(7)
    x = Guarded((4, 37), spread(random, 4, 37))
    gate = (8 * random.standard_normal((4, 1 if one_gate else 37))).astype(np.float32)
    exact = x.array / (1 + np.exp(-gate.astype(np.float64)))
    assert Cpu(1).sigmoid_gate(x.array, gate) is x.array
    x.check()
    np.testing.assert_allclose(x.array, exact, rtol=5e-7)


@pytest.mark.parametrize("cap", [0.5, 30.0, 50.0])
def test_soft_cap(path: str, cap: float) -> None:
    random = np.random.default_rng(7)
    numbers = np.concatenate([np.linspace(-9, 9, 4001) * cap, spread(random, 500)])
    x = Guarded((1, len(numbers)), numbers.astype(np.float32))
    exact = cap * np.tanh(x.array.astype(np.float64) / cap)
    assert Cpu(1).soft_cap(x.array, cap) is x.array
    x.check()
    np.testing.assert_allclose(x.array, exact, rtol=4e-7)


def test_special_numbers(path: str) -> None:
    ops = Cpu(1)
    x = np.array([SPECIAL], np.float32)
    with np.errstate(all="ignore"):  # infinities and NaN are what is compared
        gated = ops.sigmoid_gate(np.ones_like(x), x)
        np.testing.assert_allclose(gated, 1 / (1 + np.exp(-x)), rtol=1e-6, atol=1e-38)
        np.testing.assert_allclose(ops.soft_cap(x.copy(), 2.0), 2 * np.tanh(x / 2), rtol=1e-6)
        assert same_bits(ops.add(x.copy(), x, 0.5), (x + 0.5 * x).astype(np.float32))


def test_split_and_join_are_inverse() -> None:
    random = np.random.default_rng(1)
    ops = Cpu(1)
    x = spread(random, 3, 4 * (5 + 1 + 2))
    parts = ops.split(x, (5, 1, 2), 4)
    assert [part.shape for part in parts] == [(3, 20), (3, 4), (3, 8)]
    assert all(part.flags.c_contiguous and part.flags.writeable for part in parts)
    assert (parts[0].reshape(3, 4, 5) == x.reshape(3, 4, 8)[..., :5]).all()
    assert (parts[2].reshape(3, 4, 2) == x.reshape(3, 4, 8)[..., 6:]).all()
    assert same_bits(ops.join(parts, 4), x)


def test_embed_scales_its_rows(path: str) -> None:
    ops = Cpu(1)
    values = spread(np.random.default_rng(1), 5, 33)
    table = ops.table(Tensor("w", "f32", values.shape, values))
    found = ops.embed(table, np.array([4, 0], np.int32), 7.25)
    assert (found == values[[4, 0]] * np.float32(7.25)).all()
