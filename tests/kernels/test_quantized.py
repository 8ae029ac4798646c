"""Quantized weights of all bits and group sizes, on every path."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.backends.reference import dense
from tests.kernels.arrays import QUANTS, error_bound, matrix, same_bits, seen_by, spread


@pytest.mark.parametrize("kind", QUANTS)
@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
def test_linear_and_embed(path: str, kind: str, group_size: int) -> None:
    random = np.random.default_rng(group_size)
    ops = Cpu(1)
    for t, n, groups in ((1, 1, 2), (3, 17, 4), (19, 40, 6)):
        tensor = matrix(random, kind, n, group_size * groups, group_size)
        w, exact = ops.weight(tensor), dense(tensor)
        x = spread(random, t, group_size * groups)
        found = ops.linear(x, w)
        difference = np.abs(found - seen_by(tensor, x) @ exact.T.astype(np.float64))
        assert (difference <= error_bound(x, tensor)).all()
        alone = [ops.linear(x[row : row + 1], w) for row in range(t)]
        assert same_bits(np.concatenate(alone), found)
        ids = np.arange(n, dtype=np.int32)
        assert (ops.embed(ops.table(tensor), ids) == exact).all()  # of the packed weight
        assert (Cpu(1).embed(Cpu(1).table(tensor), ids) == exact).all()  # where it lies


@pytest.mark.parametrize("kind", ["q3", "q4", "q6"])
def test_scales_and_offsets_of_unlike_types_lose_nothing(path: str, kind: str) -> None:
    random = np.random.default_rng(1)
    tensor = matrix(random, kind, 18, 64, 32)
    assert tensor.offsets is not None
    offsets = spread(random, 18, 2)
    unlike = msgspec.structs.replace(tensor, offsets=Tensor("o", "f32", offsets.shape, offsets))
    ids = np.arange(18, dtype=np.int32)
    assert (Cpu(1).embed(Cpu(1).table(unlike), ids) == dense(unlike)).all()


def test_experts_have_all_bits(path: str) -> None:
    """An expert of each kind gives what it gives as a weight of its own."""
    random = np.random.default_rng(2)
    ops = Cpu(1)
    kinds = [(kind, size) for kind in QUANTS for size in (16, 32)]
    parts = [[matrix(random, kind, 64, 32, size) for _ in range(2)] for kind, size in kinds]
    down = [[matrix(random, kind, 32, 64, size)] for kind, size in kinds]
    x = spread(random, len(kinds), 32)
    experts = np.arange(len(kinds), dtype=np.int32)[:, None]
    ones = np.ones((len(kinds), 1), np.float32)
    found = ops.mixture(x, experts, ones, ops.experts(parts), ops.experts(down), "silu", None)
    for row, (gate_up, second) in enumerate(zip(parts, down, strict=True)):
        weights = ops.weight(*gate_up), ops.weight(*second)
        zero = np.zeros((1, 32), np.float32)
        expected = ops.gated_mlp(x[row : row + 1], *weights, "silu", zero)
        assert same_bits(found[row : row + 1], expected)
