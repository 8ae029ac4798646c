"""Attention over a preallocated cache, without a word to the host.

The rows of a step are cut into groups of sequences with equally many rows; a step of decoding
lanes is one group. Slots and positions are tensors, the number of keys is a round one, so that
every operation of such a step has a fixed shape: it can be recorded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from gangline.engine.backends.torch.fused import Fused
from gangline.engine.operations import Attention, Batch, CacheDtype

LEAST_LENGTH = 256  # keys that a step of decoding lanes looks at, doubled as far as needed


class Group(NamedTuple):
    """Rows `first <= row < end`: S sequences of n rows each."""

    first: int
    end: int
    slots: torch.Tensor  # (S,)
    positions: torch.Tensor  # (S, n)
    length: int  # keys that may be seen by these rows are below this position


class Step:
    """A checked batch on the device, and what the layers of one step share."""

    def __init__(self, groups: list[Group], row_slots: torch.Tensor) -> None:
        self.groups = groups
        self.row_slots = row_slots  # (T,)
        self.positions = torch.cat([group.positions.reshape(-1) for group in groups])  # (T,)
        # Of each table by its identity, with the table: while it is held nothing else has its id.
        self._rotations: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def rotation(self, table: torch.Tensor) -> torch.Tensor:
        """Rows of a rope table, (T, 2, 1, R / 2)."""
        if id(table) not in self._rotations:
            self._rotations[id(table)] = table, table[self.positions][:, :, None]
        return self._rotations[id(table)][1]


def step_of(batch: Batch, context: int, device: torch.device, *, by_length: bool = True) -> Step:
    """The groups of a batch whose slots and positions were checked.

    Decoding lanes may see all of the context, and kernels look at as much of it as there is; where
    keys are copied, `by_length`, no more than needed of it.
    """
    counts = batch.counts
    borders = np.flatnonzero(np.diff(counts)) + 1  # where the number of rows changes
    groups, row = [], 0
    for sequences in np.split(np.arange(len(counts)), borders):
        count = int(counts[sequences[0]])
        positions = batch.starts[sequences, None] + np.arange(count)
        length = int(positions.max()) + 1
        if count == 1:
            length = round_length(length, context) if by_length else context
        groups.append(
            Group(
                row,
                row := row + positions.size,
                indices(batch.slots[sequences], device),
                indices(positions, device),
                length,
            )
        )
    return Step(groups, indices(np.repeat(batch.slots, counts), device))


def round_length(n_keys: int, context: int) -> int:
    """A power of two that holds `n_keys`, or all of the context."""
    return min(context, max(LEAST_LENGTH, 1 << (n_keys - 1).bit_length()))


def indices(
    numbers: np.ndarray[tuple[int, ...], np.dtype[np.integer]], device: torch.device
) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.int64)).to(device)


class Cache:
    """Keys (lanes, context, KV, Dh) and values (lanes, context, KV, Dv) of one layer."""

    def __init__(
        self,
        lanes: int,
        context: int,
        rules: Attention,
        dtype: CacheDtype,
        device: torch.device,
    ) -> None:
        shape = lanes, context, rules.n_kv_heads
        self.keys = untouched((*shape, rules.head_dim), dtype, device)
        self.values = (
            self.keys[..., : rules.value_dim]
            if rules.shared_values
            else untouched((*shape, rules.value_dim), dtype, device)
        )


def untouched(shape: tuple[int, ...], dtype: CacheDtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU their memory is not touched before it is written."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.float16 if dtype == "f16" else np.float32))
    return torch.zeros(
        shape, dtype=torch.float16 if dtype == "f16" else torch.float32, device=device
    )


def attend(
    qkv: torch.Tensor,
    cache: Cache,
    step: Step,
    rules: Attention,
    sinks: torch.Tensor | None,
    fused: Fused | None,
) -> torch.Tensor:
    """qkv (T, width) -> (T, H Dv); lanes of one row each by `fused`, where there is one."""
    heads, kv_heads = rules.n_heads, rules.n_kv_heads
    query_end, key_end = heads * rules.head_dim, (heads + kv_heads) * rules.head_dim
    rows = step.row_slots, step.positions
    cache.keys[rows] = qkv[:, query_end:key_end].unflatten(1, (kv_heads, -1)).to(cache.keys.dtype)
    if not rules.shared_values:
        values = qkv[:, key_end:].unflatten(1, (kv_heads, -1))
        cache.values[rows] = values.to(cache.values.dtype)
    queries = qkv[:, :query_end] * rules.scale
    results = []
    for group in step.groups:
        alone = group.positions.shape[1] == 1
        run = fused.attend if fused and alone and fused.attends(rules) else attend_gathered
        results.append(run(queries[group.first : group.end], cache, group, rules, sinks))
    return results[0] if len(results) == 1 else torch.cat(results)


def attend_gathered(
    queries: torch.Tensor,
    cache: Cache,
    group: Group,
    rules: Attention,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """queries (S n, H Dh), scaled -> (S n, H Dv); keys are copied, scores and sums are float32."""
    positions = group.positions
    n_sequences, n_rows = positions.shape
    kv_heads = rules.n_kv_heads
    # 1. The keys that any row of a sequence sees, by position: (S, P) or the same for all (1, P).
    n_seen = rules.window - 1 + n_rows
    if rules.window and n_seen < group.length:
        seen = torch.arange(n_seen, device=positions.device) + positions[:, :1] - rules.window + 1
    else:
        seen = torch.arange(group.length, device=positions.device)[None]
    taken = group.slots[:, None], seen.clamp(min=0)
    keys, values = (part[taken].float().transpose(1, 2) for part in (cache.keys, cache.values))
    # 2. Scores (S, KV, H / KV, n, P) of what a row may see.
    grouped = queries.reshape(n_sequences, n_rows, kv_heads, -1, rules.head_dim)
    grouped = grouped.permute(0, 2, 3, 1, 4)  # (S, KV, H / KV, n, Dh)
    products = grouped.flatten(2, 3) @ keys.transpose(-1, -2)
    scores = products.unflatten(2, (-1, n_rows))
    if rules.soft_cap:
        scores = rules.soft_cap * torch.tanh(scores / rules.soft_cap)
    visible = (seen[:, None] <= positions[..., None]) & (seen[:, None] >= 0)  # (S, n, P)
    if rules.window:
        visible &= seen[:, None] > positions[..., None] - rules.window
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    # 3. Softmax, in which a sink takes a share, and the sum of values.
    if sinks is not None:
        sink = sinks.view(1, kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], -1)
    weights = torch.softmax(scores, -1)[..., : seen.shape[1]]
    out = (weights.flatten(2, 3) @ values).unflatten(2, (-1, n_rows))  # (S, KV, H / KV, n, Dv)
    return out.permute(0, 3, 1, 2, 4).reshape(n_sequences * n_rows, -1)
