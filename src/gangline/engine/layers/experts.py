"""Experts' matrices, in whichever of the three forms a checkpoint has them.

One tensor per expert and matrix (Hugging Face), all experts of a matrix stacked (MLX), or gate and
up stacked in one as well (transformers 5, gpt-oss).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from gangline.checkpoint.shape import Mixture
from gangline.checkpoint.tensors import Tensor
from gangline.engine.loader import Loader

FUSED = "mlp.experts"  # in every family


class Experts(NamedTuple):
    """What `mixture` takes."""

    gate_up: Any
    down: Any
    gate_up_bias: Any | None
    down_bias: Any | None


class Parts(Sequence[list[Tensor]]):
    """Of each expert the tensors that are stacked along its rows, read when they are asked for.

    All experts of a layer may be more than what is free besides the back end's copy of them.
    """

    def __init__(self, loader: Loader, n_experts: int, read: Callable[[int], list[Tensor]]) -> None:
        self._loader, self._n_experts, self._read = loader, n_experts, read
        self._last: list[Tensor] = []

    def __len__(self) -> int:
        return self._n_experts

    @overload
    def __getitem__(self, expert: int) -> list[Tensor]: ...
    @overload
    def __getitem__(self, expert: slice) -> list[list[Tensor]]: ...
    def __getitem__(self, expert: int | slice) -> list[Tensor] | list[list[Tensor]]:
        if isinstance(expert, slice):
            return [self[e] for e in range(*expert.indices(self._n_experts))]
        if not 0 <= expert < self._n_experts:
            raise IndexError(expert)
        self.forget_last()
        self._last = self._read(expert)
        return self._last

    def forget_last(self) -> None:
        """The expert that was read last has been copied."""
        self._loader.forget(*self._last)
        self._last = []


def load_experts(loader: Loader, at: str, shape: Mixture) -> Experts:
    """The experts of the layer whose tensors' names begin with `at`."""
    names = loader.names
    if f"{at}{names.stacked}.gate_proj.weight" in loader:
        return _load_stacked(loader, at + names.stacked, shape)
    if f"{at}{FUSED}.gate_up_proj" in loader:
        return _load_fused(loader, at + FUSED, shape)
    return _load_separate(loader, at, shape)


def _load_separate(loader: Loader, at: str, shape: Mixture) -> Experts:
    names, width, hidden = loader.names, shape.width, loader.shape.hidden
    modules = [at + names.expert.format(expert=e) for e in range(shape.routing.n_experts)]
    gate_up, down = (names.expert_gate, names.expert_up), (names.expert_down,)

    def matrices(kinds: tuple[str, ...], *expected: int) -> Any:
        def read(expert: int) -> list[Tensor]:
            module = modules[expert]
            return [loader.tensor(f"{module}.{kind}.weight", expected) for kind in kinds]

        return _experts(loader, len(modules), read)

    def biases(kinds: tuple[str, ...], size: int) -> Any | None:
        if f"{modules[0]}.{kinds[0]}.bias" not in loader:
            return None
        parts = [loader.tensor(f"{one}.{kind}.bias", (size,)) for one in modules for kind in kinds]
        return loader.operations.vector(*parts)

    return Experts(
        matrices(gate_up, width, hidden),
        matrices(down, hidden, width),
        biases(gate_up, width),
        biases(down, hidden),
    )


def _load_stacked(loader: Loader, module: str, shape: Mixture) -> Experts:
    n_experts, width, hidden = shape.routing.n_experts, shape.width, loader.shape.hidden

    def matrices(kinds: tuple[str, ...], rows: int, columns: int) -> Any:
        expected = (n_experts, rows, columns)
        stacks = [loader.tensor(f"{module}.{kind}.weight", expected) for kind in kinds]
        return _experts(loader, n_experts, lambda expert: [one.at(expert) for one in stacks])

    def biases(kinds: tuple[str, ...], size: int) -> Any | None:
        if f"{module}.{kinds[0]}.bias" not in loader:
            return None
        stacks = [loader.tensor(f"{module}.{kind}.bias", (n_experts, size)) for kind in kinds]
        return _vector(loader, *stacks)

    gate_up, down = ("gate_proj", "up_proj"), ("down_proj",)
    return Experts(
        matrices(gate_up, width, hidden),
        matrices(down, hidden, width),
        biases(gate_up, width),
        biases(down, hidden),
    )


def _load_fused(loader: Loader, module: str, shape: Mixture) -> Experts:
    """Gate rows, then up rows; or alternating ones, with their biases (gpt-oss)."""
    n_experts, width, hidden = shape.routing.n_experts, shape.width, loader.shape.hidden
    gate_up = _fused_matrix(loader, f"{module}.gate_up_proj", n_experts, 2 * width, hidden)
    down = _fused_matrix(loader, f"{module}.down_proj", n_experts, hidden, width)
    all_down = _experts(loader, n_experts, lambda expert: [down(expert)])
    if not loader.family.interleaved:
        return Experts(_experts(loader, n_experts, lambda e: [gate_up(e)]), all_down, None, None)
    halves = slice(0, None, 2), slice(1, None, 2)

    def read(expert: int) -> list[Tensor]:
        both = gate_up(expert)
        return [both.rows(half) for half in halves]

    bias = loader.tensor(f"{module}.gate_up_proj_bias", (n_experts, 2 * width))
    down_bias = loader.tensor(f"{module}.down_proj_bias", (n_experts, hidden))
    return Experts(
        _experts(loader, n_experts, read),
        all_down,
        _vector(loader, *(bias.dense(bias.data[:, half]) for half in halves)),
        _vector(loader, down_bias),
    )


def _fused_matrix(
    loader: Loader, name: str, n_experts: int, rows: int, columns: int
) -> Callable[[int], Tensor]:
    """Gives the matrix (rows, columns) of an expert; dense ones of interleaved families are stored
    transposed."""
    upright, transposed = (n_experts, rows, columns), (n_experts, columns, rows)
    stacked = loader.tensor(name, upright, transposed)
    if loader.family.interleaved and stacked.quantized is None:
        loader.check(stacked, transposed)
        return lambda expert: stacked.dense(np.ascontiguousarray(stacked.data[expert].T))
    loader.check(stacked, upright)
    return stacked.at


def _experts(loader: Loader, n_experts: int, read: Callable[[int], list[Tensor]]) -> Any:
    parts = Parts(loader, n_experts, read)
    weights = loader.operations.experts(parts)
    parts.forget_last()
    return weights


def _vector(loader: Loader, *stacked: Tensor) -> Any:
    """Biases (E, N) of several matrices: those of one expert together, one expert after another."""
    first = stacked[0]
    joined = np.concatenate([tensor.data for tensor in stacked], axis=1)
    return loader.operations.vector(first.dense(joined.reshape(-1)))
