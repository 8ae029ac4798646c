"""Latent attention in the form in which heads share one key and value per token.

A head's key is `up_k latent`, its value `up_v latent`; since q (up_k latent) = (up_k^T q) latent,
queries are multiplied by up_k^T, results by up_v, and the cache holds the latent alone
(https://arxiv.org/abs/2405.04434, section 2.1.2).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import Attention, LatentAttention
from gangline.checkpoint.tensors import DType, Tensor
from gangline.engine.backends.reference import dense
from gangline.engine.layers.project import Projection, load_projection
from gangline.engine.loader import Loader, Rows, rotating_rows
from gangline.engine.operations import Operations

NORM_EPS = 1e-6  # of the norms between the two matrices, whatever the config says of others


class CachedLatent(msgspec.Struct, frozen=True):
    """One layer's latent attention: L numbers of the latent, P plain and R rotating of a query."""

    shape: LatentAttention
    down: Any  # (Q + L + R, D): queries or what they are made of, latent, rotating key
    down_bias: Any | None
    query_norm: Any | None  # (Q,); None: queries come from `down`
    query_up: Any | None  # (H (P + R), Q)
    latent_norm: Any  # (L,)
    into_latent: Any  # H x (L, P)
    out_of_latent: Any  # H x (Dv, L)
    rope: Any
    cache: Any
    output: Projection

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual + what attention makes of it."""
        shape = self.shape
        n_heads, turning = shape.n_heads, shape.rope.dim
        first = shape.query_rank or n_heads * (shape.plain_dim + turning)
        rows = ops.linear(x, self.down, self.down_bias)
        queries, latent, key = ops.split(rows, (first, shape.latent, turning))
        if self.query_up is not None:
            queries = ops.rms_norm(queries, self.query_norm, NORM_EPS)
            queries = ops.linear(queries, self.query_up)
        plain, rotating = ops.split(queries, (shape.plain_dim, turning), n_heads)
        rotating, key = self._rotate(ops, rotating, key, batch)
        plain = ops.linear_heads(plain, self.into_latent)  # (T, H L)
        latent = ops.rms_norm(latent, self.latent_norm, NORM_EPS)
        rows = ops.join((ops.join((plain, rotating), n_heads), latent, key))
        y = ops.attend(rows, self.cache, batch, shape.rules)  # (T, H L)
        return self.output.run(ops, ops.linear_heads(y, self.out_of_latent), residual)

    def _rotate(self, ops: Operations, queries: Any, key: Any, batch: Any) -> tuple[Any, ...]:
        """Queries (T, H R) and the one key (T, R)."""
        n_heads, turning = self.shape.n_heads, self.shape.rope.dim
        rules = Attention(n_heads, 1, turning, turning, 1.0, shared_values=True)
        rows = ops.rope(ops.join((queries, key)), self.rope, batch, rules)
        return ops.split(rows, (n_heads * turning, turning))


def load_latent(loader: Loader, at: str, shape: LatentAttention) -> CachedLatent:
    """The tensors whose names begin with `at`."""
    at += "self_attn."
    hidden, n_heads, rank = loader.shape.hidden, shape.n_heads, shape.query_rank
    head_dim = shape.plain_dim + shape.rope.dim
    in_query = rotating_rows(n_heads, head_dim, shape.rope, start=shape.plain_dim)
    n_latent = shape.latent + shape.rope.dim
    in_latent = rotating_rows(1, n_latent, shape.rope, start=shape.latent)
    latent = Rows(f"{at}kv_a_proj_with_mqa", n_latent, in_latent)
    query_norm = query_up = None
    if rank:
        down = Rows(f"{at}q_a_proj", rank), latent
        query_norm = loader.norm(f"{at}q_a_layernorm", rank)
        query_up = loader.matrix(Rows(f"{at}q_b_proj", n_heads * head_dim, in_query), columns=rank)
    else:
        down = Rows(f"{at}q_proj", n_heads * head_dim, in_query), latent
    into, out_of = _load_ups(loader, at, shape)
    return CachedLatent(
        shape=shape,
        down=loader.matrix(*down, columns=hidden),
        down_bias=loader.bias(*down),
        query_norm=query_norm,
        query_up=query_up,
        latent_norm=loader.norm(f"{at}kv_a_layernorm", shape.latent),
        into_latent=into,
        out_of_latent=out_of,
        rope=loader.rope_table(shape.rope),
        cache=loader.cache(shape.rules),
        output=load_projection(loader, f"{at}o_proj", n_heads * shape.value_dim),
    )


def _load_ups(loader: Loader, at: str, shape: LatentAttention) -> tuple[Any, Any]:
    """`into_latent` and `out_of_latent`, both dense.

    Most checkpoints have one matrix in which a head's rows are its up_k, then its up_v; up_k is
    needed transposed. MLX's newer ones have the two as they are needed.
    """
    n_heads, plain, latent, value = shape.n_heads, shape.plain_dim, shape.latent, shape.value_dim
    if f"{at}embed_q.weight" in loader:
        into = loader.tensor(f"{at}embed_q.weight", (n_heads, latent, plain))
        out_of = loader.tensor(f"{at}unembed_out.weight", (n_heads, value, latent))
        parts = [(tensor, *_values(tensor)) for tensor in (into, out_of)]
    else:
        both = loader.tensor(f"{at}kv_b_proj.weight", (n_heads * (plain + value), latent))
        dtype, values = _values(both)
        heads = values.reshape(n_heads, plain + value, latent)
        up_k, up_v = np.split(heads, [plain], axis=1)
        parts = [(both, dtype, up_k.transpose(0, 2, 1)), (both, dtype, up_v)]
    ups = []
    for source, dtype, heads in parts:
        rows = np.ascontiguousarray(heads).reshape(-1, heads.shape[2])
        tensor = Tensor(source.name, dtype, rows.shape, rows)
        ups.append(loader.operations.head_weight(tensor, n_heads))
        loader.forget(source)
    return ups[0], ups[1]


def _values(tensor: Tensor) -> tuple[DType, NDArray[Any]]:
    """A tensor's numbers: as they lie there, or what quantized ones mean."""
    if tensor.quantized is None:
        return tensor.dtype, tensor.data
    if len(tensor.shape) == 2:
        return "f32", dense(tensor)
    return "f32", np.stack([dense(tensor.at(head)) for head in range(tensor.shape[0])])
