"""SmolLM 3: Llama's block, but every fourth layer knows nothing of positions."""

from __future__ import annotations

from collections.abc import Sequence

from gangline.checkpoint.families.common import FULL, SLIDING, dense_mlp, sliding_window
from gangline.checkpoint.families.family import Family
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.rotation import rope_of
from gangline.checkpoint.shape import LayerShape, SelfAttention


def layers(fields: Fields) -> Sequence[LayerShape]:
    window = sliding_window(fields) if fields.flag("use_sliding_window", False) else 0
    rope = rope_of(fields, fields.head_dim(), theta=2e6)
    turning = _turning(fields)
    default = [SLIDING if window and not turns else FULL for turns in turning]
    mlp = dense_mlp(fields)

    def layer(kind: str, turns: bool) -> LayerShape:
        rules = fields.attention(window=window if kind == SLIDING else 0)
        return LayerShape(SelfAttention(rules, rope if turns else None), mlp)

    kinds = fields.layer_types((FULL, SLIDING), default)
    return [layer(kind, turns) for kind, turns in zip(kinds, turning, strict=True)]


def _turning(fields: Fields) -> list[bool]:
    """Which layers rotate: `no_rope_layers` has a 1 for those that do, whatever its name says."""
    n_layers, interval = fields.n_layers, fields.count("no_rope_layer_interval", 4)
    found = fields.whole_numbers("no_rope_layers")
    if found is None:
        return [(layer + 1) % interval != 0 for layer in range(n_layers)]
    if len(found) != n_layers or not set(found) <= {0, 1}:
        raise fields.bad("no_rope_layers", list(found), f"{n_layers} times 0 or 1")
    return [bool(one) for one in found]


FAMILY = Family(
    name="smollm3",
    architectures=("SmolLM3ForCausalLM",),
    layers=layers,
    defaults={"tie_word_embeddings": True},
)
