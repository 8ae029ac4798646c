"""Promise 2 on the cpu back end: paths, threads, other rows and chunks do not change a bit."""

from __future__ import annotations

import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Attention, Batch, Routing
from tests.kernels.arrays import DTYPES, F32, matrix, same_bits, spread

RULES = (
    Attention(4, 2, 6, 6, 0.3),
    Attention(4, 2, 72, 72, 0.3, window=20, soft_cap=4.0),
    Attention(9, 1, 40, 24, 0.3, shared_values=True),
)
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "swiglu_clamped")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def run_all(seed: int = 0) -> list[F32]:
    """Results of every operation on one set of numbers, NaN and infinity among them."""
    ops = Cpu(_kernels.threads())
    random = np.random.default_rng(seed)
    results = []
    for kind in DTYPES:
        ks = (32, 192) if kind in ("q4", "q8") else (7, 80)
        for k in ks:
            for n in (1, 5, 17, 50):
                tensor = matrix(random, kind, n, k)
                w = ops.weight(tensor)
                x = spread(random, 7, k)
                x[2, 1], x[3, 2], x[4] = np.nan, -np.inf, np.float32(3e-41)
                results.append(ops.linear(x, w, spread(random, n)))
                results.append(ops.embed(ops.table(tensor), ints(n - 1, 0)))
    for d in (5, 48):
        results.append(ops.rms_norm(spread(random, 4, d), spread(random, d), 1e-6))
        results.append(ops.layer_norm(spread(random, 4, d), spread(random, d), 1e-6))
        results.append(ops.add(spread(random, 4, d), spread(random, 4, d), 0.3))
        results.append(ops.sigmoid_gate(spread(random, 4, d), spread(random, 4, d)))
        results.append(ops.soft_cap(spread(random, 4, d), 5.0))
    for act in ACTIVATIONS:
        x = np.concatenate([spread(random, 3, 32) * 8, np.full((1, 32), np.nan, np.float32)])
        gate_up, down = matrix(random, "bf16", 42, 32), matrix(random, "f16", 9, 21)
        residual = spread(random, 4, 9)
        ops.gated_mlp(x, ops.weight(gate_up), ops.weight(down), act, residual)
        results.append(residual)
    for scoring in ("softmax", "softmax_chosen", "sigmoid"):
        router = ops.weight(matrix(random, "bf16", 18, 80))
        routing = Routing(18, 4, scoring, True, 1.5, 6, 3)
        experts, weights = ops.route(spread(random, 9, 80), router, routing)
        results += [experts.astype(np.float32), weights]
    for kind in ("f16", "q4", "q8"):
        parts = [matrix(random, kind, 64, 64) for _ in range(9)]
        gate_up = ops.experts([parts[at : at + 2] for at in (0, 2, 4)])
        down = ops.experts([[part] for part in parts[6:]])
        experts = random.integers(0, 3, (11, 2), np.int32)
        results.append(
            ops.mixture(spread(random, 11, 64), experts, spread(random, 11, 2), gate_up, down,
                        "silu", None)
        )  # fmt: skip
    for rules in RULES:
        for dtype in ("f16", "f32"):
            cache = ops.cache(2, 200, rules, dtype)
            qkv = random.standard_normal((150, rules.width)).astype(np.float32)
            batch = ops.batch(Batch.of(ints(1, 0), ints(0, 0), ints(130, 20)), 2, 200)
            norms = spread(random, rules.head_dim), spread(random, rules.head_dim)
            ops.head_norm(qkv, *norms, rules, 1e-6)
            ops.rope(qkv, spread(random, 200, 2, rules.head_dim // 2), batch, rules)
            sinks = spread(random, rules.n_heads)
            results += [qkv, ops.attend(qkv, cache, batch, rules, sinks)]
    return results


def test_paths_agree_bit_for_bit() -> None:
    paths = _kernels.paths()
    if len(paths) == 1:
        pytest.skip("this processor has the scalar path only")
    found = {}
    for path in paths:
        _kernels.use_path(path)
        found[path] = run_all()
    for path in paths[1:]:
        for i, (a, b) in enumerate(zip(found["scalar"], found[path], strict=True)):
            assert same_bits(a, b), f"result {i} of {path} is not that of scalar"


def test_exp_agrees_on_a_sweep_of_all_exponents() -> None:
    """silu and gelu over every 4096th float, on each path."""
    bits = np.arange(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32).reshape(-1, 1024)
    eye = np.concatenate([np.eye(1, dtype=np.float32)] * 2)
    found: dict[str, list[F32]] = {}
    for path in _kernels.paths():
        _kernels.use_path(path)
        ops = Cpu(1)
        gate_up = ops.weight(Tensor("w", "f32", (2, 1), eye))
        down = ops.weight(Tensor("w", "f32", (1, 1), eye[:1]))
        for act in ("silu", "gelu"):
            y = np.zeros((x.size, 1), np.float32)
            ops.gated_mlp(x.reshape(-1, 1), gate_up, down, act, y)
            found.setdefault(act, []).append(y)
    for results in found.values():
        assert all(same_bits(results[0], other) for other in results[1:])


def test_threads_do_not_change_a_bit(path: str) -> None:
    """With enough rows that work is really split."""
    results = []
    for threads in (1, 2, 5):
        _kernels.set_threads(threads)
        ops = Cpu(threads)
        random = np.random.default_rng(0)
        x = spread(random, 40, 256)
        w = ops.weight(matrix(random, "bf16", 301, 256), matrix(random, "q4", 150, 256))
        gate_up = ops.weight(matrix(random, "f16", 150, 256), matrix(random, "q8", 150, 256))
        down = ops.weight(matrix(random, "f32", 256, 150))
        residual = x.copy()
        ops.gated_mlp(x, gate_up, down, "silu", residual)
        rules = Attention(4, 2, 32, 32, 0.2, window=100)
        cache = ops.cache(1, 300, rules)
        qkv = spread(random, 300, 8 * 32)
        batch = ops.batch(Batch.of(ints(0), ints(0), ints(300)), 1, 300)
        out = ops.attend(qkv, cache, batch, rules)
        wide = ops.rms_norm(spread(random, 900, 256), x[0], 1e-5)
        results.append([ops.linear(x, w), residual, out, wide])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("kind", DTYPES)
def test_a_row_does_not_depend_on_the_others(path: str, kind: str) -> None:
    ops = Cpu(1)
    random = np.random.default_rng(6)
    w = ops.weight(matrix(random, kind, 11, 96))
    x = spread(random, 70, 96)
    together = ops.linear(x, w)
    for first, last in ((0, 1), (3, 5), (5, 9), (60, 70), (69, 70)):
        alone = ops.linear(np.ascontiguousarray(x[first:last]), w)
        assert same_bits(alone, together[first:last])
