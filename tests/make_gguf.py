"""Writes GGUF files with the `gguf` package, as llama.cpp's converter would: for tests and tools.

Takes a model's folder in Hugging Face format with dense weights. Names come from the package's own
table; what happens to numbers follows `conversion/` of https://github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    ExpertGatingFuncType,
    GGMLQuantizationType,
    GGUFWriter,
    Keys,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from numpy.typing import NDArray

from gangline.checkpoint.affine import values
from gangline.checkpoint.model import Checkpoint, open_checkpoint

Numbers = NDArray[np.float32]
Config = dict[str, Any]

ARCHITECTURES = {
    "LlamaForCausalLM": MODEL_ARCH.LLAMA,
    "MistralForCausalLM": MODEL_ARCH.LLAMA,
    "MixtralForCausalLM": MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": MODEL_ARCH.QWEN3MOE,
    "Gemma2ForCausalLM": MODEL_ARCH.GEMMA2,
    "Gemma3ForCausalLM": MODEL_ARCH.GEMMA3,
    "Phi3ForCausalLM": MODEL_ARCH.PHI3,
    "Olmo2ForCausalLM": MODEL_ARCH.OLMO2,
    "GraniteForCausalLM": MODEL_ARCH.GRANITE,
    "Glm4ForCausalLM": MODEL_ARCH.GLM4,
    "Glm4MoeForCausalLM": MODEL_ARCH.GLM4_MOE,
    "SmolLM3ForCausalLM": MODEL_ARCH.SMOLLM3,
    "Cohere2ForCausalLM": MODEL_ARCH.COHERE2,
    "GptOssForCausalLM": MODEL_ARCH.GPT_OSS,
    "DeepseekV3ForCausalLM": MODEL_ARCH.DEEPSEEK2,
    "Qwen3NextForCausalLM": MODEL_ARCH.QWEN3NEXT,
}
PERMUTED = {MODEL_ARCH.LLAMA, MODEL_ARCH.GRANITE, MODEL_ARCH.SMOLLM3}
NORM_PLUS_ONE = {MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3, MODEL_ARCH.QWEN3NEXT}

# Fields of config.json → what the writer calls them, whichever architecture has them.
FIELDS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "head_count",
    "rms_norm_eps": "layer_norm_rms_eps",
    "layer_norm_eps": "layer_norm_eps",
    "vocab_size": "vocab_size",
    "sliding_window": "sliding_window",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention_multiplier": "attention_scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "logit_scale": "logit_scale",
    "linear_conv_kernel_dim": "ssm_conv_kernel",
    "linear_key_head_dim": "ssm_state_size",
    "linear_num_key_heads": "ssm_group_count",
    "linear_num_value_heads": "ssm_time_step_rank",
    "full_attention_interval": "full_attention_interval",
}
ROPE = {
    "factor": "rope_scaling_factor",
    "original_max_position_embeddings": "rope_scaling_orig_ctx_len",
    "attention_factor": "rope_scaling_attn_factors",
    "beta_fast": "rope_scaling_yarn_beta_fast",
    "beta_slow": "rope_scaling_yarn_beta_slow",
}


def make_gguf(
    file: Path,
    folder: Path,
    kind: str | Callable[[str], str],
    pre: str | None = None,
    changes: Config | None = None,
) -> Path:
    """The model of `folder` as a GGUF file; returns it.

    `kind` is the type of matrices, or says it for a tensor's name in the file; `pre` names the rule
    for words (without one, the tokenizer goes along as it is); `changes` are to the config.
    """
    checkpoint = open_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text()) | (changes or {})
    config = {name: value for name, value in config.items() if value is not None}
    architecture = ARCHITECTURES[config["architectures"][0]]
    writer = GGUFWriter(file, MODEL_ARCH_NAMES[architecture])
    add_config(writer, architecture, config)
    if (folder / "tokenizer.json").exists():
        add_tokenizer(writer, folder, pre)
    n_layers = config["num_hidden_layers"]
    names = [get_tensor_name_map(of, n_layers) for of in (architecture, MODEL_ARCH.LLAMA)]
    for name, numbers in converted(checkpoint, architecture, config):
        known = (of.get_name(name, (".weight", ".bias")) for of in names)
        found = name if name.startswith("blk.") else next(filter(None, known))
        add_tensor(writer, found, numbers, kind if isinstance(kind, str) else kind(found))
    for name, numbers in rotations(config):
        writer.add_tensor(name, numbers.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def add_config(writer: GGUFWriter, architecture: MODEL_ARCH, config: Config) -> None:
    for field, name in FIELDS.items():
        if field in config:
            getattr(writer, f"add_{name}")(config[field])
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    rope = config.get("rope_parameters", {})
    rope = rope.get("full_attention", rope)
    writer.add_block_count(config["num_hidden_layers"])
    if architecture == MODEL_ARCH.DEEPSEEK2:
        turning, rank = config["qk_rope_head_dim"], config["kv_lora_rank"]
        writer.add_head_count_kv(1)
        writer.add_key_length(rank + turning)
        writer.add_value_length(rank)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + turning)
        writer.add_value_length_mla(config["v_head_dim"])
        writer.add_rope_dimension_count(turning)
        writer.add_expert_weights_norm(config["norm_topk_prob"])
        writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        share = rope.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(head_dim * share))
    if architecture == MODEL_ARCH.GLM4_MOE:
        writer.add_expert_weights_norm(config["norm_topk_prob"])
    if architecture == MODEL_ARCH.QWEN3NEXT:
        inner = config["linear_value_head_dim"] * config["linear_num_value_heads"]
        writer.add_ssm_inner_size(inner)
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_string(f"{writer.arch}.rope.scaling.type", rope["rope_type"])
        for field, name in ROPE.items():
            if field in rope:
                getattr(writer, f"add_{name}")(rope[field])
    if rope.get("rope_type") == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def rotations(config: Config) -> Iterator[tuple[str, Numbers]]:
    """Factors of frequencies, which are tensors."""
    rope = config.get("rope_parameters", {})
    if rope.get("rope_type") == "longrope":
        for name in ("long", "short"):
            yield f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], np.float32)
    if rope.get("rope_type") == "llama3":
        width = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
        lengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
        low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
        share = (rope["original_max_position_embeddings"] / lengths - low) / (high - low)
        share = np.clip(share, 0, 1)
        yield "rope_freqs.weight", (1 / ((1 - share) / factor + share)).astype(np.float32)


def paired(rows: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Rows of each head in halves → in pairs of neighbours, as llama.cpp wants them."""
    halves = rows.reshape(n_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def converted(
    checkpoint: Checkpoint, architecture: MODEL_ARCH, config: Config
) -> Iterator[tuple[str, Numbers]]:
    """Tensors by the names that the package's table knows, with their numbers in the file."""
    stacks: dict[str, list[Numbers]] = {}
    for name in sorted(checkpoint.names, key=_by_number):
        numbers = values(checkpoint.tensor(name))
        stack = re.sub(r"\.experts\.\d+\.", ".experts.", name)
        if stack != name:
            stacks.setdefault(stack, []).append(numbers)
        else:
            yield from _changed(name, numbers, architecture, config)
    for name, stacked in stacks.items():
        if "block_sparse_moe" in name:  # the table has Mixtral's stacks by an older name
            name = name.replace("model.layers", "layers")
            name = name.replace("block_sparse_moe", "feed_forward")
        yield name, np.stack(stacked)


def _by_number(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _changed(
    name: str, numbers: Numbers, architecture: MODEL_ARCH, config: Config
) -> Iterator[tuple[str, Numbers]]:
    """What a converter does to one tensor."""
    if ".experts." in name:
        yield from _gpt_oss_experts(name, numbers)
    elif name.endswith("kv_b_proj.weight"):
        heads = numbers.reshape(config["num_attention_heads"], -1, numbers.shape[1])
        keys, own = np.split(heads, [config["qk_nope_head_dim"]], axis=1)
        yield name.replace("kv_b_proj", "k_b_proj"), np.ascontiguousarray(keys.swapaxes(1, 2))
        yield name.replace("kv_b_proj", "v_b_proj"), np.ascontiguousarray(own)
    elif name.endswith("in_proj_qkvz.weight"):
        yield from _delta_rows(name, numbers, config)
    elif name.endswith(".A_log"):
        yield name, -np.exp(numbers)
    elif name.endswith(".dt_bias"):
        yield name.replace(".dt_bias", ".dt_proj.bias"), numbers
    elif name.endswith(".sinks"):
        yield f"{name}.weight", numbers
    elif name.endswith(".e_score_correction_bias"):
        yield name.replace("_bias", ".bias"), numbers
    elif architecture in PERMUTED and re.search(r"\.[qk]_proj\.", name):
        count = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
        yield name, paired(numbers, config[count])
    elif architecture in NORM_PLUS_ONE and re.search(r"norm\.weight$", name):
        yield name, numbers if ".linear_attn." in name else numbers + 1
    else:
        yield name, numbers.squeeze() if "conv1d" in name else numbers


def _gpt_oss_experts(name: str, numbers: Numbers) -> Iterator[tuple[str, Numbers]]:
    """(E, inputs, outputs), gate and up in turns; biases (E, outputs)."""
    bias = name.endswith("_bias")
    ending = "bias" if bias else "weight"
    rows = numbers[..., None] if bias else numbers.swapaxes(1, 2)
    module = name.removesuffix("_bias")
    if module.endswith("gate_up_proj"):
        for kind, start in (("gate", 0), ("up", 1)):
            part = rows[:, start::2]
            other = module.replace("gate_up", kind)
            yield f"{other}.{ending}", np.ascontiguousarray(part[..., 0] if bias else part)
    else:
        yield f"{module}.{ending}", np.ascontiguousarray(rows[..., 0] if bias else rows)


def _delta_rows(name: str, numbers: Numbers, config: Config) -> Iterator[tuple[str, Numbers]]:
    """Per key head a query, a key, values and gates → all queries, keys, values; all gates."""
    heads, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
    by_head = numbers.reshape(heads, -1, numbers.shape[1])
    own = by_head.shape[1] // 2 - key
    parts = np.split(by_head, [key, 2 * key, 2 * key + own], axis=1)
    queries, keys, own_values, gates = (part.reshape(-1, numbers.shape[1]) for part in parts)
    layer = name.split(".")[2]
    yield f"blk.{layer}.attn_qkv.weight", np.concatenate([queries, keys, own_values])
    yield f"blk.{layer}.attn_gate.weight", gates


def add_tensor(writer: GGUFWriter, name: str, numbers: NDArray[Any], kind: str) -> None:
    """A tensor of a type; norms and biases stay float32, as converters keep them."""
    if numbers.ndim == 1 or kind == "F32":
        writer.add_tensor(name, numbers.astype(np.float32))
    elif kind == "F16":
        writer.add_tensor(name, numbers.astype(np.float16))
    else:
        of_kind = GGMLQuantizationType[kind]
        writer.add_tensor(name, quantize(numbers.astype(np.float32), of_kind), raw_dtype=of_kind)


def add_tokenizer(writer: GGUFWriter, folder: Path, pre: str | None) -> None:
    """The byte-level tokenizer of a folder, by the name of its rule for words or as it is."""
    text = (folder / "tokenizer.json").read_text()
    whole = json.loads(text)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    ids = {**whole["model"]["vocab"], **added}
    tokens = sorted(ids, key=ids.__getitem__)
    assert [ids[token] for token in tokens] == list(range(len(tokens))), "ids have a hole"
    writer.add_tokenizer_model("gpt2")
    if pre is None:
        writer.add_string(Keys.Tokenizer.HF_JSON, text)
    else:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in added else TokenType.NORMAL for t in tokens])
    merges = whole["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_add_bos_token(False)
    if config.get("eos_token"):
        writer.add_eos_token_id(ids[config["eos_token"]])
    template = folder / "chat_template.jinja"
    turns = template.read_text() if template.exists() else config.get("chat_template")
    if turns:
        writer.add_chat_template(turns)
