"""What one operation, one decode step and one byte of weights cost on this machine.

    python -m benchmarks.kernels [--threads 1 2] [--json]

The decode step is that of the demo model's shape with random weights in memory; GB/s counts the
bytes of a matrix that is larger than the caches.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.make_checkpoint import make_checkpoint, quantize, to_bf16

from gangline import _kernels
from gangline.checkpoint.model import Checkpoint, open_checkpoint
from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import Attention, Batch
from gangline.facts import Span

# Writes a checkpoint of the demo model's shape.
make_demo = partial(
    make_checkpoint,
    n_layers=8,
    hidden=256,
    n_heads=8,
    n_kv_heads=4,
    head_dim=32,
    ffn=512,
    vocab=1024,
)


def best_us(run: Callable[[], object], repeat: int) -> float:
    """Microseconds of one call, the best of five rounds of `repeat`."""
    run()
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        rounds.append((time.perf_counter() - start) / repeat)
    return min(rounds) * 1e6


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def operations(threads: int) -> dict[str, float]:
    """µs per operation with almost nothing to compute: the price of a call."""
    ops = open_backend("cpu", threads)
    x = np.zeros((1, 16), np.float32)
    w = ops.weight(Tensor("w", "f32", (16, 16), np.zeros((16, 16), np.float32)))
    gate_up = ops.weight(Tensor("w", "f32", (32, 16), np.zeros((32, 16), np.float32)))
    one = np.ones(16, np.float32)
    rules = Attention(1, 1, 16, 16, 0.25)
    cache = ops.cache(4, 64, rules)
    table = ops.rope_table(np.zeros((64, 2, 8), np.float32))
    embedding = ops.table(Tensor("w", "f32", (16, 16), np.zeros((16, 16), np.float32)))
    batch = Batch.of(ints(0), ints(3), ints(1))
    prepared = ops.batch(batch, 4, 64)
    qkv = np.zeros((1, 48), np.float32)
    calls: dict[str, Callable[[], object]] = {
        "batch": lambda: ops.batch(batch, 4, 64),
        "embed": lambda: ops.embed(embedding, ints(1)),
        "rms_norm": lambda: ops.rms_norm(x, one, 1e-5),
        "linear": lambda: ops.linear(x, w),
        "linear_add": lambda: ops.linear_add(x, w, x),
        "rope": lambda: ops.rope(qkv, table, prepared, rules),
        "attend": lambda: ops.attend(qkv, cache, prepared, rules),
        "gated_mlp": lambda: ops.gated_mlp(x, gate_up, w, "silu", x),
    }
    return {name: best_us(call, 20000) for name, call in calls.items()}


def decode_step(checkpoint: Checkpoint, threads: int, lanes: int, position: int) -> float:
    """µs of one step of the whole model, logits included."""
    ops = open_backend("cpu", threads)
    span = Span(0, checkpoint.shape.n_layers)
    decoder = Decoder(checkpoint, ops, span, head=True, context=256, lanes=lanes)
    slots = np.arange(lanes, dtype=np.int32)
    prompt = np.full(lanes, position, np.int32)
    ids = np.arange(lanes * position, dtype=np.int32) % 1000
    decoder.forward(decoder.embed(ids), Batch.of(slots, slots * 0, prompt))
    batch = Batch.of(slots, prompt, slots * 0 + 1)

    def step() -> None:
        decoder.logits(decoder.forward(decoder.embed(slots), batch))

    return best_us(step, 200)


def bandwidth(kind: str, threads: int, n: int = 8192, k: int = 8192) -> float:
    """GB/s of weights of a matrix that is multiplied with one row."""
    ops = open_backend("cpu", threads)
    values = np.random.default_rng(0).standard_normal((n, k), np.float32)
    if kind == "bf16":
        tensor = Tensor("w", "bf16", (n, k), to_bf16(values))
    elif kind == "f32":
        tensor = Tensor("w", "f32", (n, k), values)
    else:
        bits = int(kind[1:])
        packed, scales, biases = quantize(values, bits, 64)
        parts = (Tensor("s", "f16", scales.shape, part) for part in (scales, biases))
        tensor = Tensor("w", "u32", (n, k), packed, GroupAffine(bits, 64), *parts)
    w = ops.weight(tensor)
    x = values[:1]
    return tensor.n_bytes / best_us(lambda: ops.linear(x, w), 5) / 1e3


def prefill(kind: str, threads: int, rows: int = 128) -> float:
    """Billion multiply-adds per second of a matrix with many rows."""
    ops = open_backend("cpu", threads)
    values = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    w = ops.weight(Tensor("w", "bf16", values.shape, to_bf16(values)))
    if kind == "q4":
        packed, scales, biases = quantize(values, 4, 64)
        parts = (Tensor("s", "f16", scales.shape, part) for part in (scales, biases))
        w = ops.weight(Tensor("w", "u32", values.shape, packed, GroupAffine(4, 64), *parts))
    x = np.ascontiguousarray(values[:rows])
    return rows * values.size / best_us(lambda: ops.linear(x, w), 3) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found: dict[str, object] = {"path": _kernels.path(), "call_us": operations(1)}
    with TemporaryDirectory() as folder:
        for kind in ("bf16", "q4"):
            path = make_demo(Path(folder) / kind, kind=kind)
            checkpoint = open_checkpoint(path)
            for threads in chosen.threads:
                for lanes in (1, 16):
                    name = f"demo_step_us {kind} {threads} threads {lanes} lanes"
                    found[name] = decode_step(checkpoint, threads, lanes, 30)
            del checkpoint
    for threads in chosen.threads:
        found[f"read_GB_s {threads} threads"] = _kernels.read_bandwidth(1 << 28, threads, 0.5) / 1e9
        for kind in ("f32", "bf16", "q8", "q4"):
            found[f"decode_GB_s {kind} {threads} threads"] = bandwidth(kind, threads)
        for kind in ("bf16", "q4"):
            found[f"prefill_GMAC_s {kind} {threads} threads"] = prefill(kind, threads)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            for call, cost in value.items():
                print(f"{name + ' ' + call:40} {cost:10.2f}")
        else:
            print(f"{name:40} {value if isinstance(value, str) else format(value, '10.2f')}")


if __name__ == "__main__":
    main()
