"""The gated delta rule, row by row, with the state of each lane; without a word to the host."""

from __future__ import annotations

import torch
from torch.nn.functional import silu, softplus

from gangline.engine.backends.torch.attention import Group, Step
from gangline.engine.operations import DeltaNet

TINY = 1e-6  # below the square root of the norms of queries and keys


class DeltaState:
    """What a layer remembers of each lane: its last mixed rows and its matrices, float32."""

    def __init__(self, lanes: int, rules: DeltaNet, device: torch.device) -> None:
        shape = lanes, rules.n_value_heads, rules.key_dim, rules.value_dim
        self.rows = torch.zeros((lanes, rules.kernel - 1, rules.width), device=device)
        self.matrices = torch.zeros(shape, device=device)


def delta_net(
    mixed: torch.Tensor,
    beta: torch.Tensor,
    decay: torch.Tensor,
    state: DeltaState,
    step: Step,
    rules: DeltaNet,
    convolution: torch.Tensor,
    decay_log: torch.Tensor,
    decay_bias: torch.Tensor,
) -> torch.Tensor:
    """mixed (T, width), beta and decay (T, n_value_heads) -> (T, n_value_heads value_dim)."""
    strength = torch.sigmoid(beta)
    kept = torch.exp(-torch.exp(decay_log) * softplus(decay + decay_bias))
    results = []
    for group in step.groups:
        rows = slice(group.first, group.end)
        summed = _convolve(mixed[rows], state, group, rules, convolution)
        results.append(_apply(silu(summed), strength[rows], kept[rows], state, group, rules))
    return results[0] if len(results) == 1 else torch.cat(results)


def _convolve(
    mixed: torch.Tensor, state: DeltaState, group: Group, rules: DeltaNet, taps: torch.Tensor
) -> torch.Tensor:
    """mixed (S n, width) -> (S, n, width): each row with the rows before it in its lane."""
    n_sequences, n_rows = group.positions.shape
    fresh = (group.positions[:, 0] == 0)[:, None, None]
    before = state.rows[group.slots].masked_fill(fresh, 0.0)
    rows = torch.cat([before, mixed.view(n_sequences, n_rows, -1)], 1)
    state.rows[group.slots] = rows[:, n_rows:]
    by_tap = taps.view(rules.width, rules.kernel).T
    windows = rows.unfold(1, rules.kernel, 1)  # (S, n, width, kernel)
    return torch.einsum("snwk,kw->snw", windows, by_tap)


def _apply(
    rows: torch.Tensor,
    strength: torch.Tensor,
    kept: torch.Tensor,
    state: DeltaState,
    group: Group,
    rules: DeltaNet,
) -> torch.Tensor:
    """rows (S, n, width), strength and kept (S n, Hv) -> (S n, Hv Dv)."""
    n_sequences, n_rows = group.positions.shape
    n_keys = rules.n_key_heads * rules.key_dim
    queries, keys, values = rows.split([n_keys, n_keys, rows.shape[-1] - 2 * n_keys], -1)
    per_key = rules.n_value_heads // rules.n_key_heads
    queries, keys = (
        _unit(part.unflatten(-1, (rules.n_key_heads, -1))).repeat_interleave(per_key, 2)
        for part in (queries, keys)
    )  # (S, n, Hv, Dk)
    queries = queries * rules.key_dim**-0.5
    values = values.unflatten(-1, (rules.n_value_heads, -1))  # (S, n, Hv, Dv)
    strength = strength.view(n_sequences, n_rows, -1, 1)
    kept = kept.view(n_sequences, n_rows, -1, 1, 1)
    fresh = (group.positions[:, 0] == 0)[:, None, None, None]
    matrices = state.matrices[group.slots].masked_fill(fresh, 0.0)  # (S, Hv, Dk, Dv)
    out = []
    for row in range(n_rows):
        query, key, value = queries[:, row], keys[:, row], values[:, row]
        matrices = matrices * kept[:, row]
        error = value - torch.einsum("shk,shkv->shv", key, matrices)
        matrices = matrices + key[..., None] * (strength[:, row] * error)[..., None, :]
        out.append(torch.einsum("shk,shkv->shv", query, matrices))
    state.matrices[group.slots] = matrices
    return torch.stack(out, 1).reshape(n_sequences * n_rows, -1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + TINY)
