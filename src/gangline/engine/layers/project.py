"""The matrix at the end of each half of a layer."""

from __future__ import annotations

from typing import Any

import msgspec

from gangline.engine.loader import Loader, Rows
from gangline.engine.operations import Operations


class Projection(msgspec.Struct, frozen=True):
    """A matrix (D, K) and its bias (D,)."""

    weight: Any
    bias: Any | None

    def run(self, ops: Operations, x: Any, residual: Any | None) -> Any:
        """residual + projection of x (T, K); without a residual the projection alone."""
        if residual is None:
            return ops.linear(x, self.weight, self.bias)
        return ops.linear_add(x, self.weight, residual, self.bias)


def load_projection(loader: Loader, module: str, columns: int) -> Projection:
    rows = Rows(module, loader.shape.hidden)
    return Projection(loader.matrix(rows, columns=columns), loader.bias(rows))
