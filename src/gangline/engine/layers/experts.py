"""Experts' matrices, in whichever of the three forms a checkpoint has them.

One tensor per expert and matrix (Hugging Face), all experts of a matrix stacked (MLX), or gate and
up stacked in one as well (transformers 5, gpt-oss).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gangline.checkpoint.shape import Mixture
from gangline.checkpoint.tensors import Tensor
from gangline.engine.loader import Loader

FUSED = "mlp.experts"  # in every family

Parts = list[list[Tensor]]  # of each expert: the tensors that are stacked along its rows


class Experts(NamedTuple):
    """What `mixture` takes."""

    gate_up: Any
    down: Any
    gate_up_bias: Any | None
    down_bias: Any | None


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
        return _experts(
            loader,
            [
                [loader.tensor(f"{one}.{kind}.weight", expected) for kind in kinds]
                for one in modules
            ],
        )

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
    inner = (n_experts, width, hidden)
    gate, up = (loader.tensor(f"{module}.{name}_proj.weight", inner) for name in ("gate", "up"))
    down = loader.tensor(f"{module}.down_proj.weight", (n_experts, hidden, width))
    gate_up_bias = down_bias = None
    if f"{module}.gate_proj.bias" in loader:
        gate_up_bias = _vector(
            loader,
            *(
                loader.tensor(f"{module}.{name}_proj.bias", (n_experts, width))
                for name in ("gate", "up")
            ),
        )
        down_bias = _vector(loader, loader.tensor(f"{module}.down_proj.bias", (n_experts, hidden)))
    return Experts(
        _experts(loader, [[gate.at(e), up.at(e)] for e in range(n_experts)]),
        _experts(loader, [[down.at(e)] for e in range(n_experts)]),
        gate_up_bias,
        down_bias,
    )


def _load_fused(loader: Loader, module: str, shape: Mixture) -> Experts:
    """Gate rows, then up rows; or alternating ones, with their biases (gpt-oss)."""
    n_experts, width, hidden = shape.routing.n_experts, shape.width, loader.shape.hidden
    numbers = range(n_experts)
    gate_up = _fused_matrices(loader, f"{module}.gate_up_proj", n_experts, 2 * width, hidden)
    down = _fused_matrices(loader, f"{module}.down_proj", n_experts, hidden, width)
    if not loader.family.interleaved:
        return Experts(
            _experts(loader, [[gate_up[e]] for e in numbers]),
            _experts(loader, [[down[e]] for e in numbers]),
            None,
            None,
        )
    even, odd = slice(0, None, 2), slice(1, None, 2)
    bias = loader.tensor(f"{module}.gate_up_proj_bias", (n_experts, 2 * width))
    gate_bias, up_bias = (bias.dense(bias.data[:, half]) for half in (even, odd))
    down_bias = loader.tensor(f"{module}.down_proj_bias", (n_experts, hidden))
    return Experts(
        _experts(loader, [[gate_up[e].rows(even), gate_up[e].rows(odd)] for e in numbers]),
        _experts(loader, [[down[e]] for e in numbers]),
        _vector(loader, gate_bias, up_bias),
        _vector(loader, down_bias),
    )


def _fused_matrices(
    loader: Loader, name: str, n_experts: int, rows: int, columns: int
) -> list[Tensor]:
    """E matrices (rows, columns); dense ones of interleaved families are stored transposed."""
    upright, transposed = (n_experts, rows, columns), (n_experts, columns, rows)
    stacked = loader.tensor(name, upright, transposed)
    if loader.family.interleaved and stacked.quantized is None:
        loader.check(stacked, transposed)
        return [stacked.dense(np.ascontiguousarray(matrix.T)) for matrix in stacked.data]
    loader.check(stacked, upright)
    return [stacked.at(e) for e in range(n_experts)]


def _experts(loader: Loader, parts: Parts) -> Any:
    weights = loader.operations.experts(parts)
    loader.forget(*{part.name: part for of_one in parts for part in of_one}.values())
    return weights


def _vector(loader: Loader, *stacked: Tensor) -> Any:
    """Biases (E, N) of several matrices: those of one expert together, one expert after another."""
    first = stacked[0]
    joined = np.concatenate([tensor.data for tensor in stacked], axis=1)
    return loader.operations.vector(first.dense(joined.reshape(-1)))
