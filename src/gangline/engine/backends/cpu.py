"""The embedded back end: our C++ kernels on NumPy buffers.

Batching, chunking, thread count and vector path do not change a bit of its results. Every call
releases the GIL; the threads are one pool per process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import BITS, cannot_run_bits, dense
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
        # The tensor that was packed alone last, and its weight: it may be an embedding too.
        self._packed: tuple[ref[Tensor], ref[_kernels.Weight]] | None = None

    def weight(self, *parts: Tensor) -> _kernels.Weight:
        weight = _kernels.Weight()
        for part in parts:
            if part.quantized is None:  # pointed at where it lies
                weight.add_dense(*_arguments(part))
            else:  # repacked
                weight.add_quantized(*_arguments(part))
        if len(parts) == 1 and parts[0].quantized is not None:
            self._packed = ref(parts[0]), ref(weight)
        return weight

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> _kernels.Experts:
        experts = _kernels.Experts(len(parts))
        for number, of_one in enumerate(parts):
            for part in of_one:
                if part.quantized is None:
                    experts.add_dense(number, *_arguments(part))
                else:
                    experts.add_quantized(number, *_arguments(part))
        experts.finish()
        return experts

    def vector(self, *parts: Tensor) -> F32:
        return np.ascontiguousarray(np.concatenate([dense(part) for part in parts]), np.float32)

    def head_weight(self, tensor: Tensor, n_heads: int) -> _kernels.Heads:
        if tensor.quantized is not None:
            tensor = Tensor(tensor.name, "f32", tensor.shape, dense(tensor))
        data, dtype, rows, columns = _arguments(tensor)
        return _kernels.Heads(data, dtype, rows, columns, n_heads)

    def cache(
        self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16"
    ) -> _kernels.Cache:
        return _kernels.Cache(
            lanes,
            context,
            rules.n_kv_heads,
            rules.head_dim,
            rules.value_dim,
            rules.shared_values,
            dtype,
        )

    def delta_state(self, lanes: int, rules: DeltaNet) -> _kernels.DeltaState:
        return _kernels.DeltaState(
            lanes,
            rules.n_key_heads,
            rules.n_value_heads,
            rules.key_dim,
            rules.value_dim,
            rules.kernel,
        )

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
        """Where the same tensor is a weight, rows are read from its packed form.

        The file's pages would come back into memory with every prompt otherwise, 16 at a time.
        """
        if self._packed is not None:
            packed, weight = self._packed[0](), self._packed[1]()
            if packed is tensor and weight is not None:
                return _kernels.Table(weight)
        return _kernels.Table(*_arguments(tensor))

    def runner(self, layers: Layers) -> Callable[[F32, Any], F32]:
        return lambda x, batch: self.to_numpy(layers(self.from_numpy(x), batch))

    def embed(self, table: _kernels.Table, ids: I32, scale: float = 1.0) -> F32:
        y = np.empty((len(ids), table.k), np.float32)
        _kernels.embed(table, np.ascontiguousarray(ids, np.int32), scale, y)
        return y

    def rms_norm(self, x: F32, w: F32, eps: float) -> F32:
        y = np.empty(x.shape, np.float32)
        _kernels.rms_norm(_rows(x), w, eps, _rows(y))
        return y

    def layer_norm(self, x: F32, w: F32, eps: float) -> F32:
        y = np.empty(x.shape, np.float32)
        _kernels.layer_norm(_rows(x), w, eps, _rows(y))
        return y

    def linear(self, x: F32, w: _kernels.Weight, bias: F32 | None = None) -> F32:
        y = np.empty((len(x), w.n), np.float32)
        _kernels.linear(x, w, bias, y, False)
        return y

    def linear_add(self, x: F32, w: _kernels.Weight, residual: F32, bias: F32 | None = None) -> F32:
        _kernels.linear(x, w, bias, residual, True)
        return residual

    def linear_heads(self, x: F32, w: _kernels.Heads) -> F32:
        y = np.empty((len(x), w.n), np.float32)
        _kernels.linear_heads(x, w, y)
        return y

    def add(self, residual: F32, x: F32, scale: float = 1.0) -> F32:
        _kernels.add(residual, x, scale)
        return residual

    def sigmoid_gate(self, x: F32, gate: F32) -> F32:
        _kernels.sigmoid_gate(x, gate)
        return x

    def soft_cap(self, x: F32, cap: float) -> F32:
        _kernels.soft_cap(x, cap)
        return x

    def split(self, x: F32, widths: Sequence[int], n_heads: int = 1) -> tuple[F32, ...]:
        heads = x.reshape(len(x), n_heads, sum(widths))
        ends = np.cumsum(widths)
        parts = (heads[:, :, end - width : end] for width, end in zip(widths, ends, strict=True))
        return tuple(part.copy().reshape(len(x), -1) for part in parts)

    def join(self, parts: Sequence[F32], n_heads: int = 1) -> F32:
        heads = [part.reshape(len(part), n_heads, -1) for part in parts]
        return np.concatenate(heads, axis=2).reshape(len(parts[0]), -1)

    def head_norm(self, qkv: F32, q: F32, k: F32, rules: Attention, eps: float) -> F32:
        _kernels.head_norm(qkv, q, k, rules.n_heads, rules.n_kv_heads, rules.head_dim, eps)
        return qkv

    def gated_norm(self, x: F32, gate: F32, w: F32, eps: float) -> F32:
        _kernels.gated_norm(x, gate, w, eps)
        return x

    def rope_table(self, cos_sin: F32) -> F32:
        return np.ascontiguousarray(cos_sin, np.float32)

    def rope(self, qkv: F32, table: F32, batch: _kernels.Batch, rules: Attention) -> F32:
        _kernels.rope(qkv, table, batch, rules.n_heads, rules.n_kv_heads, rules.head_dim)
        return qkv

    def attend(
        self,
        qkv: F32,
        cache: _kernels.Cache,
        batch: _kernels.Batch,
        rules: Attention,
        sinks: F32 | None = None,
    ) -> F32:
        out = np.empty((len(qkv), rules.n_heads * rules.value_dim), np.float32)
        _kernels.attend(
            qkv,
            cache,
            batch,
            rules.n_heads,
            rules.scale,
            rules.window,
            rules.soft_cap,
            sinks,
            out,
        )
        return out

    def delta_net(
        self,
        mixed: F32,
        beta: F32,
        decay: F32,
        state: _kernels.DeltaState,
        batch: _kernels.Batch,
        rules: DeltaNet,
        convolution: F32,
        decay_log: F32,
        decay_bias: F32,
    ) -> F32:
        out = np.empty((len(mixed), rules.n_value_heads * rules.value_dim), np.float32)
        _kernels.delta_net(
            mixed, beta, decay, state, batch, convolution, decay_log, decay_bias, out
        )
        return out

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
        y = np.empty((len(x), down.n), np.float32) if residual is None else residual
        add = residual is not None
        _kernels.gated_mlp(x, gate_up, down, act, y, add, gate_up_bias, down_bias)
        return y

    def route(
        self,
        x: F32,
        router: _kernels.Weight,
        rules: Routing,
        bias: F32 | None = None,
        correction: F32 | None = None,
    ) -> tuple[I32, F32]:
        experts = np.empty((len(x), rules.n_active), np.int32)
        weights = np.empty((len(x), rules.n_active), np.float32)
        _kernels.route(
            x,
            router,
            rules.scoring,
            rules.renormalize,
            rules.scale,
            rules.n_groups,
            rules.n_active_groups,
            bias,
            correction,
            experts,
            weights,
        )
        return experts, weights

    def mixture(
        self,
        x: F32,
        experts: I32,
        weights: F32,
        gate_up: _kernels.Experts,
        down: _kernels.Experts,
        act: Activation,
        residual: F32 | None,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> F32:
        y = np.zeros((len(x), down.n), np.float32) if residual is None else residual
        _kernels.mixture(x, experts, weights, gate_up, down, act, y, gate_up_bias, down_bias)
        return y

    def to_numpy(self, x: F32) -> F32:
        return x

    def from_numpy(self, x: F32) -> F32:
        if x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable:
            return x
        return np.array(x, np.float32, order="C")


def _rows(x: F32) -> F32:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _arguments(tensor: Tensor) -> tuple[Any, ...]:
    """A matrix as the kernels take it: bytes, dtype, rows, columns, and its quantized form."""
    rows, columns = tensor.shape
    form = tensor.quantized
    if form is None:
        if tensor.dtype not in DENSE:
            raise CheckpointError(f"tensor `{tensor.name}` is {tensor.dtype}, expected floats")
        return _bytes(tensor), tensor.dtype, rows, columns
    if form.bits not in BITS:
        raise cannot_run_bits(tensor.name, form.bits)
    scales, offsets = tensor.scales, tensor.offsets
    assert scales is not None and offsets is not None, tensor.name
    if scales.dtype != offsets.dtype:  # what holds both without loss
        scales, offsets = (
            Tensor(part.name, "f32", part.shape, dense(part)) for part in (scales, offsets)
        )
    return (
        _bytes(tensor),
        _bytes(scales),
        _bytes(offsets),
        scales.dtype,
        rows,
        columns,
        form.bits,
        form.group_size,
    )


def _bytes(tensor: Tensor) -> NDArray[Any]:
    return tensor.data.reshape(-1).view(np.uint8)
