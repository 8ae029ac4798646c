"""What a family says about itself; the decoder reads this and nothing else about a model."""

from __future__ import annotations

import msgspec


class Family(msgspec.Struct, frozen=True):
    """Checkpoint names of a family's modules; `{layer}` stands for the number of a layer.

    A module has a `.weight`, and a `.bias` where the checkpoint has one.
    """

    name: str
    attention_norm: str
    query: str
    key: str
    value: str
    attention_output: str
    mlp_norm: str
    gate: str
    up: str
    down: str
    embedding: str
    final_norm: str
    output: str
