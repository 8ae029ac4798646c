"""All operations, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference.activations import activate, cap_scores, gated, sigmoid
from gangline.engine.backends.reference.attention import Cache, attend
from gangline.engine.backends.reference.delta import DeltaState, run_delta
from gangline.engine.backends.reference.mixture import choose_experts
from gangline.engine.backends.reference.weights import dense
from gangline.engine.operations import (
    F32,
    I32,
    Activation,
    Attention,
    Batch,
    CacheDtype,
    DeltaNet,
    Layers,
    Routing,
)
from gangline.errors import ProtocolError


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
        parts = [part.tolist() for part in (batch.slots, batch.starts, batch.counts)]
        if len({len(part) for part in parts}) != 1:
            raise ProtocolError("a batch with unequal numbers of slots, starts and counts")
        sequences = list(zip(*parts, strict=True))
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

    def runner(self, layers: Layers) -> Callable[[F32, Any], F32]:
        return lambda x, batch: self.to_numpy(layers(self.from_numpy(x), batch))

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
        return attend(qkv, cache, batch, rules, sinks)

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
        return run_delta(
            mixed, beta, decay, state, batch, rules, convolution, decay_log, decay_bias
        )

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
        return choose_experts(self.linear(x, router, bias), rules, correction)

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
