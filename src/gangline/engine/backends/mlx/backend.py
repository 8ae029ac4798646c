"""The operations on MLX arrays; nothing is evaluated before `to_numpy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx
import numpy as np

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.composed import Composed, choose_experts
from gangline.engine.backends.mlx import attention, delta, mixture
from gangline.engine.backends.mlx.attention import Cache, Step
from gangline.engine.backends.mlx.delta import DeltaState
from gangline.engine.backends.mlx.weights import Part, Weight, experts_of, floats
from gangline.engine.operations import (
    F32,
    I32,
    Attention,
    Batch,
    CacheDtype,
    DeltaNet,
    Layers,
    Routing,
)


class Mlx(Composed):
    """Implements `Operations`. "In place" makes a new array here: callers use what is returned."""

    name = "mlx"

    def __init__(self) -> None:
        self._last: tuple[Tensor, Weight] | None = None  # an embedding may be the output too

    def weight(self, *parts: Tensor) -> Weight:
        if len(parts) > 1:
            return Weight(parts)
        if self._last is None or self._last[0] is not parts[0]:
            self._last = parts[0], Weight(parts)
        return self._last[1]

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> Part:
        return experts_of(parts)

    def head_weight(self, tensor: Tensor, n_heads: int) -> mx.array:
        values = floats(tensor)  # (H N, K) -> (H, K, N)
        return values.reshape(n_heads, -1, values.shape[-1]).swapaxes(1, 2)

    def table(self, tensor: Tensor) -> Weight:
        return self.weight(tensor)

    def vector(self, *parts: Tensor) -> mx.array:
        return mx.concatenate([floats(part).astype(mx.float32) for part in parts])

    def cache(self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16") -> Cache:
        return Cache(lanes, context, rules, dtype)

    def delta_state(self, lanes: int, rules: DeltaNet) -> DeltaState:
        return DeltaState(lanes, rules)

    def rope_table(self, cos_sin: F32) -> mx.array:
        return mx.array(cos_sin)

    def batch(self, batch: Batch, lanes: int, context: int) -> Step:
        checked = self.checked(batch, lanes, context)
        return Step(checked)

    def runner(self, layers: Layers) -> Callable[[F32, Any], F32]:
        return lambda x, batch: self.to_numpy(layers(self.from_numpy(x), batch))

    def embed(self, table: Weight, ids: I32, scale: float = 1.0) -> mx.array:
        rows = table.rows(mx.array(ids))
        return rows if scale == 1.0 else rows * scale

    def rms_norm(self, x: mx.array, w: mx.array, eps: float) -> mx.array:
        return mx.fast.rms_norm(x, w, eps)

    def layer_norm(self, x: mx.array, w: mx.array, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, w, None, eps)

    def linear_heads(self, x: mx.array, w: mx.array) -> mx.array:
        n_heads = w.shape[0]
        heads = x.reshape(x.shape[0], n_heads, -1).swapaxes(0, 1).astype(w.dtype)  # (H, T, K)
        return (heads @ w).swapaxes(0, 1).reshape(x.shape[0], -1).astype(mx.float32)

    def add(self, residual: mx.array, x: mx.array, scale: float = 1.0) -> mx.array:
        return residual + (x if scale == 1.0 else scale * x)

    def sigmoid_gate(self, x: mx.array, gate: mx.array) -> mx.array:
        return x * mx.sigmoid(gate)

    def soft_cap(self, x: mx.array, cap: float) -> mx.array:
        return cap * mx.tanh(x / cap)

    def split(self, x: mx.array, widths: Sequence[int], n_heads: int = 1) -> tuple[mx.array, ...]:
        heads = x.reshape(x.shape[0], n_heads, -1)
        parts = mx.split(heads, list(accumulate(widths))[:-1], axis=-1)
        return tuple(part.reshape(x.shape[0], -1) for part in parts)

    def join(self, parts: Sequence[mx.array], n_heads: int = 1) -> mx.array:
        n_rows = parts[0].shape[0]
        heads = [part.reshape(n_rows, n_heads, -1) for part in parts]
        return mx.concatenate(heads, axis=-1).reshape(n_rows, -1)

    def head_norm(
        self, qkv: mx.array, q: mx.array, k: mx.array, rules: Attention, eps: float
    ) -> mx.array:
        ends = [rules.n_heads * rules.head_dim, (rules.n_heads + rules.n_kv_heads) * rules.head_dim]
        queries, keys, values = mx.split(qkv, ends, axis=1)
        normed = [self._norm_parts(queries, q, eps), self._norm_parts(keys, k, eps)]
        return mx.concatenate([*normed, values], axis=1)

    def gated_norm(self, x: mx.array, gate: mx.array, w: mx.array, eps: float) -> mx.array:
        return self._norm_parts(x, w, eps) * gate * mx.sigmoid(gate)

    def rope(self, qkv: mx.array, table: mx.array, batch: Step, rules: Attention) -> mx.array:
        n_rows, half = qkv.shape[0], table.shape[2]
        end = (rules.n_heads + rules.n_kv_heads) * rules.head_dim
        heads = qkv[:, :end].reshape(n_rows, -1, rules.head_dim)
        a, b, rest = mx.split(heads, [half, 2 * half], axis=-1)
        rotation = batch.rotation(table)
        cos, sin = rotation[:, 0], rotation[:, 1]  # (T, 1, R / 2)
        rotated = mx.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)
        return mx.concatenate([rotated.reshape(n_rows, end), qkv[:, end:]], axis=1)

    def attend(
        self,
        qkv: mx.array,
        cache: Cache,
        batch: Step,
        rules: Attention,
        sinks: mx.array | None = None,
    ) -> mx.array:
        return attention.attend(qkv, cache, batch, rules, sinks)

    delta_net = staticmethod(delta.delta_net)
    activate = staticmethod(mixture.activate)
    mix_experts = staticmethod(mixture.mix_experts)

    def halves(self, x: mx.array) -> Any:
        return mx.split(x, 2, axis=-1)

    def route(
        self,
        x: mx.array,
        router: Weight,
        rules: Routing,
        bias: mx.array | None = None,
        correction: mx.array | None = None,
    ) -> tuple[mx.array, mx.array]:
        scores = router.exact_product(x)
        if bias is not None:
            scores = scores + bias
        return choose_experts(scores, rules, correction, mixture.CHOOSING)

    def to_numpy(self, x: mx.array) -> F32:
        return np.array(x.astype(mx.float32))

    def from_numpy(self, x: F32) -> mx.array:
        return mx.array(x)

    def _norm_parts(self, x: mx.array, w: mx.array, eps: float) -> mx.array:
        """Each stretch of w's length in the rows of x by itself."""
        return mx.fast.rms_norm(x.reshape(x.shape[0], -1, w.size), w, eps).reshape(x.shape)
