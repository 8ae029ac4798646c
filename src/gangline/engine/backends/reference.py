"""The definition of every operation, in plain NumPy: read this to know what a back end must do.

Slow, and exact to float32 only; runs wherever Python runs. Knows no model and no file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.tensors import Tensor
from gangline.engine.operations import (
    F32,
    I32,
    Activation,
    Attention,
    Batch,
    CacheDtype,
    DeltaNet,
    Routing,
)
from gangline.errors import CheckpointError, ProtocolError

BITS = (2, 3, 4, 5, 6, 8)  # of quantized weights
BLOCK = 64  # positions per step of the walk over the cache
CLAMP = 7.0  # of "swiglu_clamped", and the factor inside its sigmoid
CLAMP_SLOPE = 1.702


class Cache(msgspec.Struct, frozen=True):
    """Keys and values of one layer, one row of positions per cache slot."""

    keys: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dh)
    values: NDArray[np.floating[Any]]  # (lanes, context, n_kv_heads, Dv); a view of shared keys


class DeltaState(msgspec.Struct, frozen=True):
    """What a delta-rule layer remembers of each lane."""

    rows: F32  # (lanes, kernel - 1, width): the last mixed rows, before the convolution
    matrices: F32  # (lanes, n_value_heads, key_dim, value_dim)


class Reference:
    """Implements `Operations`."""

    name = "reference"

    def weight(self, *parts: Tensor) -> F32:
        return np.concatenate([dense(part) for part in parts])  # (N, K)

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> F32:
        return np.stack([self.weight(*of_one) for of_one in parts])  # (E, N, K)

    def head_weight(self, tensor: Tensor, n_heads: int) -> F32:
        return dense(tensor).reshape(n_heads, -1, tensor.shape[1])  # (H, N, K)

    def table(self, tensor: Tensor) -> F32:
        return dense(tensor)

    def vector(self, *parts: Tensor) -> F32:
        return np.concatenate([dense(part) for part in parts])

    def cache(self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16") -> Cache:
        kind = np.float16 if dtype == "f16" else np.float32
        shape = (lanes, context, rules.n_kv_heads)
        keys = np.zeros((*shape, rules.head_dim), kind)
        if rules.shared_values:
            return Cache(keys, keys[..., : rules.value_dim])
        return Cache(keys, np.zeros((*shape, rules.value_dim), kind))

    def delta_state(self, lanes: int, rules: DeltaNet) -> DeltaState:
        matrices = (lanes, rules.n_value_heads, rules.key_dim, rules.value_dim)
        return DeltaState(
            np.zeros((lanes, rules.kernel - 1, rules.width), np.float32),
            np.zeros(matrices, np.float32),
        )

    def rope_table(self, cos_sin: F32) -> F32:
        return cos_sin

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

    def embed(self, table: F32, ids: I32, scale: float = 1.0) -> F32:
        rows: F32 = table[ids] * np.float32(scale)
        return rows

    def rms_norm(self, x: F32, w: F32, eps: float) -> F32:
        mean: F32 = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        normed: F32 = x / np.sqrt(mean + np.float32(eps))
        return normed * w

    def layer_norm(self, x: F32, w: F32, eps: float) -> F32:
        return self.rms_norm(x - np.mean(x, axis=-1, keepdims=True, dtype=np.float32), w, eps)

    def linear(self, x: F32, w: F32, bias: F32 | None = None) -> F32:
        y = x @ w.T
        return y if bias is None else y + bias

    def linear_add(self, x: F32, w: F32, residual: F32, bias: F32 | None = None) -> F32:
        residual += self.linear(x, w, bias)
        return residual

    def linear_heads(self, x: F32, w: F32) -> F32:
        n_heads, n_rows, n_columns = w.shape
        heads = x.reshape(len(x), n_heads, n_columns)
        y: F32 = np.einsum("thk,hnk->thn", heads, w).reshape(len(x), n_heads * n_rows)
        return y

    def add(self, residual: F32, x: F32, scale: float = 1.0) -> F32:
        # Exact in float64, rounded once: what a fused multiply-add gives.
        residual[:] = residual + np.float64(np.float32(scale)) * x
        return residual

    def sigmoid_gate(self, x: F32, gate: F32) -> F32:
        x *= sigmoid(gate)
        return x

    def soft_cap(self, x: F32, cap: float) -> F32:
        x[:] = cap_scores(x, cap)
        return x

    def split(self, x: F32, widths: Sequence[int], n_heads: int = 1) -> tuple[F32, ...]:
        heads = x.reshape(len(x), n_heads, sum(widths))
        parts = np.split(heads, np.cumsum(widths)[:-1], axis=2)
        return tuple(np.array(part.reshape(len(x), -1)) for part in parts)

    def join(self, parts: Sequence[F32], n_heads: int = 1) -> F32:
        n_rows = len(parts[0])
        heads = [part.reshape(n_rows, n_heads, -1) for part in parts]
        return np.concatenate(heads, axis=2).reshape(n_rows, -1)

    def head_norm(self, qkv: F32, q: F32, k: F32, rules: Attention, eps: float) -> F32:
        end_q = rules.n_heads * rules.head_dim
        end_k = end_q + rules.n_kv_heads * rules.head_dim
        for rows, w in ((qkv[:, :end_q], q), (qkv[:, end_q:end_k], k)):
            heads = rows.reshape(len(rows), -1, len(w))
            rows[:] = self.rms_norm(heads, w, eps).reshape(rows.shape)
        return qkv

    def gated_norm(self, x: F32, gate: F32, w: F32, eps: float) -> F32:
        normed = self.rms_norm(x.reshape(len(x), -1, len(w)), w, eps)
        x[:] = normed.reshape(x.shape) * activate(gate, "silu")
        return x

    def rope(self, qkv: F32, table: F32, batch: Batch, rules: Attention) -> F32:
        half, n_turning = table.shape[2], rules.n_heads + rules.n_kv_heads
        heads = qkv[:, : n_turning * rules.head_dim].reshape(len(qkv), n_turning, rules.head_dim)
        cos, sin = table[batch.positions, None, 0], table[batch.positions, None, 1]
        a, b = heads[..., :half].copy(), heads[..., half : 2 * half].copy()
        heads[..., :half] = a * cos - b * sin
        heads[..., half : 2 * half] = b * cos + a * sin
        return qkv

    def attend(
        self, qkv: F32, cache: Cache, batch: Batch, rules: Attention, sinks: F32 | None = None
    ) -> F32:
        n_heads, n_kv_heads = rules.n_heads, rules.n_kv_heads
        end_q = n_heads * rules.head_dim
        end_k = end_q + n_kv_heads * rules.head_dim
        queries, keys, values = np.split(qkv, [end_q, end_k], axis=1)
        queries = queries.reshape(len(qkv), n_heads, rules.head_dim) * np.float32(rules.scale)
        slots = np.repeat(batch.slots, batch.counts)
        cache.keys[slots, batch.positions] = keys.reshape(len(qkv), n_kv_heads, -1)
        if not rules.shared_values:
            cache.values[slots, batch.positions] = values.reshape(len(qkv), n_kv_heads, -1)
        out = np.empty((len(qkv), n_heads, rules.value_dim), np.float32)
        for row, (slot, position) in enumerate(zip(slots, batch.positions, strict=True)):
            first = max(0, position + 1 - rules.window) if rules.window else 0
            for head in range(n_heads):
                kv_head = head * n_kv_heads // n_heads
                out[row, head] = _attend_one(
                    queries[row, head],
                    cache.keys[slot, : position + 1, kv_head],
                    cache.values[slot, : position + 1, kv_head],
                    first,
                    rules.soft_cap,
                    None if sinks is None else sinks[head],
                )
        return out.reshape(len(qkv), n_heads * rules.value_dim)

    def delta_net(
        self,
        mixed: F32,
        beta: F32,
        decay: F32,
        state: DeltaState,
        batch: Batch,
        rules: DeltaNet,
        convolution: F32,
        decay_log: F32,
        decay_bias: F32,
    ) -> F32:
        taps = convolution.reshape(rules.width, rules.kernel)
        write = sigmoid(beta)
        keep = np.exp(-np.exp(decay_log) * np.logaddexp(np.float32(0), decay + decay_bias))
        out = np.empty((len(mixed), rules.n_value_heads, rules.value_dim), np.float32)
        row = 0
        for slot, start, count in zip(batch.slots, batch.starts, batch.counts, strict=True):
            if start == 0:
                state.rows[slot] = 0
                state.matrices[slot] = 0
            for _ in range(count):
                window = np.concatenate([state.rows[slot], mixed[row : row + 1]])
                state.rows[slot] = window[1:]
                matrices, out[row] = _delta_step(
                    activate(np.einsum("kw,wk->w", window, taps), "silu"),
                    state.matrices[slot],
                    write[row],
                    keep[row],
                    rules,
                )
                state.matrices[slot] = matrices
                row += 1
        return out.reshape(len(mixed), -1)

    def gated_mlp(
        self,
        x: F32,
        gate_up: F32,
        down: F32,
        act: Activation,
        residual: F32 | None,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> F32:
        gate, up = np.split(self.linear(x, gate_up, gate_up_bias), 2, axis=1)  # (T, F) each
        y = self.linear(gated(gate, up, act), down, down_bias)
        if residual is None:
            return y
        residual += y
        return residual

    def route(
        self,
        x: F32,
        router: F32,
        rules: Routing,
        bias: F32 | None = None,
        correction: F32 | None = None,
    ) -> tuple[I32, F32]:
        scores = self.linear(x, router, bias)  # (T, E)
        if rules.scoring == "sigmoid":
            scores = sigmoid(scores)
        elif rules.scoring == "softmax":
            scores = softmax(scores)
        choice = scores if correction is None else scores + correction
        if rules.n_groups > 1:
            choice = _within_best_groups(choice, rules)
        chosen = largest(choice, rules.n_active)
        weights: F32 = np.take_along_axis(scores, chosen, axis=1)
        if rules.scoring == "softmax_chosen":
            weights = softmax(weights)
        if rules.renormalize:
            weights = weights / (weights.sum(1, keepdims=True) + np.float32(1e-20))
        return chosen, weights * np.float32(rules.scale)

    def mixture(
        self,
        x: F32,
        experts: I32,
        weights: F32,
        gate_up: F32,
        down: F32,
        act: Activation,
        residual: F32 | None,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> F32:
        n_experts = len(gate_up)
        y = np.zeros_like(x) if residual is None else residual
        for column in range(experts.shape[1]):
            for row, expert in enumerate(experts[:, column]):
                of_one = self.gated_mlp(
                    x[row : row + 1],
                    gate_up[expert],
                    down[expert],
                    act,
                    None,
                    None if gate_up_bias is None else gate_up_bias.reshape(n_experts, -1)[expert],
                    None if down_bias is None else down_bias.reshape(n_experts, -1)[expert],
                )
                y[row] += weights[row, column] * of_one[0]
        return y

    def to_numpy(self, x: F32) -> F32:
        return np.ascontiguousarray(x, np.float32)

    def from_numpy(self, x: F32) -> F32:
        return x


def _attend_one(
    query: F32,
    keys: NDArray[np.floating[Any]],
    values: NDArray[np.floating[Any]],
    first: int,
    soft_cap: float,
    sink: np.float32 | None,
) -> F32:
    """query (Dh,), keys (P, Dh), values (P, Dv) -> (Dv,): softmax in one pass over blocks.

    Positions below `first` are not seen. A sink is a score that is there before all others.
    """
    largest_score = np.float32(-np.inf) if sink is None else sink
    total = np.float32(0 if sink is None else 1)
    out = np.zeros(values.shape[1], np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(first - first % BLOCK, len(keys), BLOCK):
            scores = keys[start : start + BLOCK].astype(np.float32) @ query
            if soft_cap:
                scores = cap_scores(scores, soft_cap)
            scores[: max(0, first - start)] = -np.inf
            new_largest = max(largest_score, scores.max())
            weights = np.exp(scores - new_largest)
            kept = np.exp(largest_score - new_largest)
            total = total * kept + weights.sum()
            out = out * kept + weights @ values[start : start + BLOCK].astype(np.float32)
            largest_score = new_largest
        return out / total


def _delta_step(
    mixed: F32, matrices: F32, write: F32, keep: F32, rules: DeltaNet
) -> tuple[F32, F32]:
    """One row: mixed (width,) after the convolution, matrices (HV, K, V), write and keep (HV,)
    -> the new matrices and the result (HV, V)."""
    keys_end = 2 * rules.n_key_heads * rules.key_dim
    queries, keys = mixed[:keys_end].reshape(2, rules.n_key_heads, rules.key_dim)
    values = mixed[keys_end:].reshape(rules.n_value_heads, rules.value_dim)
    shares = rules.n_value_heads // rules.n_key_heads
    queries, keys = (
        np.repeat(x / np.sqrt(np.square(x).sum(1, keepdims=True) + np.float32(1e-6)), shares, 0)
        for x in (queries, keys)
    )
    queries = queries * np.float32(rules.key_dim**-0.5)
    decayed = matrices * keep[:, None, None]
    remembered = np.einsum("hk,hkv->hv", keys, decayed)
    delta = write[:, None] * (values - remembered)
    updated: F32 = decayed + keys[:, :, None] * delta[:, None, :]
    return updated, np.einsum("hk,hkv->hv", queries, updated)


def _within_best_groups(choice: F32, rules: Routing) -> F32:
    """Scores (T, E), minus infinity outside of the groups with the largest two best scores."""
    groups = choice.reshape(len(choice), rules.n_groups, -1)
    two_best = np.sort(groups, axis=2)[:, :, -2:].sum(2)
    best = largest(two_best, rules.n_active_groups)
    seen = np.zeros(two_best.shape, bool)
    np.put_along_axis(seen, best, True, axis=1)
    masked: F32 = np.where(seen[:, :, None], groups, np.float32(-np.inf)).reshape(choice.shape)
    return masked


def largest(scores: F32, count: int) -> I32:
    """scores (T, E) -> columns (T, count) of the largest, in falling order; the lower of equals."""
    columns: I32 = np.argsort(-scores, axis=1, kind="stable")[:, :count].astype(np.int32)
    return columns


def softmax(x: F32) -> F32:
    """Over the last dimension."""
    weights = np.exp(x - x.max(-1, keepdims=True))
    shares: F32 = weights / weights.sum(-1, keepdims=True)
    return shares


def sigmoid(x: F32) -> F32:
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x))).astype(np.float32)


def cap_scores(x: F32, cap: float) -> F32:
    capped: F32 = np.float32(cap) * np.tanh(x / np.float32(cap))
    return capped


def gated(gate: F32, up: F32, act: Activation) -> F32:
    """What a gated MLP makes of its two halves."""
    if act == "swiglu_clamped":
        gate, up = np.minimum(gate, np.float32(CLAMP)), np.clip(up, -CLAMP, CLAMP)
        return gate * sigmoid(np.float32(CLAMP_SLOPE) * gate) * (up + 1)
    return activate(gate, act) * up


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
        if bits not in BITS:
            raise cannot_run_bits(tensor.name, bits)
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
    """uint32 (N, W) -> (N, 32 W / bits): a row is one stream of bits, lowest first."""
    if 32 % bits == 0:
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        numbers = (words[..., None] >> shifts) & np.uint32((1 << bits) - 1)
        return numbers.reshape(len(words), -1)
    stream = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    places = np.uint32(1) << np.arange(bits, dtype=np.uint32)
    spread: NDArray[np.uint32] = stream.reshape(len(words), -1, bits) @ places
    return spread


def cannot_run_bits(name: str, bits: int) -> CheckpointError:
    """What a back end says to a tensor of other bits than `BITS`."""
    return CheckpointError(
        f"tensor `{name}` has {bits} bits per weight, which cannot be run",
        hint=f"Use a conversion with one of {', '.join(map(str, BITS))} bits.",
    )


def _sequences(batch: Batch) -> tuple[Any, Any, Any]:
    if not len(batch.slots) == len(batch.starts) == len(batch.counts):
        raise ProtocolError("a batch with unequal numbers of slots, starts and counts")
    return batch.slots, batch.starts, batch.counts
