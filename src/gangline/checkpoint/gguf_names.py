"""Tensors of a GGUF file → parts by Hugging Face's names, one table for each architecture.

Converters rename tensors, stack experts and change some numbers on the way; each table says what
has to be undone. Sources: https://github.com/ggml-org/llama.cpp, `gguf-py/gguf/tensor_mapping.py`
for names and `conversion/` for what happens to the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gangline.checkpoint.faults import REDOWNLOAD, damaged
from gangline.checkpoint.gguf_config import ARCHITECTURE
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.parts import (
    Change,
    LatentHeads,
    LogOfNegative,
    MixedHeads,
    Part,
    Shift,
    Unpermute,
    plain,
    slice_of,
)
from gangline.errors import CheckpointError

_BLOCK = re.compile(r"^blk\.(\d{1,6})\.(.+)$")

MAX_EXPERTS = 4096

# Parameters of rotations, which the config has; routing that training alone uses.
IGNORED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{expert}.gate_proj",
    "ffn_up_exps": "mlp.experts.{expert}.up_proj",
    "ffn_down_exps": "mlp.experts.{expert}.down_proj",
}
_SHARED_EXPERTS = {
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
}
_MIXTRAL = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{expert}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{expert}.w3",
    "ffn_down_exps": "block_sparse_moe.experts.{expert}.w2",
}
_NORMS_AFTER = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Halves of one matrix have these endings until they are joined.
_FIRST, _SECOND = ".first.weight", ".second.weight"
_LATENT = {
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": "self_attn.kv_b_proj.first",
    "attn_v_b": "self_attn.kv_b_proj.second",
}
_DELTA_NET = {
    "attn_qkv": "linear_attn.in_proj_qkvz.first",
    "attn_gate": "linear_attn.in_proj_qkvz.second",
    "ssm_in": "linear_attn.in_proj_qkvz",
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_dt.bias": "linear_attn.dt_bias",
    "ssm_a": "linear_attn.A_log",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
}


class Names(msgspec.Struct, frozen=True):
    """What one architecture's tensors are called, and what its converter did to numbers."""

    layer: dict[str, str]  # name in a block, with or without `.weight`/`.bias` → ours
    permuted: bool = False  # rows of queries and keys are in pairs of neighbours
    norm_shift: float = 0.0  # was added to the weights of norms


NAMES = {
    "llama": Names(_LAYER | _MIXTRAL, permuted=True),
    "qwen2": Names(_LAYER),
    "qwen3": Names(_LAYER | _HEAD_NORMS),
    "qwen3moe": Names(_LAYER | _HEAD_NORMS | _EXPERTS),
    "gemma2": Names(
        _LAYER | _NORMS_AFTER | {"ffn_norm": "pre_feedforward_layernorm"}, norm_shift=1.0
    ),
    "gemma3": Names(
        _LAYER | _HEAD_NORMS | _NORMS_AFTER | {"ffn_norm": "pre_feedforward_layernorm"},
        norm_shift=1.0,
    ),
    "phi3": Names(_LAYER | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}),
    "olmo2": Names(_LAYER | _HEAD_NORMS | _NORMS_AFTER),
    "granite": Names(_LAYER, permuted=True),
    "glm4": Names(
        _LAYER
        | {
            "ffn_up": "mlp.gate_up_proj",
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        }
    ),
    "glm4moe": Names(
        _LAYER
        | _HEAD_NORMS
        | _EXPERTS
        | _SHARED_EXPERTS
        | {"post_attention_norm": "post_attention_layernorm"}
    ),
    "smollm3": Names(_LAYER, permuted=True),
    "cohere2": Names(_LAYER),
    "gpt-oss": Names(
        _LAYER
        | _EXPERTS
        | {
            "ffn_gate_inp": "mlp.router",
            "post_attention_norm": "post_attention_layernorm",
            "attn_sinks.weight": "self_attn.sinks",
        }
    ),
    "deepseek2": Names(_LAYER | _EXPERTS | _SHARED_EXPERTS | _LATENT),
    "qwen3next": Names(
        _LAYER
        | _HEAD_NORMS
        | _EXPERTS
        | _DELTA_NET
        | {
            "post_attention_norm": "post_attention_layernorm",
            "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
            "ffn_up_shexp": "mlp.shared_expert.up_proj",
            "ffn_down_shexp": "mlp.shared_expert.down_proj",
            "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
        },
        norm_shift=1.0,
    ),
}


def gguf_parts(
    file: Path, config: Mapping[str, Any], entries: Mapping[str, Entry]
) -> dict[str, Part]:
    """The parts of a GGUF file; a tensor that the architecture does not have is an error."""
    names = NAMES[config[ARCHITECTURE]]
    n_layers = config["num_hidden_layers"]
    parts: dict[str, Part] = {}
    for name, entry in entries.items():
        block = _BLOCK.match(name)
        if name in IGNORED or (block and int(block[1]) >= n_layers):  # layers that guess ahead
            continue
        ours = _our_name(names, block[2] if block else name, bool(block))
        if ours is None:
            raise CheckpointError(
                f"{file}: tensor `{name}` is not known for architecture `{config[ARCHITECTURE]}`",
                hint="The file was made by a converter that this version does not know.",
            )
        whole = f"model.layers.{block[1]}.{ours}" if block else ours
        parts |= {part.name: part for part in _parts(names, config, whole, entry)}
    return _joined(file, config, parts)


def _our_name(names: Names, name: str, in_layer: bool) -> str | None:
    """`attn_q.weight` → `self_attn.q_proj.weight`."""
    table = names.layer if in_layer else _TOP
    stem, _, ending = name.rpartition(".")
    if name in table:
        return table[name]
    return f"{table[stem]}.{ending}" if stem in table else None


def _parts(names: Names, config: Mapping[str, Any], name: str, entry: Entry) -> list[Part]:
    """One part, or one for each expert of a stack."""
    if "{expert}" in name:
        n_experts = entry.shape[0] if len(entry.shape) > 1 else 0
        if not 0 < n_experts <= MAX_EXPERTS:
            raise damaged(
                entry.file,
                f"tensor `{entry.name}` has shape {list(entry.shape)}, expected up to "
                f"{MAX_EXPERTS} experts",
            )
        experts = range(n_experts)
        return [plain(slice_of(entry, e), name.format(expert=e)) for e in experts]
    part = plain(entry, name)
    if names.permuted and ".q_proj." in name:
        return [_changed(part, Unpermute(config["num_attention_heads"]))]
    if names.permuted and ".k_proj." in name:
        heads = config.get("num_key_value_heads", config["num_attention_heads"])
        return [_changed(part, Unpermute(heads))]
    if names.norm_shift and name.endswith("norm.weight") and ".linear_attn." not in name:
        return [_changed(part, Shift(-names.norm_shift))]
    if name.endswith(".A_log"):
        return [_changed(part, LogOfNegative())]
    # Dimensions of one are not kept.
    if name.endswith(".conv1d.weight") and len(entry.shape) == 2:
        return [msgspec.structs.replace(part, shape=(entry.shape[0], 1, entry.shape[1]))]
    if name.endswith(".shared_expert_gate.weight"):
        return [msgspec.structs.replace(part, shape=(1, entry.shape[-1]))]
    return [part]


def _changed(part: Part, change: Change) -> Part:
    return msgspec.structs.replace(part, change=change)


def _joined(file: Path, config: Mapping[str, Any], parts: dict[str, Part]) -> dict[str, Part]:
    """Put together what a converter took apart."""
    for name in [name for name in parts if name.endswith(_FIRST)]:
        whole = name.removesuffix(_FIRST) + ".weight"
        first, second = parts.pop(name), parts.pop(name.removesuffix(_FIRST) + _SECOND, None)
        if second is None:
            raise CheckpointError(f"{file}: tensor `{whole}` lacks a half", hint=REDOWNLOAD)
        parts[whole] = (_latent if ".kv_b_proj." in whole else _mixed)(config, whole, first, second)
    return parts


def _latent(config: Mapping[str, Any], name: str, keys: Part, values: Part) -> Part:
    """Keys (H, rank, d), values (H, d, rank) → (H (dk + dv), rank)."""
    heads, rank, key_dim = keys.shape if len(keys.shape) == 3 else (0, 0, 0)
    value_dim = values.shape[1] if values.shape[:1] + values.shape[2:] == (heads, rank) else 0
    shape = (heads * (key_dim + value_dim), rank)
    return Part(name, shape, keys.entries + values.entries, LatentHeads(heads))


def _mixed(config: Mapping[str, Any], name: str, mixed: Part, gates: Part) -> Part:
    """Queries, keys and values of all heads; gates of all heads → by key head."""
    if not len(mixed.shape) == len(gates.shape) == 2:
        first, second = mixed.entries + gates.entries
        both = f"tensors `{first.name}` and `{second.name}`"
        raise damaged(first.file, f"{both} have no rows and columns")
    n_heads, key_dim = config["linear_num_key_heads"], config["linear_key_head_dim"]
    shape = (mixed.shape[0] + gates.shape[0], *mixed.shape[1:])
    form = MixedHeads(n_heads, key_dim, gates.shape[0] // n_heads)
    # Of unlike types the wider holds both.
    loaded = [part.loaded for part in (mixed, gates) if part.loaded is not None]
    wide = max(loaded, key=lambda form: form.bits) if len(loaded) == 2 else None
    return Part(name, shape, mixed.entries + gates.entries, form, wide)
