"""The embedded back end: our C++ kernels on NumPy buffers.

Batching, chunking, thread count and vector path do not change a bit of its results. Every call
releases the GIL; the threads are one pool per process.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import dense
from gangline.engine.operations import F32, I32, Activation, Batch, CacheDtype
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
        # The tensor that was packed alone last, and its weight: it may be an embedding too.
        self._packed: tuple[ref[Tensor], ref[_kernels.Weight]] | None = None

    def weight(self, *parts: Tensor) -> _kernels.Weight:
        weight = _kernels.Weight()
        for part in parts:
            _add_part(weight, part)
        if len(parts) == 1 and parts[0].quantized is not None:
            self._packed = ref(parts[0]), ref(weight)
        return weight

    def vector(self, *parts: Tensor) -> F32:
        return np.ascontiguousarray(np.concatenate([dense(part) for part in parts]), np.float32)

    def cache(
        self,
        lanes: int,
        context: int,
        n_kv_heads: int,
        head_dim: int,
        dtype: CacheDtype = "f16",
    ) -> _kernels.Cache:
        return _kernels.Cache(lanes, context, n_kv_heads, head_dim, dtype)

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

    def embed(self, table: _kernels.Table, ids: I32) -> F32:
        y = np.empty((len(ids), table.k), np.float32)
        _kernels.embed(table, np.ascontiguousarray(ids, np.int32), y)
        return y

    def rms_norm(self, x: F32, w: F32, eps: float) -> F32:
        y = np.empty(x.shape, np.float32)
        _kernels.rms_norm(x, w, eps, y)
        return y

    def linear(self, x: F32, w: _kernels.Weight, bias: F32 | None = None) -> F32:
        y = np.empty((len(x), w.n), np.float32)
        _kernels.linear(x, w, bias, y, False)
        return y

    def linear_add(
        self, x: F32, w: _kernels.Weight, residual: F32, bias: F32 | None = None
    ) -> None:
        _kernels.linear(x, w, bias, residual, True)

    def rope_table(self, cos_sin: F32) -> F32:
        return np.ascontiguousarray(cos_sin, np.float32)

    def rope(
        self, qkv: F32, table: F32, batch: _kernels.Batch, n_heads: int, n_kv_heads: int
    ) -> None:
        _kernels.rope(qkv, table, batch, n_heads, n_kv_heads)

    def attend(
        self, qkv: F32, cache: _kernels.Cache, batch: _kernels.Batch, n_heads: int, scale: float
    ) -> F32:
        out = np.empty((len(qkv), n_heads * cache.head_dim), np.float32)
        _kernels.attend(qkv, cache, batch, n_heads, scale, out)
        return out

    def gated_mlp(
        self,
        x: F32,
        gate_up: _kernels.Weight,
        down: _kernels.Weight,
        act: Activation,
        residual: F32,
        gate_up_bias: F32 | None = None,
        down_bias: F32 | None = None,
    ) -> None:
        _kernels.gated_mlp(x, gate_up, down, act, residual, gate_up_bias, down_bias)

    def to_numpy(self, x: F32) -> F32:
        return x

    def from_numpy(self, x: F32) -> F32:
        if x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable:
            return x
        return np.array(x, np.float32, order="C")


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
