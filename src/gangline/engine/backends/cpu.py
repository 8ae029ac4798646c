"""The embedded back end: our C++ kernels on NumPy buffers.

Batching, chunking, thread count and vector path do not change a bit of its results. Every call
releases the GIL; the threads are one pool per process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import dense
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
from gangline.errors import CheckpointError, ProtocolError, UsageError

DENSE = ("f32", "f16", "bf16")
BITS = (4, 8)


class Cpu:
    """Implements `Operations`. `threads` counts the calling thread; `None` is one per core."""

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        try:
            self.path = _kernels.path()  # "scalar", "avx2", …
        except ValueError as error:
            raise UsageError(
                str(error),
                hint=f"Unset GANGLINE_CPU, or use one of {', '.join(_kernels.paths())}.",
            ) from error
        self.threads = (os.cpu_count() or 1) if threads is None else threads
        if _kernels.threads() != self.threads:
            _kernels.set_threads(self.threads)

    def weight(self, *parts: Tensor) -> _kernels.Weight:
        weight = _kernels.Weight()
        for part in parts:
            _add_part(weight, part)
        return weight

    def vector(self, *parts: Tensor) -> F32:
        return np.ascontiguousarray(np.concatenate([dense(part) for part in parts]), np.float32)

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> Any:
        raise _cannot("mixtures of experts")

    def head_weight(self, tensor: Tensor, n_heads: int) -> Any:
        raise _cannot("latent attention")

    def cache(
        self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16"
    ) -> _kernels.Cache:
        if rules.window or rules.soft_cap or rules.shared_values:
            raise _cannot("attention with a window, a soft cap or shared values")
        return _kernels.Cache(lanes, context, rules.n_kv_heads, rules.head_dim, dtype)

    def delta_state(self, lanes: int, rules: DeltaNet) -> Any:
        raise _cannot("linear attention")

    def batch(self, batch: Batch, lanes: int, context: int) -> _kernels.Batch:
        try:
            return _kernels.batch(
                np.ascontiguousarray(batch.slots, np.int32),
                np.ascontiguousarray(batch.starts, np.int32),
                np.ascontiguousarray(batch.counts, np.int32),
                lanes,
                context,
            )
        except ValueError as error:
            raise ProtocolError(str(error)) from error

    def table(self, tensor: Tensor) -> _kernels.Table:
        return _kernels.Table(*_arguments(tensor))

    def runner(self, layers: Layers) -> Callable[[F32, Any], F32]:
        return lambda x, batch: self.to_numpy(layers(self.from_numpy(x), batch))

    def embed(self, table: _kernels.Table, ids: I32, scale: float = 1.0) -> F32:
        y = np.empty((len(ids), table.k), np.float32)
        _kernels.embed(table, np.ascontiguousarray(ids, np.int32), y)
        if scale != 1:
            y *= np.float32(scale)
        return y

    def rms_norm(self, x: F32, w: F32, eps: float) -> F32:
        y = np.empty(x.shape, np.float32)
        _kernels.rms_norm(x, w, eps, y)
        return y

    def linear(self, x: F32, w: _kernels.Weight, bias: F32 | None = None) -> F32:
        y = np.empty((len(x), w.n), np.float32)
        _kernels.linear(x, w, bias, y, False)
        return y

    def layer_norm(self, x: F32, w: F32, eps: float) -> F32:
        raise _cannot("layer norms")

    def linear_add(self, x: F32, w: _kernels.Weight, residual: F32, bias: F32 | None = None) -> F32:
        _kernels.linear(x, w, bias, residual, True)
        return residual

    def linear_heads(self, x: F32, w: Any) -> F32:
        raise _cannot("latent attention")

    def add(self, residual: F32, x: F32, scale: float = 1.0) -> F32:
        residual[:] = residual + np.float64(np.float32(scale)) * x
        return residual

    def sigmoid_gate(self, x: F32, gate: F32) -> F32:
        raise _cannot("gates")

    def soft_cap(self, x: F32, cap: float) -> F32:
        raise _cannot("soft caps")

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
            heads = np.ascontiguousarray(rows).reshape(-1, len(w))
            rows[:] = self.rms_norm(heads, w, eps).reshape(rows.shape)
        return qkv

    def gated_norm(self, x: F32, gate: F32, w: F32, eps: float) -> F32:
        raise _cannot("linear attention")

    def rope_table(self, cos_sin: F32) -> F32:
        return np.ascontiguousarray(cos_sin, np.float32)

    def rope(self, qkv: F32, table: F32, batch: _kernels.Batch, rules: Attention) -> F32:
        if 2 * table.shape[2] != rules.head_dim:
            raise _cannot("heads that rotate in part")
        _kernels.rope(qkv, table, batch, rules.n_heads, rules.n_kv_heads)
        return qkv

    def attend(
        self,
        qkv: F32,
        cache: _kernels.Cache,
        batch: _kernels.Batch,
        rules: Attention,
        sinks: F32 | None = None,
    ) -> F32:
        if sinks is not None:
            raise _cannot("attention with sinks")
        out = np.empty((len(qkv), rules.n_heads * rules.value_dim), np.float32)
        _kernels.attend(qkv, cache, batch, rules.n_heads, rules.scale, out)
        return out

    def delta_net(
        self,
        mixed: F32,
        beta: F32,
        decay: F32,
        state: Any,
        batch: _kernels.Batch,
        rules: DeltaNet,
        convolution: F32,
        decay_log: F32,
        decay_bias: F32,
    ) -> F32:
        raise _cannot("linear attention")

    def gated_mlp(
        self,
        x: F32,
        gate_up: _kernels.Weight,
        down: _kernels.Weight,
        act: Activation,
        residual: F32 | None,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> F32:
        y = np.zeros((len(x), down.n), np.float32) if residual is None else residual
        _kernels.gated_mlp(x, gate_up, down, act, y, gate_up_bias, down_bias)
        return y

    def route(
        self,
        x: F32,
        router: _kernels.Weight,
        rules: Routing,
        bias: F32 | None = None,
        correction: F32 | None = None,
    ) -> tuple[I32, F32]:
        raise _cannot("mixtures of experts")

    def mixture(
        self,
        x: F32,
        experts: I32,
        weights: F32,
        gate_up: Any,
        down: Any,
        act: Activation,
        residual: F32 | None,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> F32:
        raise _cannot("mixtures of experts")

    def to_numpy(self, x: F32) -> F32:
        return x

    def from_numpy(self, x: F32) -> F32:
        if x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable:
            return x
        return np.array(x, np.float32, order="C")


def _cannot(what: str) -> CheckpointError:
    return CheckpointError(
        f"the back end `cpu` cannot run {what} yet", hint="Use the back end `reference`."
    )


def _add_part(weight: _kernels.Weight, tensor: Tensor) -> None:
    """Dense bytes are pointed at where they lie; quantized ones are repacked."""
    if tensor.quantized is None:
        weight.add_dense(*_arguments(tensor))
    else:
        weight.add_quantized(*_arguments(tensor))


def _arguments(tensor: Tensor) -> tuple[Any, ...]:
    """A matrix as the kernels take it: bytes, dtype, rows, columns, and its quantized form."""
    rows, columns = tensor.shape
    form = tensor.quantized
    if form is None:
        if tensor.dtype not in DENSE:
            raise CheckpointError(f"tensor `{tensor.name}` is {tensor.dtype}, expected floats")
        return _bytes(tensor), tensor.dtype, rows, columns
    if form.bits not in BITS:
        raise CheckpointError(
            f"tensor `{tensor.name}` has {form.bits} bits per weight, which cannot be run yet",
            hint="Use a conversion with 4 or 8 bits.",
        )
    assert tensor.scales is not None and tensor.offsets is not None, tensor.name
    return (
        _bytes(tensor),
        _bytes(tensor.scales),
        _bytes(tensor.offsets),
        tensor.scales.dtype,
        rows,
        columns,
        form.bits,
        form.group_size,
    )


def _bytes(tensor: Tensor) -> NDArray[Any]:
    return tensor.data.reshape(-1).view(np.uint8)
