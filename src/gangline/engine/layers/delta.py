"""Linear attention by a gated delta rule, as Qwen3-Next has it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from gangline.checkpoint.shape import DeltaAttention, DeltaNet
from gangline.engine.layers.project import Projection, load_projection
from gangline.engine.loader import Loader, Rows
from gangline.engine.operations import Operations


class StatefulDelta(msgspec.Struct, frozen=True):
    """One layer's delta rule. HV value heads of Dv numbers."""

    rules: DeltaNet
    inputs: Any  # (width + HV Dv + 2 HV, D): mixed, the output's gate, beta, decay
    convolution: Any  # (width kernel,)
    decay_log: Any  # (HV,)
    decay_bias: Any  # (HV,)
    norm: Any  # (Dv,)
    norm_eps: float
    state: Any
    output: Projection

    def run(self, ops: Operations, x: Any, batch: Any, residual: Any | None) -> Any:
        """x (T, D) -> residual + what the rule makes of it."""
        rules = self.rules
        n_heads = rules.n_value_heads
        widths = (rules.width, n_heads * rules.value_dim, n_heads, n_heads)
        mixed, gate, beta, decay = ops.split(ops.linear(x, self.inputs), widths)
        y = ops.delta_net(
            mixed,
            beta,
            decay,
            self.state,
            batch,
            rules,
            self.convolution,
            self.decay_log,
            self.decay_bias,
        )
        return self.output.run(ops, ops.gated_norm(y, gate, self.norm, self.norm_eps), residual)


def load_delta(loader: Loader, at: str, shape: DeltaAttention) -> StatefulDelta:
    """The tensors whose names begin with `at`."""
    at += "linear_attn."
    rules, n_heads = shape.rules, shape.rules.n_value_heads
    convolution = loader.tensor(
        f"{at}conv1d.weight",
        (rules.width, 1, rules.kernel),
        (rules.width, rules.kernel, 1),  # MLX
    )
    flat = convolution.dense(convolution.data.reshape(-1))
    return StatefulDelta(
        rules=rules,
        inputs=loader.matrix(*_input_rows(at, rules), columns=loader.shape.hidden),
        convolution=loader.operations.vector(flat),
        decay_log=loader.vector(f"{at}A_log", n_heads),
        decay_bias=loader.vector(f"{at}dt_bias", n_heads),
        norm=loader.vector(f"{at}norm.weight", rules.value_dim),
        norm_eps=loader.shape.norm_eps,
        state=loader.delta_state(rules),
        output=load_projection(loader, f"{at}out_proj", n_heads * rules.value_dim),
    )


def _input_rows(at: str, rules: DeltaNet) -> list[Rows]:
    """Both input matrices have the rows of one key head after those of another: its query, key,
    values and gates; and its betas and decays. They are wanted all queries first, then all keys,
    and so on."""
    shares = rules.n_value_heads // rules.n_key_heads
    values = shares * rules.value_dim
    wide = _by_kind(rules.n_key_heads, (rules.key_dim, rules.key_dim, values, values))
    narrow = _by_kind(rules.n_key_heads, (shares, shares))
    return [
        Rows(f"{at}in_proj_qkvz", len(wide), wide),
        Rows(f"{at}in_proj_ba", len(narrow), narrow),
    ]


def _by_kind(n_heads: int, widths: tuple[int, ...]) -> Any:
    """Row numbers, sorted by kind, then by head; `widths` are of the kinds within a head."""
    numbers = np.arange(n_heads * sum(widths)).reshape(n_heads, -1)
    kinds = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
    return np.concatenate([kind.reshape(-1) for kind in kinds])
