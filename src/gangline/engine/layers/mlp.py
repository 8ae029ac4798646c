"""The second half of a layer: a gated MLP, or a mixture of them."""

from __future__ import annotations

from typing import Any

import msgspec

from gangline.checkpoint.families import Names
from gangline.checkpoint.shape import Activation, Mixture, Mlp, Routing
from gangline.engine.layers.experts import load_experts
from gangline.engine.loader import Loader, Rows
from gangline.engine.operations import Operations


class GatedMlp(msgspec.Struct, frozen=True):
    """One gated MLP, of a layer or shared by all rows of a mixture."""

    activation: Activation
    gate_up: Any  # (2 F, D)
    gate_up_bias: Any | None
    down: Any  # (D, F)
    down_bias: Any | None

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual + MLP of x."""
        return ops.gated_mlp(
            x,
            self.gate_up,
            self.down,
            self.activation,
            residual,
            self.gate_up_bias,
            self.down_bias,
        )


class ExpertMlp(msgspec.Struct, frozen=True):
    """A router, the experts it chooses from, and perhaps one that is always asked."""

    activation: Activation
    routing: Routing
    router: Any  # (E, D)
    router_bias: Any | None
    correction: Any | None  # (E,)
    gate_up: Any  # E x (2 F, D)
    gate_up_bias: Any | None
    down: Any  # E x (D, F)
    down_bias: Any | None
    shared: GatedMlp | None
    shared_gate: Any | None  # (1, D)

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual + the weighted sum of the experts' results."""
        experts, weights = ops.route(
            x, self.router, self.routing, self.router_bias, self.correction
        )
        y = ops.mixture(
            x,
            experts,
            weights,
            self.gate_up,
            self.down,
            self.activation,
            residual,
            self.gate_up_bias,
            self.down_bias,
        )
        if self.shared is None:
            return y
        if self.shared_gate is None:
            return self.shared.run(ops, x, batch, y)
        shared = self.shared.run(ops, x, batch, None)
        return ops.add(y, ops.sigmoid_gate(shared, ops.linear(x, self.shared_gate)))


def load_mlp(loader: Loader, at: str, shape: Mlp | Mixture) -> GatedMlp | ExpertMlp:
    """The tensors whose names begin with `at`."""
    names = loader.names
    if isinstance(shape, Mixture):
        return _load_mixture(loader, at, shape)
    width = shape.width
    rows = [Rows(at + names.gate, width), Rows(at + names.up, width)]
    if names.gate_up:
        rows = [Rows(at + names.gate_up, 2 * width)]
    return _gated_mlp(loader, rows, Rows(at + names.down, loader.shape.hidden), width)


def _router(loader: Loader, at: str) -> str:
    """Its module; transformers 5 may give it the name that most families have."""
    own, usual = at + loader.names.router, at + Names().router
    return usual if f"{own}.weight" not in loader and f"{usual}.weight" in loader else own


def _gated_mlp(loader: Loader, gate_up: list[Rows], down: Rows, width: int) -> GatedMlp:
    return GatedMlp(
        activation=loader.shape.activation,
        gate_up=loader.matrix(*gate_up, columns=loader.shape.hidden),
        gate_up_bias=loader.bias(*gate_up),
        down=loader.matrix(down, columns=width),
        down_bias=loader.bias(down),
    )


def _load_mixture(loader: Loader, at: str, shape: Mixture) -> ExpertMlp:
    names, hidden, n_experts = loader.names, loader.shape.hidden, shape.routing.n_experts
    router = Rows(_router(loader, at), n_experts)
    experts = load_experts(loader, at, shape)
    shared = shared_gate = None
    if shape.shared_width:
        module, width = at + names.shared, shape.shared_width
        gate_up = [Rows(f"{module}.gate_proj", width), Rows(f"{module}.up_proj", width)]
        shared = _gated_mlp(loader, gate_up, Rows(f"{module}.down_proj", hidden), width)
    if shape.shared_gate:
        shared_gate = loader.matrix(Rows(at + names.shared_gate, 1), columns=hidden)
    return ExpertMlp(
        activation=loader.shape.activation,
        routing=shape.routing,
        router=loader.matrix(router, columns=hidden),
        router_bias=loader.bias(router),
        correction=loader.vector(at + names.correction, n_experts) if shape.correction else None,
        gate_up=experts.gate_up,
        gate_up_bias=experts.gate_up_bias,
        down=experts.down,
        down_bias=experts.down_bias,
        shared=shared,
        shared_gate=shared_gate,
    )
