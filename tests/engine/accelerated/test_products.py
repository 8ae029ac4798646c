"""Products, norms and what is done to each number, each against a formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gangline.engine.operations import Attention, Operations
from tests.engine import formulas
from tests.engine.accelerated.operands import (
    BF16_BOUND,
    F32_BOUND,
    affine,
    agree,
    floats,
    normal,
    values_of,
)
from tests.engine.steps import ints


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (33, 96), (64, 130)])
def test_dense_products(ops: Operations, kind: str, rows: int, columns: int) -> None:
    parts = [floats(normal(n, columns), kind) for n in (rows, 5)]
    w = np.concatenate([values_of(part) for part in parts])
    weight, x, bias = ops.weight(*parts), normal(3, columns), normal(rows + 5)
    bound = {"f32": F32_BOUND, "f16": 2e-3, "bf16": 1.5e-2}[kind]  # one rounding of x and of y
    y = ops.linear(ops.from_numpy(x), weight, ops.vector(floats(bias)))
    agree(ops.to_numpy(y), x @ w.T + bias, bound)
    residual = normal(3, rows + 5)
    y = ops.linear_add(ops.from_numpy(x), weight, ops.from_numpy(residual))
    agree(ops.to_numpy(y), x @ w.T + residual, bound)


@pytest.mark.parametrize("group", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_quantized_products(ops: Operations, bits: int, group: int) -> None:
    """64 rows suit PyTorch's 4-bit kernel, 7 rows nobody's; MLX has no kernel for groups of 16."""
    rounded = 2e-3 if ops.name == "mlx" and group == 16 else F32_BOUND
    bound = BF16_BOUND if ops.name == "torch" else rounded
    for rows in (64, 7):
        tensor, w = affine(rows, 256, bits, group)
        x = normal(3, 256)
        y = ops.linear(ops.from_numpy(x), ops.weight(tensor))
        agree(ops.to_numpy(y), x @ w.T, bound)
        chosen = ints(3, 0, 6, 3)
        agree(ops.to_numpy(ops.embed(ops.table(tensor), chosen, 3.0)), 3.0 * w[chosen], rounded)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_scales_of_half_precision(ops: Operations, kind: str) -> None:
    """MLX computes with bf16 where the scales are; its kernel for CPUs even sums in bf16."""
    bound = {"torch": BF16_BOUND, "mlx": 0.1 if kind == "bf16" else F32_BOUND}[ops.name]
    tensor, w = affine(48, 128, 4, 64, kind)
    x = normal(2, 128)
    agree(ops.to_numpy(ops.linear(ops.from_numpy(x), ops.weight(tensor))), x @ w.T, bound)
    agree(ops.to_numpy(ops.embed(ops.table(tensor), ints(7, 1))), w[[7, 1]])


def test_parts_of_different_forms(ops: Operations) -> None:
    """Queries at 4 bits, keys at 6, values dense, as mixed conversions have them."""
    first, second = affine(32, 128, 4, 64), affine(16, 128, 4, 64)
    third, fourth = affine(16, 128, 6, 64), floats(normal(8, 128), "f16")
    weight = ops.weight(first[0], second[0], third[0], fourth)
    w = np.concatenate([first[1], second[1], third[1], values_of(fourth)])
    x = normal(3, 128)
    bound = BF16_BOUND if ops.name == "torch" else 2e-3
    agree(ops.to_numpy(ops.linear(ops.from_numpy(x), weight)), x @ w.T, bound)


def test_products_by_head(ops: Operations) -> None:
    w, x = normal(3 * 10, 8), normal(4, 3 * 8)
    expected = np.einsum("thk,hnk->thn", x.reshape(4, 3, 8), w.reshape(3, 10, 8)).reshape(4, 30)
    y = ops.linear_heads(ops.from_numpy(x), ops.head_weight(floats(w), 3))
    agree(ops.to_numpy(y), expected)


def test_norms(ops: Operations) -> None:
    x, w = normal(5, 40, scale=3), normal(40)
    weight = ops.vector(floats(w))
    found = ops.to_numpy(ops.rms_norm(ops.from_numpy(x), weight, 1e-5))
    agree(found, formulas.rms_norm(x.astype(np.float64), w, 1e-5))
    centred = x - x.mean(-1, keepdims=True, dtype=np.float64)
    found = ops.to_numpy(ops.layer_norm(ops.from_numpy(x), weight, 1e-5))
    agree(found, formulas.rms_norm(centred, w, 1e-5))


def test_norms_of_heads(ops: Operations) -> None:
    rules = Attention(4, 2, 10, 7, 1.0)
    qkv = normal(3, rules.width)
    ends = [40, 60]
    for q_size, k_size in ((10, 10), (40, 20)):
        q, k = normal(q_size), normal(k_size)
        queries, keys, values = np.split(qkv.astype(np.float64), ends, axis=1)
        normed = [
            formulas.rms_norm(part.reshape(3, -1, len(w)), w, 1e-6).reshape(3, -1)
            for part, w in ((queries, q), (keys, k))
        ]
        vectors = ops.vector(floats(q)), ops.vector(floats(k))
        found = ops.head_norm(ops.from_numpy(qkv), *vectors, rules, 1e-6)
        agree(ops.to_numpy(found), np.concatenate([*normed, values], axis=1))
    x, gate, w = normal(3, 40), normal(3, 40), normal(10)
    found = ops.gated_norm(ops.from_numpy(x), ops.from_numpy(gate), ops.vector(floats(w)), 1e-6)
    normed = formulas.rms_norm(x.reshape(3, 4, 10).astype(np.float64), w, 1e-6).reshape(3, 40)
    agree(ops.to_numpy(found), normed * gate * formulas.sigmoid(gate))


def test_elementwise(ops: Operations) -> None:
    x, y = normal(3, 24), normal(3, 24)
    a, b = ops.from_numpy(x), ops.from_numpy(y)
    agree(ops.to_numpy(ops.add(a, b, 0.25)), x + 0.25 * y)
    a = ops.from_numpy(x)
    agree(ops.to_numpy(ops.sigmoid_gate(a, b)), x * formulas.sigmoid(y))
    a = ops.from_numpy(x)
    gate = ops.from_numpy(np.ascontiguousarray(y[:, :1]))
    agree(ops.to_numpy(ops.sigmoid_gate(a, gate)), x * formulas.sigmoid(y[:, :1]))
    agree(ops.to_numpy(ops.soft_cap(ops.from_numpy(5 * x), 2.0)), 2 * np.tanh(5 * x / 2.0))


def test_split_and_join(ops: Operations) -> None:
    x = normal(3, 4 * 9)
    parts = ops.split(ops.from_numpy(x), (2, 6, 1), 4)
    heads = x.reshape(3, 4, 9)
    for part, (start, end) in zip(parts, ((0, 2), (2, 8), (8, 9)), strict=True):
        assert (ops.to_numpy(part) == heads[:, :, start:end].reshape(3, -1)).all()
    assert (ops.to_numpy(ops.join(parts, 4)) == x).all()
