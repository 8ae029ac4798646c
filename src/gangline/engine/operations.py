"""The operations of which every model is made: a closed list, implemented by each back end.

The `reference` back end defines what each of them means. Hidden states are float32 arrays
`(T, D)`: T rows (tokens of all sequences of a step, flat), D hidden size. `Batch` says which
rows belong to which sequence. Back ends own the array type of weights and caches; hidden states
passed between calls are of the back end's own array type (`numpy.ndarray` for `reference` and
`cpu`); `to_numpy`/`from_numpy` convert at a hop. Weights, vectors and tables are never modified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.shape import Activation, Attention, CacheDtype, DeltaNet, Routing
from gangline.checkpoint.tensors import Tensor

__all__ = [
    "F32",
    "I32",
    "Activation",
    "Attention",
    "Batch",
    "CacheDtype",
    "DeltaNet",
    "Operations",
    "Routing",
]

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
    """What a back end provides. Weights `W` are whatever `weight()` of the same back end made.

    "In place" means that the argument's memory holds the result; a back end whose arrays cannot
    be written returns the new array, so callers use what is returned and drop what they gave.
    """

    name: str  # "reference", "cpu", …

    # What a loader makes -----------------------------------------------------------------------

    def weight(self, *parts: Tensor) -> Any:
        """A matrix (N, K) ready for `linear`; several parts are stacked along N (fused q, k, v)."""

    def experts(self, parts: Sequence[Sequence[Tensor]]) -> Any:
        """E matrices of one shape for `mixture`; the parts of each are stacked along N.

        The parts of an expert are read from the file when they are asked for: go through them
        once, and copy those of one expert before asking for the next.
        """

    def head_weight(self, tensor: Tensor, n_heads: int) -> Any:
        """A dense tensor (H N, K), the rows of one head after the other, for `linear_heads`."""

    def table(self, tensor: Tensor) -> Any:
        """A matrix (V, D) ready for `embed`."""

    def vector(self, *parts: Tensor) -> Any:
        """A float32 vector: a norm's weight, or a bias; several parts follow one another."""

    def cache(self, lanes: int, context: int, rules: Attention, dtype: CacheDtype = "f16") -> Any:
        """Keys and values of one layer; memory is touched only as tokens arrive."""

    def delta_state(self, lanes: int, rules: DeltaNet) -> Any:
        """What a delta-rule layer remembers of each lane, float32: the last `kernel - 1` mixed
        rows, and a matrix (key_dim, value_dim) per value head."""

    def rope_table(self, cos_sin: F32) -> Any:
        """cos_sin (context, 2, R/2) float32, rows are positions; R numbers of a head rotate."""

    def batch(self, batch: Batch, lanes: int, context: int) -> Any:
        """Check a batch and bring it into the form that `rope` and `attend` take, once per step.

        `ProtocolError` unless every slot is below `lanes` and occurs once, and every sequence has
        at least one row and ends within `context`: batches arrive from other machines.
        """

    # What a step does --------------------------------------------------------------------------

    def embed(self, table: Any, ids: I32, scale: float = 1.0) -> Any:
        """table `weight` (V, D), ids (T,) all below V -> scale * rows (T, D) float32."""

    def rms_norm(self, x: Any, w: Any, eps: float) -> Any:
        """x (..., D), w (D,) -> (..., D); squares summed in float32; x is not modified."""

    def layer_norm(self, x: Any, w: Any, eps: float) -> Any:
        """As `rms_norm`, but of x less its mean (no bias)."""

    def linear(self, x: Any, w: Any, bias: Any | None = None) -> Any:
        """x (T, K), w (N, K) -> (T, N), accumulated in float32."""

    def linear_add(self, x: Any, w: Any, residual: Any, bias: Any | None = None) -> Any:
        """residual (T, N) += x (T, K) @ w.T + bias, in place; returned."""

    def linear_heads(self, x: Any, w: Any) -> Any:
        """x (T, H K), w of `head_weight` (H N, K) -> (T, H N): each head by its own matrix."""

    def add(self, residual: Any, x: Any, scale: float = 1.0) -> Any:
        """residual (T, D) += scale * x, in place, one fused multiply-add each; returned."""

    def sigmoid_gate(self, x: Any, gate: Any) -> Any:
        """x (T, D) *= sigmoid(gate), gate (T, D) or (T, 1), in place; returned."""

    def soft_cap(self, x: Any, cap: float) -> Any:
        """x = cap * tanh(x / cap), in place; returned."""

    def split(self, x: Any, widths: Sequence[int], n_heads: int = 1) -> tuple[Any, ...]:
        """x (T, H sum(widths)) -> for each width (T, H width), cut within every head; copies."""

    def join(self, parts: Sequence[Any], n_heads: int = 1) -> Any:
        """The inverse of `split`."""

    def head_norm(self, qkv: Any, q: Any, k: Any, rules: Attention, eps: float) -> Any:
        """RMS norm of the queries and the keys in qkv (T, width), in place; returned.

        q (Dh,) and k (Dh,): each head by itself. q (H Dh,) and k (KV Dh,): all heads as one row.
        """

    def gated_norm(self, x: Any, gate: Any, w: Any, eps: float) -> Any:
        """x (T, H D), gate (T, H D), w (D,): RMS norm of each head of x by itself, times w, times
        silu(gate); in place of x; returned."""

    def rope(self, qkv: Any, table: Any, batch: Any, rules: Attention) -> Any:
        """Rotate queries and keys of qkv (T, width) in place; returned.

        Pairs are (i, i + R/2) of the first R numbers of a head ("half" layout; checkpoints with
        neighbouring pairs have their rows sorted when they are loaded); the rest of it stays.
        """

    def attend(
        self, qkv: Any, cache: Any, batch: Any, rules: Attention, sinks: Any | None = None
    ) -> Any:
        """Append keys and values to the cache, then causal attention -> (T, H Dv).

        The sum walks the cache in blocks of one fixed size from position 0 (with a window: from
        the block that holds the row's first visible position), so that a row's result does not
        depend on how the rows were cut into steps. `sinks` (H,): one more score per head that
        takes its share of the softmax and has no value.
        """

    def delta_net(
        self,
        mixed: Any,
        beta: Any,
        decay: Any,
        state: Any,
        batch: Any,
        rules: DeltaNet,
        convolution: Any,
        decay_log: Any,
        decay_bias: Any,
    ) -> Any:
        """The gated delta rule -> (T, n_value_heads value_dim).

        mixed (T, width): queries, keys, values; first a causal convolution with `convolution`
        (width * kernel, one channel after the other) over a lane's rows, then SiLU. Queries and
        keys are then divided by their norm (sqrt(sum of squares + 1e-6)), queries also by
        sqrt(key_dim). beta, decay (T, n_value_heads): before sigmoid and softplus:
        per value head S *= exp(-exp(decay_log) softplus(decay + decay_bias)), then
        S += k outer (sigmoid(beta) (v - k S)), result q S. A sequence that starts at 0 starts
        with S = 0 and rows of zeros before it; any other goes on where its lane stopped.
        """

    def gated_mlp(
        self,
        x: Any,
        gate_up: Any,
        down: Any,
        act: Activation,
        residual: Any | None,
        gate_up_bias: Any | None = None,
        down_bias: Any | None = None,
    ) -> Any:
        """residual += down(act(gate(x)) * up(x)), in place; returned. gate_up is (2 F, D): gate
        rows, then up rows. Without a residual the sum begins at zero."""

    def route(
        self,
        x: Any,
        router: Any,
        rules: Routing,
        bias: Any | None = None,
        correction: Any | None = None,
    ) -> tuple[Any, Any]:
        """x (T, D), router (E, D) -> experts (T, n_active) int32, their weights (T, n_active).

        `router` is of `weight`. bias (E,) is added to the scores before the scoring function,
        correction (E,) after it and for the choice alone.
        """

    def mixture(
        self,
        x: Any,
        experts: Any,
        weights: Any,
        gate_up: Any,
        down: Any,
        act: Activation,
        residual: Any | None,
        gate_up_bias: Any | None = None,
        down_bias: Any | None = None,
    ) -> Any:
        """residual += sum over a row's experts of weight * gated MLP of that expert, in place, the
        experts in the order of `route`'s columns; returned. gate_up: E x (2 F, D), down: E x
        (D, F), biases (E * 2 F,) and (E * D,), one expert after the other."""

    def to_numpy(self, x: Any) -> F32:
        """(T, D) contiguous float32, for a hop or the sampler."""

    def from_numpy(self, x: F32) -> Any:
        """The inverse of `to_numpy`."""
