"""What a family says about itself; the engine reads this and nothing else about a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from gangline.checkpoint.fields import Fields
from gangline.checkpoint.shape import LayerShape

# Fields of `ModelShape` beyond what every config says the same way.
Extras = dict[str, Any]


class Names(msgspec.Struct, frozen=True):
    """Where a layer's tensors are, behind `model.layers.N.`; the defaults are what most have.

    A module has a `.weight`, and a `.bias` where the checkpoint has one. "" means there is none.
    """

    attention_norm: str = "input_layernorm"
    attention_output_norm: str = ""  # of what attention adds
    mlp_norm: str = "post_attention_layernorm"
    mlp_output_norm: str = ""
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    qkv: str = ""  # the three in one
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    attention_output: str = "self_attn.o_proj"
    sinks: str = "self_attn.sinks"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    gate_up: str = ""  # gate and up in one
    router: str = "mlp.gate"
    correction: str = "mlp.gate.e_score_correction_bias"
    expert: str = "mlp.experts.{expert}"  # one expert's matrices, named by the next three
    expert_gate: str = "gate_proj"
    expert_up: str = "up_proj"
    expert_down: str = "down_proj"
    stacked: str = "mlp.switch_mlp"  # all experts in one tensor each, as MLX stores them
    shared: str = "mlp.shared_experts"
    shared_gate: str = "mlp.shared_expert_gate"


class Family(msgspec.Struct, frozen=True):
    """A row of facts. `layers` reads what a config says of each layer, `extras` whatever else
    differs from the usual; both refuse by name what cannot be run."""

    name: str
    architectures: tuple[str, ...]  # as in config.json
    layers: Callable[[Fields], Sequence[LayerShape]]
    extras: Callable[[Fields], Extras] = lambda fields: {}
    names: Names = Names()
    norm: Literal["rms", "layer"] = "rms"
    unit_offset: bool = False  # norm weights are stored less 1 …
    no_offset_beside: str = ""  # … unless there are tensors with this in their names
    parallel: bool = False  # attention and MLP read the same norm
    interleaved: bool = False  # fused experts: gate and up rows alternate, dense ones transposed
    model_types: tuple[str, ...] = ()  # `model_type` of config.json, besides the name
    text_config: str = ""  # the field that may hold the text model's config
    defaults: dict[str, Any] = {}  # of fields that published configs leave out
