"""Promise 2 on the cpu back end: paths, threads, other rows and chunks do not change a bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Batch
from tests.kernels.arrays import DTYPES, F32, matrix, same_bits, spread


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
    for act in ("silu", "gelu", "gelu_tanh", "relu2"):
        x = np.concatenate([spread(random, 3, 32) * 8, np.full((1, 32), np.nan, np.float32)])
        gate_up, down = matrix(random, "bf16", 42, 32), matrix(random, "f16", 9, 21)
        residual = spread(random, 4, 9)
        ops.gated_mlp(x, ops.weight(gate_up), ops.weight(down), act, residual)
        results.append(residual)
    for head_dim, dtype in ((6, "f32"), (32, "f16"), (72, "f16"), (72, "f32")):
        cache = ops.cache(2, 200, 2, head_dim, dtype)
        qkv = random.standard_normal((150, 8 * head_dim)).astype(np.float32)
        batch = ops.batch(Batch.of(ints(1, 0), ints(0, 0), ints(130, 20)), 2, 200)
        ops.rope(qkv, spread(random, 200, 2, head_dim // 2), batch, 4, 2)
        results += [qkv, ops.attend(qkv, cache, batch, 4, 0.3)]
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
        cache = ops.cache(1, 300, 2, 32)
        qkv = spread(random, 300, 8 * 32)
        batch = ops.batch(Batch.of(ints(0), ints(0), ints(300)), 1, 300)
        out = ops.attend(qkv, cache, batch, 4, 0.2)
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


def attend_in(chunks: list[int], qkv: F32, others: bool) -> F32:
    """Attention of one sequence cut into chunks, alone or with another lane in each step."""
    ops = Cpu(1)
    cache = ops.cache(3, 256, 1, 16)
    noise = np.random.default_rng(9).standard_normal((len(qkv), 64)).astype(np.float32)
    parts, start = [], 0
    for count in chunks:
        rows = qkv[start : start + count]
        if others:
            batch = Batch.of(ints(0, 2), ints(start, start), ints(count, count))
            both = np.concatenate([noise[start : start + count], rows])
            parts.append(ops.attend(both, cache, ops.batch(batch, 3, 256), 2, 0.25)[count:])
        else:
            batch = Batch.of(ints(2), ints(start), ints(count))
            chunk = np.ascontiguousarray(rows)
            parts.append(ops.attend(chunk, cache, ops.batch(batch, 3, 256), 2, 0.25))
        start += count
    return np.concatenate(parts)


@pytest.mark.parametrize("others", [False, True])
def test_chunks_of_a_prompt_do_not_change_a_bit(path: str, others: bool) -> None:
    qkv = np.random.default_rng(8).standard_normal((200, 64)).astype(np.float32)
    whole = attend_in([200], qkv, False)
    cuts: list[Callable[[], list[int]]] = [
        lambda: [1] * 200,
        lambda: [63, 1, 64, 65, 7],
        lambda: [150, *[1] * 50],
    ]
    for cut in cuts:
        assert same_bits(attend_in(cut(), qkv, others), whole)
