"""The operations of which every model is made: a closed list, implemented by each back end.

The `reference` back end defines what each of them means. Hidden states are float32 arrays
`(T, D)`: T rows (tokens of all sequences of a step, flat), D hidden size. `Batch` says which
rows belong to which sequence. Back ends own the array type of weights and caches; hidden states
passed between calls are of the back end's own array type (`numpy.ndarray` for `reference` and
`cpu`); `to_numpy`/`from_numpy` convert at a hop. Weights, vectors and tables are never modified.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import Activation, CacheDtype
from gangline.checkpoint.tensors import Tensor

__all__ = ["F32", "I32", "Activation", "Batch", "CacheDtype", "Operations"]

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class Batch(msgspec.Struct, frozen=True):
    """Which rows of a step belong to which sequence: sequence s has `counts[s]` rows in a row.

    Row j of sequence s is the token at position `starts[s] + j` of the lane in cache slot
    `slots[s]`; positions below `starts[s]` are in the cache already. A slot occurs at most once.
    """

    slots: I32  # (S,)
    starts: I32  # (S,)
    counts: I32  # (S,), sum T
    positions: I32  # (T,)

    @staticmethod
    def of(slots: I32, starts: I32, counts: I32) -> Batch:
        """Build the row positions from the sequences."""
        ends = np.cumsum(counts, dtype=np.int32)
        first_rows = np.repeat(ends - counts, counts)
        rows = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int32)
        positions = rows - first_rows + np.repeat(starts, counts)
        return Batch(slots, starts, counts, positions.astype(np.int32))


class Operations(Protocol):
    """What a back end provides. Weights `W` are whatever `weight()` of the same back end made."""

    name: str  # "reference", "cpu", …

    def weight(self, *parts: Tensor) -> Any:
        """A matrix (N, K) ready for `linear`; several parts are stacked along N (fused q, k, v)."""

    def table(self, tensor: Tensor) -> Any:
        """A matrix (V, D) ready for `embed`."""

    def vector(self, *parts: Tensor) -> Any:
        """A float32 vector: a norm's weight, or a bias; several parts follow one another."""

    def cache(
        self,
        lanes: int,
        context: int,
        n_kv_heads: int,
        head_dim: int,
        dtype: CacheDtype = "f16",
    ) -> Any:
        """Keys and values of one layer; memory is touched only as tokens arrive."""

    def batch(self, batch: Batch, lanes: int, context: int) -> Any:
        """Check a batch and bring it into the form that `rope` and `attend` take, once per step.

        `ProtocolError` unless every slot is below `lanes` and occurs once, and every sequence has
        at least one row and ends within `context`: batches arrive from other machines.
        """

    def embed(self, table: Any, ids: I32) -> Any:
        """table `weight` (V, D), ids (T,) all below V -> (T, D) float32."""

    def rms_norm(self, x: Any, w: Any, eps: float) -> Any:
        """x (..., D), w (D,) -> (..., D); squares summed in float32; x is not modified."""

    def linear(self, x: Any, w: Any, bias: Any | None = None) -> Any:
        """x (T, K), w (N, K) -> (T, N), accumulated in float32."""

    def linear_add(self, x: Any, w: Any, residual: Any, bias: Any | None = None) -> None:
        """residual (T, N) += x (T, K) @ w.T + bias, in place."""

    def rope(self, qkv: Any, table: Any, batch: Any, n_heads: int, n_kv_heads: int) -> None:
        """Rotate the query and key heads of qkv (T, (n_heads + 2 n_kv_heads) Dh) in place.

        Pairs are (i, i + Dh/2) ("half" layout); table is what `rope_table` made.
        """

    def rope_table(self, cos_sin: F32) -> Any:
        """cos_sin (context, 2, Dh/2) float32, rows are positions."""

    def attend(self, qkv: Any, cache: Any, batch: Any, n_heads: int, scale: float) -> Any:
        """Append keys and values to the cache, then causal attention -> (T, n_heads Dh).

        The sum walks the cache in blocks of one fixed size from position 0, so that a row's
        result does not depend on how the rows were cut into steps.
        """

    def gated_mlp(
        self,
        x: Any,
        gate_up: Any,
        down: Any,
        act: Activation,
        residual: Any,
        gate_up_bias: Any | None = None,
        down_bias: Any | None = None,
    ) -> None:
        """residual += down(act(gate(x)) * up(x)); gate_up is (2 F, D): gate rows, then up rows."""

    def to_numpy(self, x: Any) -> F32:
        """(T, D) contiguous float32, for a hop or the sampler."""

    def from_numpy(self, x: F32) -> Any:
        """The inverse of `to_numpy`."""
