"""A span of a model's layers, ready to run: weights, KV cache, and the block as operations.

Works for every family and back end, and mentions none by name. Knows no network: hidden states
come and go as float32 arrays (T, D), and `Batch` says which row belongs to which sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from gangline.checkpoint.model import Checkpoint
from gangline.checkpoint.shape import ModelShape
from gangline.checkpoint.tensors import Tensor
from gangline.engine.families import FAMILIES, Family
from gangline.engine.operations import F32, I32, Batch, CacheDtype, Operations
from gangline.engine.rope import cos_sin
from gangline.errors import CheckpointError, ContextTooLong, ProtocolError, UsageError
from gangline.facts import Span

Progress = Callable[[float], None]


class Layer(msgspec.Struct, frozen=True):
    """One layer's weights and cache, in the back end's own form; a missing bias is `None`."""

    attention_norm: Any  # (D,)
    qkv: Any  # ((H + 2 KV) Dh, D)
    qkv_bias: Any | None
    attention_output: Any  # (D, H Dh)
    attention_output_bias: Any | None
    mlp_norm: Any  # (D,)
    gate_up: Any  # (2 F, D)
    gate_up_bias: Any | None
    down: Any  # (D, F)
    down_bias: Any | None
    cache: Any


class Head(msgspec.Struct, frozen=True):
    """What turns tokens into hidden states and back."""

    embedding: Any  # (V, D)
    final_norm: Any  # (D,)
    output: Any  # (V, D); the embedding itself where they are tied


class Decoder:
    """Layers `span` of a checkpoint; with `head`, embedding and output matrix too.

    A head may have an empty span. `lanes` sequences of up to `context` tokens fit into the cache.
    A cache of `f16` holds keys and values rounded to half precision, as is usual; `f32` keeps them.
    `progress` is called with fractions from 0 to 1 while weights are loaded.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        operations: Operations,
        span: Span,
        *,
        head: bool,
        context: int,
        lanes: int,
        cache_dtype: CacheDtype = "f16",
        progress: Progress = lambda fraction: None,
    ) -> None:
        shape = checkpoint.shape
        _check(shape, span, context, lanes)
        self.shape = shape
        self.operations = operations
        self.span = span
        self.context = context
        self.lanes = lanes
        self._scale = shape.head_dim**-0.5
        loader = _Loader(checkpoint, operations)
        n_parts = len(span) + int(head)
        self._head = loader.head() if head else None
        if head:
            progress(1 / n_parts)
        self._layers: list[Layer] = []
        for layer in range(span.start, span.end):
            cache = operations.cache(lanes, context, shape.n_kv_heads, shape.head_dim, cache_dtype)
            self._layers.append(loader.layer(layer, cache))
            progress((len(self._layers) + int(head)) / n_parts)
        table = cos_sin(context, shape.head_dim, shape.rope_theta, shape.rope_scaling)
        self._rope = operations.rope_table(table)
        self.weight_bytes = loader.n_bytes
        per_token = shape.cache_bytes_per_token(len(span), cache_dtype)
        self.cache_bytes = lanes * context * per_token

    def embed(self, ids: I32) -> F32:
        """ids (T,) -> (T, D)."""
        assert self._head is not None, "only the head embeds"
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape.vocab:
            wrong = next(int(id) for id in ids if not 0 <= id < self.shape.vocab)
            raise UsageError(f"token id {wrong}, the vocabulary has {self.shape.vocab}")
        ops = self.operations
        return ops.to_numpy(ops.embed(self._head.embedding, ids))

    def forward(self, x: F32, batch: Batch) -> F32:
        """Run the span's layers over x (T, D); x may be used as the result's memory.

        `ProtocolError` where x and batch do not fit each other or this stage's cache.
        """
        if x.ndim != 2 or x.shape[1] != self.shape.hidden:
            raise ProtocolError(f"hidden states {x.shape}, expected (rows, {self.shape.hidden})")
        ops = self.operations
        prepared = ops.batch(batch, self.lanes, self.context)
        n_rows = int(batch.counts.sum())
        if n_rows != len(x):
            raise ProtocolError(f"{len(x)} rows of hidden states for a batch of {n_rows}")
        residual = ops.from_numpy(x)
        for layer in self._layers:
            self._run_layer(layer, residual, prepared)
        return ops.to_numpy(residual)

    def logits(self, x: F32, rows: I32) -> F32:
        """Logits (n, V) of `rows` (n,) of the last layer's x (T, D)."""
        assert self._head is not None, "only the head has the output matrix"
        ops = self.operations
        chosen = ops.from_numpy(np.ascontiguousarray(x[rows], np.float32))
        normed = ops.rms_norm(chosen, self._head.final_norm, self.shape.norm_eps)
        return ops.to_numpy(ops.linear(normed, self._head.output))

    def _run_layer(self, layer: Layer, residual: Any, batch: Any) -> None:
        ops, shape = self.operations, self.shape
        x = ops.rms_norm(residual, layer.attention_norm, shape.norm_eps)
        qkv = ops.linear(x, layer.qkv, layer.qkv_bias)
        ops.rope(qkv, self._rope, batch, shape.n_heads, shape.n_kv_heads)
        x = ops.attend(qkv, layer.cache, batch, shape.n_heads, self._scale)
        ops.linear_add(x, layer.attention_output, residual, layer.attention_output_bias)
        x = ops.rms_norm(residual, layer.mlp_norm, shape.norm_eps)
        ops.gated_mlp(
            x,
            layer.gate_up,
            layer.down,
            shape.activation,
            residual,
            layer.gate_up_bias,
            layer.down_bias,
        )


class _Loader:
    """Takes a family's tensors from a checkpoint, checks their shapes, hands them to a back end."""

    def __init__(self, checkpoint: Checkpoint, operations: Operations) -> None:
        self.checkpoint = checkpoint
        self.shape = checkpoint.shape
        self.operations = operations
        self.family: Family = FAMILIES[checkpoint.shape.family]
        self.n_bytes = 0  # of weights, as they lie in the files

    def head(self) -> Head:
        family, shape = self.family, self.shape
        embedding = self._tensor(f"{family.embedding}.weight", (shape.vocab, shape.hidden))
        if shape.tied:
            output = self._weight(embedding)
        else:
            output = self._matrix((family.output, shape.vocab), columns=shape.hidden)
        return Head(self.operations.table(embedding), self._norm(family.final_norm), output)

    def layer(self, layer: int, cache: Any) -> Layer:
        family, shape = self.family, self.shape
        q_rows, kv_rows = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim

        def at(module: str) -> str:
            return module.format(layer=layer)

        qkv = (at(family.query), q_rows), (at(family.key), kv_rows), (at(family.value), kv_rows)
        gate_up = (at(family.gate), shape.ffn), (at(family.up), shape.ffn)
        attention_output = (at(family.attention_output), shape.hidden)
        down = (at(family.down), shape.hidden)
        return Layer(
            attention_norm=self._norm(at(family.attention_norm)),
            qkv=self._matrix(*qkv, columns=shape.hidden),
            qkv_bias=self._bias(*qkv),
            attention_output=self._matrix(attention_output, columns=q_rows),
            attention_output_bias=self._bias(attention_output),
            mlp_norm=self._norm(at(family.mlp_norm)),
            gate_up=self._matrix(*gate_up, columns=shape.hidden),
            gate_up_bias=self._bias(*gate_up),
            down=self._matrix(down, columns=shape.ffn),
            down_bias=self._bias(down),
            cache=cache,
        )

    def _matrix(self, *modules: tuple[str, int], columns: int) -> Any:
        """Modules of (name, rows), stacked."""
        parts = [self._tensor(f"{name}.weight", (rows, columns)) for name, rows in modules]
        return self._weight(*parts)

    def _weight(self, *parts: Tensor) -> Any:
        """A weight; back ends repack quantized tensors, so their pages are not needed again."""
        weight = self.operations.weight(*parts)
        for part in parts:
            if part.quantized is not None:
                self.checkpoint.forget(part)
        return weight

    def _norm(self, module: str) -> Any:
        return self.operations.vector(self._tensor(f"{module}.weight", (self.shape.hidden,)))

    def _bias(self, *modules: tuple[str, int]) -> Any | None:
        """The stacked biases of modules; `None` where the checkpoint has none of them."""
        names = [f"{name}.bias" for name, _ in modules]
        if not any(name in self.checkpoint for name in names):
            return None
        parts = [self._tensor(f"{name}.bias", (rows,)) for name, rows in modules]
        return self.operations.vector(*parts)

    def _tensor(self, name: str, expected: tuple[int, ...]) -> Tensor:
        tensor = self.checkpoint.tensor(name)
        if tensor.shape != expected:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor `{name}` has shape {list(tensor.shape)}, "
                f"config.json needs {list(expected)}",
                hint="config.json and the weights belong to different models.",
            )
        self.n_bytes += tensor.n_bytes
        return tensor


def _check(shape: ModelShape, span: Span, context: int, lanes: int) -> None:
    if not 0 <= span.start <= span.end <= shape.n_layers:
        raise UsageError(f"layers [{span.start}, {span.end}) of a model that has {shape.n_layers}")
    if not 1 <= context <= shape.context:
        raise ContextTooLong(
            f"a context of {context} tokens, the model was made for up to {shape.context}",
            hint=f"Load it with a context from 1 to {shape.context}.",
            param="context",
        )
    if lanes < 1:
        raise UsageError(f"{lanes} lanes, expected at least 1", param="lanes")
