"""A span of a model's layers, ready to run: weights, caches, and what comes before and behind.

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
from gangline.engine.layers.block import Block, Norm, load_block, load_norm
from gangline.engine.loader import OUTPUTS, Loader, Memory, Rows
from gangline.engine.operations import F32, I32, Batch, CacheDtype, Operations
from gangline.errors import ContextTooLong, ProtocolError, UsageError
from gangline.facts import Span

Progress = Callable[[float], None]


class Head(msgspec.Struct, frozen=True):
    """What turns tokens into hidden states and back."""

    embedding: Any  # (V, D)
    final_norm: Norm
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
        loader = Loader(checkpoint, operations, Memory(lanes, context, cache_dtype))
        n_parts = len(span) + int(head)
        self._head = _load_head(loader) if head else None
        if head:
            progress(1 / n_parts)
        self._layers: list[Block] = []
        for number in range(span.start, span.end):
            self._layers.append(load_block(loader, number, shape.layers[number]))
            progress((len(self._layers) + int(head)) / n_parts)
        self._run = operations.runner(self._run_layers)
        self._run_to_last_mlp = operations.runner(self._run_layers_to_last_mlp)
        self.weight_bytes = loader.n_bytes
        per_token = sum(shape.cache_bytes_per_token(cache_dtype)[span.start : span.end])
        per_lane = sum(shape.state_bytes_per_lane()[span.start : span.end])
        self.cache_bytes = lanes * (context * per_token + per_lane)

    def embed(self, ids: I32) -> F32:
        """ids (T,) -> (T, D)."""
        assert self._head is not None, "only the head embeds"
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape.vocab:
            wrong = next(int(id) for id in ids if not 0 <= id < self.shape.vocab)
            raise UsageError(f"token id {wrong}, the vocabulary has {self.shape.vocab}")
        ops = self.operations
        return ops.to_numpy(ops.embed(self._head.embedding, ids, self.shape.embedding_scale))

    def forward(self, x: F32, batch: Batch, wanted: I32 | None = None) -> F32:
        """Run the span's layers over x (T, D); x may be used as the result's memory.

        With `wanted`, rows (n,) of the result are returned alone, (n, D): what the last layer
        makes of the others, whose keys and values it keeps, is nobody's to read.
        `ProtocolError` where x and batch do not fit each other or this stage's cache.
        """
        if x.ndim != 2 or x.shape[1] != self.shape.hidden:
            raise ProtocolError(f"hidden states {x.shape}, expected (rows, {self.shape.hidden})")
        ops = self.operations
        prepared = ops.batch(batch, self.lanes, self.context)
        n_rows = int(batch.counts.sum())
        if n_rows != len(x):
            raise ProtocolError(f"{len(x)} rows of hidden states for a batch of {n_rows}")
        if wanted is None or len(wanted) == n_rows:
            return self._run(x, prepared)
        if not (self._layers and self._layers[-1].halves_are_apart):
            return np.ascontiguousarray(self._run(x, prepared)[wanted])
        rows = np.ascontiguousarray(self._run_to_last_mlp(x, prepared)[wanted])
        if not len(rows):
            return rows
        return ops.to_numpy(self._layers[-1].run_mlp(ops, ops.from_numpy(rows)))

    def logits(self, x: F32) -> F32:
        """x (T, D) behind the last layer -> (T, V)."""
        assert self._head is not None, "only the head has the output matrix"
        ops = self.operations
        final = self._head.final_norm.run(ops, ops.from_numpy(np.ascontiguousarray(x, np.float32)))
        logits = ops.linear(final, self._head.output)
        if self.shape.logit_cap:
            logits = ops.soft_cap(logits, self.shape.logit_cap)
        return ops.to_numpy(logits)

    def _run_layers(self, residual: Any, batch: Any) -> Any:
        for layer in self._layers:
            residual = layer.run(self.operations, residual, batch)
        return residual

    def _run_layers_to_last_mlp(self, residual: Any, batch: Any) -> Any:
        for layer in self._layers[:-1]:
            residual = layer.run(self.operations, residual, batch)
        return self._layers[-1].run_attention(self.operations, residual, batch)


def _load_head(loader: Loader) -> Head:
    shape, ops = loader.shape, loader.operations
    embedding = loader.tensor(f"{loader.root}embed_tokens.weight", (shape.vocab, shape.hidden))
    if shape.tied:
        output = ops.weight(embedding)
        loader.forget(embedding)
    else:
        module = next((name for name in OUTPUTS if f"{name}.weight" in loader), OUTPUTS[0])
        output = loader.matrix(Rows(module, shape.vocab), columns=shape.hidden)
    # The scale of the logits is in the norm before them.
    final_norm = load_norm(loader, f"{loader.root}norm", shape.logit_scale)
    return Head(ops.table(embedding), final_norm, output)


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
