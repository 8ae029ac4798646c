"""Mixtures of experts: the choice of a row's experts, and their gated MLPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import gelu, silu

from gangline.engine.backends.composed import CLAMP, SLOPE
from gangline.engine.backends.torch.fused import Fused
from gangline.engine.backends.torch.packed import Packed, times
from gangline.engine.backends.torch.weights import Matrix
from gangline.engine.operations import Activation, Routing

Product = Callable[[torch.Tensor, Matrix], torch.Tensor]  # x (T, K), experts -> (T or pairs, N)

FEW_ROWS = 32  # up to which a step asks the host nothing, so that it can be recorded
BLOCK_NUMBERS = 1 << 26  # of the experts' matrices that are gathered at a time


def activate(gate: torch.Tensor, up: torch.Tensor, act: Activation) -> torch.Tensor:
    """act(gate) * up, elementwise."""
    if act == "silu":
        return silu(gate) * up
    if act == "relu2":
        return gate.relu().square() * up
    if act == "gelu":
        return gelu(gate) * up
    if act == "gelu_tanh":
        return gelu(gate, approximate="tanh") * up
    assert act == "swiglu_clamped", act
    gate, up = gate.clamp(max=CLAMP), up.clamp(-CLAMP, CLAMP)
    return gate * torch.sigmoid(SLOPE * gate) * (up + 1)


class _Choosing:
    """PyTorch's part of `composed.choose_experts`."""

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1)

    def sigmoid(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)

    def largest(self, scores: torch.Tensor, n: int) -> torch.Tensor:
        return scores.sort(dim=-1, descending=True, stable=True).indices[:, :n]

    def of_best_groups(self, scores: torch.Tensor, rules: Routing) -> torch.Tensor:
        groups = scores.unflatten(-1, (rules.n_groups, -1))
        best_two = groups.sort(dim=-1).values[..., -2:].sum(-1)  # (T, n_groups)
        best = self.largest(best_two, rules.n_active_groups)
        allowed = torch.zeros_like(best_two, dtype=torch.bool).scatter(-1, best, True)
        return groups.masked_fill(~allowed[..., None], float("-inf")).flatten(-2)

    def take(self, scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return scores.gather(-1, chosen)


CHOOSING = _Choosing()


def mix_experts(
    x: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    gate_up: Matrix,
    down: Matrix,
    act: Activation,
    gate_up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
) -> torch.Tensor:
    """x (T, D), experts and weights (T, n) -> the weighted sums (T, D)."""
    n_rows, n_active = experts.shape
    chosen = experts.reshape(-1)  # of pairs of a row and one of its experts
    n_experts = gate_up.shape[0]
    first_bias, second_bias = (
        None if bias is None else bias.view(n_experts, -1) for bias in (gate_up_bias, down_bias)
    )
    all_experts = _Experts(gate_up, down, first_bias, second_bias, act)
    if isinstance(gate_up, Packed) and isinstance(down, Packed) and gate_up.fused and down.fused:
        y = _by_kernel(x, chosen, all_experts, gate_up.fused)
    else:
        rows = torch.arange(n_rows, device=x.device).repeat_interleave(n_active)
        run = _by_pair if n_rows <= FEW_ROWS else _by_expert
        y = run(x, rows, chosen, all_experts)  # (T n, D)
    return (y.view(n_rows, n_active, -1) * weights[..., None]).sum(1)


class _Experts(NamedTuple):
    gate_up: Matrix  # (E, 2 F, D)
    down: Matrix  # (E, D, F)
    gate_up_bias: torch.Tensor | None  # (E, 2 F)
    down_bias: torch.Tensor | None  # (E, D)
    act: Activation

    def mlp(self, x: torch.Tensor, index: int | torch.Tensor, product: Product) -> torch.Tensor:
        """x (T, D) through the experts `index`, one of all rows or one of each result."""
        both = product(x, self.gate_up)
        if self.gate_up_bias is not None:
            both = both + self.gate_up_bias[index]
        gate, up = both.chunk(2, -1)
        y = product(activate(gate, up, self.act), self.down)
        return y if self.down_bias is None else y + self.down_bias[index]


def _by_kernel(
    x: torch.Tensor, chosen: torch.Tensor, experts: _Experts, fused: Fused
) -> torch.Tensor:
    """Each pair's matrices where they lie, packed; nothing is asked of the device."""
    tiles = fused.tiles(chosen, experts.gate_up.shape[0])

    def product(x: torch.Tensor, matrices: Matrix) -> torch.Tensor:
        assert isinstance(matrices, Packed), "both are packed"
        return fused.chosen_product(x, matrices, chosen, tiles)

    return experts.mlp(x, chosen, product)


def _by_pair(
    x: torch.Tensor, rows: torch.Tensor, chosen: torch.Tensor, experts: _Experts
) -> torch.Tensor:
    """Gather the matrices of each pair, as many at a time as memory allows."""
    _, n_rows, n_columns = experts.gate_up.shape
    block = max(1, BLOCK_NUMBERS // (n_rows * n_columns))
    results = []
    for row, expert in zip(rows.split(block), chosen.split(block), strict=True):

        def product(
            x: torch.Tensor, matrices: Matrix, expert: torch.Tensor = expert
        ) -> torch.Tensor:
            return times(x[:, None], matrices.at(expert))[:, 0]

        results.append(experts.mlp(x[row], expert, product))
    return torch.cat(results)


def _by_expert(
    x: torch.Tensor, rows: torch.Tensor, chosen: torch.Tensor, experts: _Experts
) -> torch.Tensor:
    """One product for all rows of an expert; the host asks how many each of them has."""
    order = chosen.sort(dim=0, stable=True).indices
    counts = torch.bincount(chosen, minlength=experts.gate_up.shape[0]).tolist()
    out = x.new_empty((len(chosen), experts.down.shape[1]))
    for expert, pairs in enumerate(order.split(counts)):

        def product(x: torch.Tensor, matrices: Matrix, expert: int = expert) -> torch.Tensor:
            return times(x, matrices.at(expert))

        if len(pairs):
            out[pairs] = experts.mlp(x[rows[pairs]], expert, product)
    return out
