"""The definition of every operation, in plain NumPy: read this to know what a back end must do.

Slow, and exact to float32 only; runs wherever Python runs. Knows no model and no file.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.tensors import Tensor
from gangline.engine.operations import F32, I32, Activation, Batch, CacheDtype
from gangline.errors import CheckpointError, ProtocolError

BLOCK = 64  # positions per step of the walk over the cache


class Cache(msgspec.Struct, frozen=True):
    """Keys and values of one layer, one row of positions per cache slot."""

    keys: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dh)
    values: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dh)


class Reference:
    """Implements `Operations`."""

    name = "reference"

    def weight(self, *parts: Tensor) -> F32:
        return np.concatenate([dense(part) for part in parts])  # (N, K)

    def table(self, tensor: Tensor) -> F32:
        return dense(tensor)

    def vector(self, *parts: Tensor) -> F32:
        return np.concatenate([dense(part) for part in parts])

    def cache(
        self,
        lanes: int,
        context: int,
        n_kv_heads: int,
        head_dim: int,
        dtype: CacheDtype = "f16",
    ) -> Cache:
        shape = (lanes, context, n_kv_heads, head_dim)
        kind = np.float16 if dtype == "f16" else np.float32
        return Cache(np.zeros(shape, kind), np.zeros(shape, kind))

    def batch(self, batch: Batch, lanes: int, context: int) -> Batch:
        sequences = list(zip(*(part.tolist() for part in _sequences(batch)), strict=True))
        if len({slot for slot, _, _ in sequences}) != len(sequences):
            raise ProtocolError("a cache slot occurs twice in one batch")
        for slot, start, count in sequences:
            if not 0 <= slot < lanes:
                raise ProtocolError(f"cache slot {slot} of a batch, there are {lanes}")
            if start < 0 or count < 1 or start + count > context:
                raise ProtocolError(
                    f"positions {start} to {start + count} of a batch, the context is {context}"
                )
        return Batch.of(batch.slots, batch.starts, batch.counts)

    def embed(self, table: F32, ids: I32) -> F32:
        return table[ids]

    def rms_norm(self, x: F32, w: F32, eps: float) -> F32:
        mean: F32 = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        normed: F32 = x / np.sqrt(mean + np.float32(eps))
        return normed * w

    def linear(self, x: F32, w: F32, bias: F32 | None = None) -> F32:
        y = x @ w.T
        return y if bias is None else y + bias

    def linear_add(self, x: F32, w: F32, residual: F32, bias: F32 | None = None) -> None:
        residual += self.linear(x, w, bias)

    def rope_table(self, cos_sin: F32) -> F32:
        return cos_sin

    def rope(self, qkv: F32, table: F32, batch: Batch, n_heads: int, n_kv_heads: int) -> None:
        half = table.shape[2]
        heads = qkv.reshape(len(qkv), -1, 2, half)[:, : n_heads + n_kv_heads]  # (T, H, 2, Dh/2)
        cos, sin = table[batch.positions, None, 0], table[batch.positions, None, 1]
        a, b = heads[:, :, 0].copy(), heads[:, :, 1].copy()
        heads[:, :, 0] = a * cos - b * sin
        heads[:, :, 1] = b * cos + a * sin

    def attend(self, qkv: F32, cache: Cache, batch: Batch, n_heads: int, scale: float) -> F32:
        n_kv_heads, head_dim = cache.keys.shape[2:]
        rows = qkv.reshape(len(qkv), n_heads + 2 * n_kv_heads, head_dim)
        queries, keys, values = np.split(rows, [n_heads, n_heads + n_kv_heads], axis=1)
        slots = np.repeat(batch.slots, batch.counts)
        cache.keys[slots, batch.positions] = keys
        cache.values[slots, batch.positions] = values
        out = np.empty((len(qkv), n_heads, head_dim), np.float32)
        for row, (slot, position) in enumerate(zip(slots, batch.positions, strict=True)):
            for head in range(n_heads):
                kv_head = head * n_kv_heads // n_heads
                out[row, head] = _attend_one(
                    queries[row, head] * np.float32(scale),
                    cache.keys[slot, : position + 1, kv_head].astype(np.float32),
                    cache.values[slot, : position + 1, kv_head].astype(np.float32),
                )
        return out.reshape(len(qkv), n_heads * head_dim)

    def gated_mlp(
        self,
        x: F32,
        gate_up: F32,
        down: F32,
        act: Activation,
        residual: F32,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> None:
        gate, up = np.split(self.linear(x, gate_up, gate_up_bias), 2, axis=1)  # (T, F) each
        residual += self.linear(activate(gate, act) * up, down, down_bias)

    def to_numpy(self, x: F32) -> F32:
        return np.ascontiguousarray(x, np.float32)

    def from_numpy(self, x: F32) -> F32:
        return x


def _attend_one(query: F32, keys: F32, values: F32) -> F32:
    """query (Dh,), keys and values (P, Dh) -> (Dh,): softmax in one pass over blocks."""
    largest, total = np.float32(-np.inf), np.float32(0)
    out = np.zeros_like(query)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(keys), BLOCK):
            scores = keys[start : start + BLOCK] @ query
            new_largest = max(largest, scores.max())
            weights = np.exp(scores - new_largest)
            kept = np.exp(largest - new_largest)
            total = total * kept + weights.sum()
            out = out * kept + weights @ values[start : start + BLOCK]
            largest = new_largest
        return out / total


def activate(x: F32, act: Activation) -> F32:
    """The activation functions, elementwise."""
    y: NDArray[np.floating]
    with np.errstate(over="ignore"):
        if act == "silu":
            y = x / (1 + np.exp(-x))
        elif act == "relu2":
            y = np.square(np.maximum(x, 0))
        elif act == "gelu_tanh":  # https://arxiv.org/abs/1606.08415, section 2
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
            y = x * 0.5 * (1 + np.tanh(inner))
        else:
            assert act == "gelu", act
            error_function = np.vectorize(math.erf, otypes=[np.float64])
            y = x * 0.5 * (1 + error_function(x / math.sqrt(2)))
    return y.astype(np.float32)


def quantize_rows(x: F32, group_size: int) -> tuple[NDArray[np.int8], F32]:
    """What back ends with integer kernels make of activations (T, K) before quantized weights.

    Codes (T, K) from -127 to 127 and factors (T, K / group_size): `x ≈ factor * code`, rounded to
    nearest even; groups that are tiny count as zero. `linear` here does without: the difference,
    at most half a factor per number, is what such a back end may deviate by.
    """
    groups = x.reshape(len(x), -1, group_size)
    largest = np.abs(groups).max(-1)
    tiny = largest < np.float32(1e-30)
    safe = np.where(tiny, np.float32(1), largest)
    inverse = np.where(tiny, np.float32(0), np.float32(127) / safe)
    codes = np.rint(groups * inverse[..., None]).astype(np.int8)
    factors = np.where(tiny, np.float32(0), largest / np.float32(127)).astype(np.float32)
    return codes.reshape(x.shape), factors


def dense(tensor: Tensor) -> F32:
    """Any tensor of floats as float32, quantized ones by their definition `scale q + offset`."""
    if tensor.quantized is not None:
        assert tensor.scales is not None and tensor.offsets is not None, tensor.name
        bits, group_size = tensor.quantized.bits, tensor.quantized.group_size
        if bits not in (2, 4, 8):
            raise CheckpointError(
                f"tensor `{tensor.name}` has {bits} bits per weight, which cannot be run yet",
                hint="Use a conversion with 4 or 8 bits.",
            )
        q = unpack(tensor.data.astype(np.uint32), bits).astype(np.float32)
        groups = q.reshape(len(q), -1, group_size)  # (N, K / group, group)
        scales, offsets = dense(tensor.scales), dense(tensor.offsets)
        # Exact in float64, rounded once: what a fused multiply-add gives.
        exact = scales[..., None].astype(np.float64) * groups + offsets[..., None]
        return exact.astype(np.float32).reshape(tensor.shape)
    if tensor.dtype == "bf16":
        return (tensor.data.astype(np.uint32) << 16).view(np.float32)
    if tensor.dtype not in ("f32", "f16"):
        raise CheckpointError(f"tensor `{tensor.name}` is {tensor.dtype}, expected floats")
    return tensor.data.astype(np.float32)


def unpack(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """uint32 (N, W) -> (N, 32 W / bits): numbers from the lowest bits of each word upwards."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    numbers = (words[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return numbers.reshape(len(words), -1)


def _sequences(batch: Batch) -> tuple[Any, Any, Any]:
    if not len(batch.slots) == len(batch.starts) == len(batch.counts):
        raise ProtocolError("a batch with unequal numbers of slots, starts and counts")
    return batch.slots, batch.starts, batch.counts
