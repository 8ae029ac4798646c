"""The operations on PyTorch tensors, on the best device that it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import layer_norm, rms_norm

from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.composed import Composed, choose_experts
from gangline.engine.backends.torch import attention, delta, mixture
from gangline.engine.backends.torch.attention import Cache, Step, step_of
from gangline.engine.backends.torch.delta import DeltaState
from gangline.engine.backends.torch.recorder import CudaGraphs, Recorder, to_numpy
from gangline.engine.backends.torch.weights import Loader, Matrix, Weight
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


def find_device() -> torch.device:
    """A GPU if there is one: CUDA (AMD's too), Intel's XPU, Apple's MPS; the CPU otherwise."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.xpu.is_available():
        return torch.device("xpu")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_title() -> str:
    """The name of that device as its driver spells it; "" for the CPU."""
    kind = find_device().type
    if kind == "cuda":
        return str(torch.cuda.get_device_name())
    if kind == "xpu":
        return str(torch.xpu.get_device_name())
    return "Metal" if kind == "mps" else ""


class Torch(Composed):
    """Implements `Operations`. "In place" makes a new tensor here: callers use what is returned.

    `threads` counts those of a CPU; `None` leaves them as they are.
    """

    name = "torch"

    def __init__(self, threads: int | None = None) -> None:
        self.device = find_device()
        if threads is not None:
            torch.set_num_threads(threads)
        # Sums of bf16 and f16 products stay float32 to the end.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._loader = Loader(self.device)
        self._gathers = self._loader.fused is None  # whether attention of any layer copies keys

    def weight(self, *parts: Tensor) -> Weight:
        return self._loader.weight(parts)

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> Matrix:
        return self._loader.experts(parts)

    def head_weight(self, tensor: Tensor, n_heads: int) -> torch.Tensor:
        values = self._loader.floats(tensor)  # (H N, K) -> (H, K, N)
        return values.unflatten(0, (n_heads, -1)).transpose(1, 2)

    def table(self, tensor: Tensor) -> Matrix:
        return self._loader.matrix(tensor)

    def vector(self, *parts: Tensor) -> torch.Tensor:
        return torch.cat([self._loader.floats(part).float() for part in parts])

    def cache(self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16") -> Cache:
        fused = self._loader.fused
        self._gathers |= fused is None or not fused.attends(rules)
        return Cache(lanes, context, rules, dtype, self.device)

    def delta_state(self, lanes: int, rules: DeltaNet) -> DeltaState:
        return DeltaState(lanes, rules, self.device)

    def rope_table(self, cos_sin: F32) -> torch.Tensor:
        return self.from_numpy(cos_sin)

    def batch(self, batch: Batch, lanes: int, context: int) -> Step:
        checked = self.checked(batch, lanes, context)
        return step_of(checked, context, self.device, by_length=self._gathers)

    def runner(self, layers: Layers) -> Callable[[F32, Any], F32]:
        graphs = CudaGraphs(self.device) if self.device.type == "cuda" else None
        return Recorder(layers, self.device, graphs)

    def embed(self, table: Matrix, ids: I32, scale: float = 1.0) -> torch.Tensor:
        rows = table.at(attention.indices(ids, self.device), torch.float32)
        return rows if scale == 1.0 else rows * scale

    def rms_norm(self, x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
        return rms_norm(x, w.shape, w, eps)

    def layer_norm(self, x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
        return layer_norm(x, w.shape, w, None, eps)

    def linear_heads(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(1, (w.shape[0], -1)).transpose(0, 1).to(w.dtype)  # (H, T, K)
        return (heads @ w).transpose(0, 1).flatten(1).float()

    def add(self, residual: torch.Tensor, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return torch.add(residual, x, alpha=scale)

    def sigmoid_gate(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(gate)

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        return cap * torch.tanh(x / cap)

    def split(
        self, x: torch.Tensor, widths: Sequence[int], n_heads: int = 1
    ) -> tuple[torch.Tensor, ...]:
        heads = x.unflatten(1, (n_heads, -1))
        return tuple(part.flatten(1) for part in heads.split(list(widths), -1))

    def join(self, parts: Sequence[torch.Tensor], n_heads: int = 1) -> torch.Tensor:
        return torch.cat([part.unflatten(1, (n_heads, -1)) for part in parts], -1).flatten(1)

    def head_norm(
        self, qkv: torch.Tensor, q: torch.Tensor, k: torch.Tensor, rules: Attention, eps: float
    ) -> torch.Tensor:
        n_queries, n_keys = rules.n_heads * rules.head_dim, rules.n_kv_heads * rules.head_dim
        queries, keys, values = qkv.split([n_queries, n_keys, qkv.shape[1] - n_queries - n_keys], 1)
        normed = [self._norm_parts(queries, q, eps), self._norm_parts(keys, k, eps)]
        return torch.cat([*normed, values], 1)

    def gated_norm(
        self, x: torch.Tensor, gate: torch.Tensor, w: torch.Tensor, eps: float
    ) -> torch.Tensor:
        return self._norm_parts(x, w, eps) * torch.nn.functional.silu(gate)

    def rope(
        self, qkv: torch.Tensor, table: torch.Tensor, batch: Step, rules: Attention
    ) -> torch.Tensor:
        half = table.shape[2]
        end = (rules.n_heads + rules.n_kv_heads) * rules.head_dim
        heads = qkv[:, :end].unflatten(1, (-1, rules.head_dim))
        a, b, rest = heads.split([half, half, rules.head_dim - 2 * half], -1)
        rotation = batch.rotation(table)
        cos, sin = rotation[:, 0], rotation[:, 1]  # (T, 1, R / 2)
        rotated = torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)
        return torch.cat([rotated.flatten(1), qkv[:, end:]], 1)

    def attend(
        self,
        qkv: torch.Tensor,
        cache: Cache,
        batch: Step,
        rules: Attention,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return attention.attend(qkv, cache, batch, rules, sinks, self._loader.fused)

    delta_net = staticmethod(delta.delta_net)
    activate = staticmethod(mixture.activate)
    mix_experts = staticmethod(mixture.mix_experts)

    def halves(self, x: torch.Tensor) -> Any:
        return x.chunk(2, -1)

    def route(
        self,
        x: torch.Tensor,
        router: Weight,
        rules: Routing,
        bias: torch.Tensor | None = None,
        correction: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scores = router.exact_product(x)
        if bias is not None:
            scores = scores + bias
        return choose_experts(scores, rules, correction, mixture.CHOOSING)

    def to_numpy(self, x: torch.Tensor) -> F32:
        return to_numpy(x)

    def from_numpy(self, x: F32) -> torch.Tensor:
        return torch.from_numpy(np.array(x, np.float32)).to(self.device)

    def _norm_parts(self, x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
        """Each stretch of w's length in the rows of x by itself."""
        return rms_norm(x.unflatten(1, (-1, len(w))), w.shape, w, eps).flatten(1)
