"""Prompts through packed matrices: blocks of rows, columns in pairs, an MLP in one piece."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.backends.reference import dense
from tests.kernels.arrays import F32, error_bound, matrix, same_bits, seen_by, spread

# From what is multiplied as ever to whole blocks, with each number of rows left over.
ROWS = (29, 30, 31, 34, 35, 40, 96)


def on_scalar(tensor: Tensor, x: F32) -> F32:
    path = _kernels.path()
    _kernels.use_path("scalar")
    found = Cpu(1).linear(x, Cpu(1).weight(tensor))
    _kernels.use_path(path)
    return found


@pytest.mark.parametrize("kind", ["q4", "q8"])
@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
def test_many_rows_give_the_bits_of_one(path: str, kind: str, group_size: int) -> None:
    """n: an odd number of panels, the last one not full."""
    random = np.random.default_rng(group_size)
    tensor = matrix(random, kind, 70, 4 * group_size, group_size)
    w = Cpu(1).weight(tensor)
    for t in ROWS:
        x = spread(random, t, 4 * group_size)
        x[3, 5], x[7, 0], x[11] = np.nan, np.inf, 0
        found = Cpu(1).linear(x, w)
        assert same_bits(found, on_scalar(tensor, x)), t
        alone = [Cpu(1).linear(x[row : row + 1], w) for row in range(t)]
        assert same_bits(found, np.concatenate(alone)), t
        finite = np.isfinite(x).all(axis=1)
        difference = found[finite] - seen_by(tensor, x[finite]) @ dense(tensor).T
        assert (np.abs(difference) <= error_bound(x[finite], tensor)).all()


@pytest.mark.parametrize("codes", [0, 0xFFFFFFFF, 0x0F0F0F0F, 0xF0F0F0F0])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_the_largest_codes_do_not_overflow(path: str, codes: int, group_size: int) -> None:
    """All activations at either end of their range, all weights at either end of theirs."""
    random = np.random.default_rng(0)
    tensor = matrix(random, "q4", 48, 2 * group_size, group_size)
    words = np.full_like(tensor.data, codes)
    tensor = msgspec.structs.replace(tensor, data=words)
    signs = random.choice(np.array([-1, 1], np.float32), (36, 2 * group_size))
    signs[0], signs[1], signs[2, ::2], signs[2, 1::2] = 1, -1, 1, -1
    found = Cpu(1).linear(signs, Cpu(1).weight(tensor))
    assert same_bits(found, on_scalar(tensor, signs))
    exact = seen_by(tensor, signs) @ dense(tensor).T
    assert (np.abs(found - exact) <= error_bound(signs, tensor)).all()


@pytest.mark.parametrize("kind", ["q3", "q4", "q8"])
@pytest.mark.parametrize(("before", "behind"), [(32, 32), (64, 16), (32, 64), (16, 128)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_mlp_is_that_of_one_expert(
    path: str, kind: str, before: int, behind: int, bias: bool
) -> None:
    """Made in one piece, with what lies between as bytes alone; a mixture makes floats of it."""
    random = np.random.default_rng([before, behind])
    d, ffn = 128, 256
    gate_up = [matrix(random, kind, ffn, d, before) for _ in range(2)]
    down = matrix(random, kind, d, ffn, behind)
    biases = (spread(random, 2 * ffn), spread(random, d)) if bias else (None, None)
    for threads, t in ((1, 1), (1, 29), (2, 70), (2, 300)):
        ops = Cpu(threads)
        x = spread(random, t, d)
        x[t // 2, 3] = np.nan
        residual = spread(random, t, d)
        expected = ops.mixture(
            x, np.zeros((t, 1), np.int32), np.ones((t, 1), np.float32), ops.experts([gate_up]),
            ops.experts([[down]]), "silu", None, *biases,
        )  # fmt: skip
        weights = ops.weight(*gate_up), ops.weight(down)
        found = ops.gated_mlp(x, *weights, "silu", None, *biases)
        assert same_bits(found, expected), (threads, t)
        added = ops.gated_mlp(x, *weights, "silu", residual.copy(), *biases)
        assert same_bits(added, residual + expected), (threads, t)
