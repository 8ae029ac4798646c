"""The gated delta rule: https://arxiv.org/abs/2412.06464."""

from __future__ import annotations

import msgspec
import numpy as np

from gangline.engine.backends.reference.activations import activate, sigmoid
from gangline.engine.operations import F32, Batch, DeltaNet


class DeltaState(msgspec.Struct, frozen=True):
    """What a delta-rule layer remembers of each lane."""

    rows: F32  # (lanes, kernel - 1, width): the last mixed rows, before the convolution
    matrices: F32  # (lanes, n_value_heads, key_dim, value_dim)


def run_delta(
    mixed: F32,
    beta: F32,
    decay: F32,
    state: DeltaState,
    batch: Batch,
    rules: DeltaNet,
    convolution: F32,
    decay_log: F32,
    decay_bias: F32,
) -> F32:
    """`Operations.delta_net`."""
    taps = convolution.reshape(rules.width, rules.kernel)
    write = sigmoid(beta)
    keep = np.exp(-np.exp(decay_log) * np.logaddexp(np.float32(0), decay + decay_bias))
    out = np.empty((len(mixed), rules.n_value_heads, rules.value_dim), np.float32)
    row = 0
    for slot, start, count in zip(batch.slots, batch.starts, batch.counts, strict=True):
        if start == 0:
            state.rows[slot] = 0
            state.matrices[slot] = 0
        for _ in range(count):
            window = np.concatenate([state.rows[slot], mixed[row : row + 1]])
            state.rows[slot] = window[1:]
            matrices, out[row] = _delta_step(
                activate(np.einsum("kw,wk->w", window, taps), "silu"),
                state.matrices[slot],
                write[row],
                keep[row],
                rules,
            )
            state.matrices[slot] = matrices
            row += 1
    return out.reshape(len(mixed), -1)


def _delta_step(
    mixed: F32, matrices: F32, write: F32, keep: F32, rules: DeltaNet
) -> tuple[F32, F32]:
    """One row: mixed (width,) after the convolution, matrices (HV, K, V), write and keep (HV,)
    -> the new matrices and the result (HV, V)."""
    keys_end = 2 * rules.n_key_heads * rules.key_dim
    queries, keys = mixed[:keys_end].reshape(2, rules.n_key_heads, rules.key_dim)
    values = mixed[keys_end:].reshape(rules.n_value_heads, rules.value_dim)
    shares = rules.n_value_heads // rules.n_key_heads
    queries, keys = (
        np.repeat(x / np.sqrt(np.square(x).sum(1, keepdims=True) + np.float32(1e-6)), shares, 0)
        for x in (queries, keys)
    )
    queries = queries * np.float32(rules.key_dim**-0.5)
    decayed = matrices * keep[:, None, None]
    remembered = np.einsum("hk,hkv->hv", keys, decayed)
    delta = write[:, None] * (values - remembered)
    updated: F32 = decayed + keys[:, :, None] * delta[:, None, :]
    return updated, np.einsum("hk,hkv->hv", queries, updated)
