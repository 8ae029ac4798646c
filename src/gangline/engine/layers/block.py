"""One layer: two halves that add to the residual, and the norms around them."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from gangline.checkpoint.shape import DeltaAttention, LatentAttention, LayerShape
from gangline.engine.layers.attention import load_attention
from gangline.engine.layers.delta import load_delta
from gangline.engine.layers.latent import load_latent
from gangline.engine.layers.mlp import load_mlp
from gangline.engine.loader import Loader
from gangline.engine.operations import Operations


class Part(Protocol):
    """Attention of some kind, or an MLP of some kind."""

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual (T, D), in place, + what the part makes of x; without a residual
        what it makes of x alone."""


class Norm(msgspec.Struct, frozen=True):
    """A norm's weight and kind."""

    weight: Any  # (D,)
    eps: float
    centred: bool  # less the mean

    def run(self, ops: Operations, x: Any) -> Any:
        if self.centred:
            return ops.layer_norm(x, self.weight, self.eps)
        return ops.rms_norm(x, self.weight, self.eps)


class Half(msgspec.Struct, frozen=True):
    """A part of a layer with the norms before and behind it, where there are any."""

    norm: Norm | None
    part: Part
    output_norm: Norm | None


class Block(msgspec.Struct, frozen=True):
    """A layer: attention, then MLP."""

    halves: tuple[Half, Half]
    parallel: bool  # a half without a norm reads what the other read, not the residual
    scale: float  # of what the halves add

    def run(self, ops: Operations, residual: Any, batch: Any) -> Any:
        """residual (T, D) -> residual behind the layer, in place; returned."""
        x = residual
        for half in self.halves:
            x, residual = self._run_half(half, ops, x, residual, batch)
        return residual

    @property
    def halves_are_apart(self) -> bool:
        """Whether the MLP needs nothing but the residual behind the attention."""
        return not self.parallel or self.halves[1].norm is not None

    def run_attention(self, ops: Operations, residual: Any, batch: Any) -> Any:
        """residual (T, D) -> residual behind the attention, in place; returned."""
        return self._run_half(self.halves[0], ops, residual, residual, batch)[1]

    def run_mlp(self, ops: Operations, residual: Any) -> Any:
        """The rest of `run`, for any rows of residual (T, D): the MLP sees each by itself."""
        return self._run_half(self.halves[1], ops, residual, residual, None)[1]

    def _run_half(
        self, half: Half, ops: Operations, x: Any, residual: Any, batch: Any
    ) -> tuple[Any, Any]:
        """What the half read, and the residual behind it; x is what the half before read."""
        if half.norm is not None:
            x = half.norm.run(ops, residual)
        elif not self.parallel:
            x = residual
        if half.output_norm is None and self.scale == 1:
            return x, half.part.run(ops, x, batch, residual)
        y = half.part.run(ops, x, batch, None)
        if half.output_norm is not None:
            y = half.output_norm.run(ops, y)
        return x, ops.add(residual, y, self.scale)


def load_block(loader: Loader, number: int, shape: LayerShape) -> Block:
    """Layer `number` of the checkpoint."""
    at, names = loader.layer(number), loader.names

    def norm(name: str) -> Norm | None:
        return load_norm(loader, at + name) if name else None

    attention = Half(
        norm(names.attention_norm),
        _load_mixer(loader, at, shape),
        norm(names.attention_output_norm),
    )
    mlp = Half(norm(names.mlp_norm), load_mlp(loader, at, shape.mlp), norm(names.mlp_output_norm))
    return Block((attention, mlp), loader.family.parallel, loader.shape.residual_scale)


def load_norm(loader: Loader, module: str, scale: float = 1.0) -> Norm:
    weight = loader.norm(module, loader.shape.hidden, scale)
    return Norm(weight, loader.shape.norm_eps, loader.family.norm == "layer")


def _load_mixer(loader: Loader, at: str, shape: LayerShape) -> Part:
    mixer = shape.mixer
    if isinstance(mixer, LatentAttention):
        return load_latent(loader, at, mixer)
    if isinstance(mixer, DeltaAttention):
        return load_delta(loader, at, mixer)
    return load_attention(loader, at, mixer)
