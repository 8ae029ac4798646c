"""What back ends on an array library make of their own smaller operations, the same for all.

Arrays of these libraries are not written here: "in place" makes a new one, which callers use.
"""

from __future__ import annotations

from typing import Any, Protocol

from gangline.engine.backends.reference import Reference
from gangline.engine.operations import Activation, Batch, Routing
from gangline.errors import ProtocolError

TINY = 1e-20  # beside the sum of weights that are made to add up to 1
CLAMP, SLOPE = 7.0, 1.702  # of gpt-oss's activation


class Composed:
    """The operations that are made of `halves`, `activate`, `mix_experts` and of products."""

    def halves(self, x: Any) -> Any:
        """x (T, 2 F) as two (T, F)."""
        raise NotImplementedError

    def activate(self, gate: Any, up: Any, act: Activation) -> Any:
        """act(gate) * up, elementwise."""
        raise NotImplementedError

    def mix_experts(
        self,
        x: Any,
        experts: Any,
        weights: Any,
        gate_up: Any,
        down: Any,
        act: Activation,
        gate_up_bias: Any | None,
        down_bias: Any | None,
    ) -> Any:
        """`mixture` without a residual."""
        raise NotImplementedError

    def checked(self, batch: Batch, lanes: int, context: int) -> Batch:
        """A batch as `Reference.batch` wants it, and not empty; ProtocolError."""
        checked: Batch = Reference().batch(batch, lanes, context)
        if not len(checked.slots):
            raise ProtocolError("a batch without sequences")
        return checked

    def linear(self, x: Any, w: Any, bias: Any | None = None) -> Any:
        y = w.product(x)
        return y if bias is None else y + bias

    def linear_add(self, x: Any, w: Any, residual: Any, bias: Any | None = None) -> Any:
        return residual + self.linear(x, w, bias)

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
        gate, up = self.halves(self.linear(x, gate_up, gate_up_bias))
        y = self.linear(self.activate(gate, up, act), down, down_bias)
        return y if residual is None else residual + y

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
        y = self.mix_experts(x, experts, weights, gate_up, down, act, gate_up_bias, down_bias)
        return y if residual is None else residual + y


class Choosing(Protocol):
    """What a library gives for routing; scores are (T, E), of equal ones the lower number wins."""

    def softmax(self, x: Any) -> Any:
        """Over the last dimension."""

    def sigmoid(self, x: Any) -> Any:
        """Elementwise."""

    def largest(self, scores: Any, n: int) -> Any:
        """The numbers (T, n) of the n largest of each row, the largest first."""

    def of_best_groups(self, scores: Any, rules: Routing) -> Any:
        """Scores (T, E), minus infinity outside the best groups."""

    def take(self, scores: Any, chosen: Any) -> Any:
        """scores (T, E), chosen (T, n) -> (T, n)."""


def choose_experts(
    scores: Any, rules: Routing, correction: Any | None, library: Choosing
) -> tuple[Any, Any]:
    """scores (T, E) of a router -> experts (T, n_active) and their weights (T, n_active)."""
    if rules.scoring == "softmax":
        scores = library.softmax(scores)
    elif rules.scoring == "sigmoid":
        scores = library.sigmoid(scores)
    wanted = scores if correction is None else scores + correction
    if rules.n_groups > 1:
        wanted = library.of_best_groups(wanted, rules)
    chosen = library.largest(wanted, rules.n_active)
    weights = library.take(scores, chosen)
    if rules.scoring == "softmax_chosen":
        weights = library.softmax(weights)
    if rules.renormalize:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + TINY)
    return chosen, weights * rules.scale
