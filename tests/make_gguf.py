"""Writes GGUF files with the `gguf` package, as llama.cpp's converter would: for tests and tools.

Takes a model's folder in Hugging Face format (dense Llama weights, byte-level tokenizer).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, Keys, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

from gangline.checkpoint.affine import values
from gangline.checkpoint.model import open_checkpoint

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` → `blk.0.ffn_up.weight`."""
    module, _, ending = name.rpartition(".")
    if module in _TOP:
        return f"{_TOP[module]}.{ending}"
    layer, rest = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_LAYER[rest]}.{ending}"


def paired(rows: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Rows of each head in halves → in pairs of neighbours, as llama.cpp wants them."""
    halves = rows.reshape(n_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


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


def make_gguf(file: Path, folder: Path, kind: str, pre: str | None = None) -> Path:
    """The Llama model of `folder` as a GGUF file whose matrices are of type `kind`; returns it."""
    checkpoint = open_checkpoint(folder)
    shape = checkpoint.shape
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_vocab_size(shape.vocab)
    if (folder / "tokenizer.json").exists():
        add_tokenizer(writer, folder, pre)
    for name in checkpoint.names:
        numbers = values(checkpoint.tensor(name))
        if ".q_proj." in name:
            numbers = paired(numbers, shape.n_heads)
        elif ".k_proj." in name:
            numbers = paired(numbers, shape.n_kv_heads)
        add_tensor(writer, gguf_name(name), numbers, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
