"""Writes small Llama checkpoints with random weights: NumPy only, for tests of every room.

    python tests/make_checkpoint.py OUT --kind q4 --layers 8

There is no tokenizer in them; ids are drawn, not spelled.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("f32", "f16", "bf16", "q4", "q8")
_FORMAT_NAMES = {
    "float32": "F32", "float16": "F16", "uint16": "BF16", "uint8": "U8", "uint32": "U32",
    "int8": "I8", "int32": "I32", "int64": "I64",
}  # fmt: skip

Arrays = dict[str, NDArray[Any]]


def to_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest even; uint16 holds the bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def pack(q: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Whole numbers (N, K) -> words (N, K bits / 32): a row is one stream of bits, lowest first."""
    stream = (q[..., None].astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1
    flat = stream.reshape(len(q), -1).astype(np.uint8)
    return np.packbits(flat, axis=1, bitorder="little").view("<u4")


def quantize(
    w: NDArray[np.float32], bits: int, group_size: int, dtype: str = "f16"
) -> tuple[NDArray[np.uint32], NDArray[Any], NDArray[Any]]:
    """MLX's form: packed words, scales and biases with `w ≈ scale * q + bias` per group."""
    groups = w.reshape(len(w), -1, group_size)
    low, high = groups.min(-1), groups.max(-1)
    scale = np.maximum((high - low) / (2**bits - 1), 1e-8)
    q = np.clip(np.rint((groups - low[..., None]) / scale[..., None]), 0, 2**bits - 1)
    return pack(q.reshape(w.shape).astype(np.uint32), bits), cast(scale, dtype), cast(low, dtype)


def cast(x: NDArray[Any], kind: str) -> NDArray[Any]:
    if kind == "bf16":
        return to_bf16(x.astype(np.float32))
    return x.astype(np.float16 if kind == "f16" else np.float32)


def write_safetensors(file: Path, arrays: Arrays, dtypes: dict[str, str] | None = None) -> None:
    """One file in the safetensors format; uint16 arrays are meant as bf16.

    `dtypes` says of arrays by name what else their bits mean ("F8_E4M3").
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": (dtypes or {}).get(name, _FORMAT_NAMES[array.dtype.name]),
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            stream.write(np.ascontiguousarray(array).tobytes())


def make_checkpoint(
    folder: Path,
    *,
    kind: str = "f32",
    n_layers: int = 3,
    hidden: int = 64,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    ffn: int = 96,
    vocab: int = 97,
    context: int = 256,
    group_size: int = 32,
    tied: bool = True,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    shards: int = 1,
    seed: int = 0,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write `config.json` and the weights into `folder`, which is made; returns it.

    `kind` is one of `KINDS`; `extra` are further fields of the config (rope_scaling, …).
    """
    random = np.random.default_rng(seed)
    width = head_dim or hidden // n_heads
    arrays: Arrays = {}

    def matrix(module: str, rows: int, columns: int, bias: bool = False) -> None:
        w = (random.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        if kind in ("q4", "q8"):
            packed, scales, biases = quantize(w, int(kind[1:]), group_size)
            arrays[f"{module}.weight"] = packed
            arrays[f"{module}.scales"] = scales
            arrays[f"{module}.biases"] = biases
        else:
            arrays[f"{module}.weight"] = cast(w, kind)
        if bias:
            vector(f"{module}.bias", rows, 0.0)

    def vector(name: str, size: int, mean: float) -> None:
        values = mean + 0.1 * random.standard_normal(size)
        arrays[name] = cast(values, "f16" if kind in ("q4", "q8") else kind)

    matrix("model.embed_tokens", vocab, hidden)
    for layer in range(n_layers):
        at = f"model.layers.{layer}"
        vector(f"{at}.input_layernorm.weight", hidden, 1.0)
        matrix(f"{at}.self_attn.q_proj", n_heads * width, hidden, attention_bias)
        matrix(f"{at}.self_attn.k_proj", n_kv_heads * width, hidden, attention_bias)
        matrix(f"{at}.self_attn.v_proj", n_kv_heads * width, hidden, attention_bias)
        matrix(f"{at}.self_attn.o_proj", hidden, n_heads * width, attention_bias)
        vector(f"{at}.post_attention_layernorm.weight", hidden, 1.0)
        matrix(f"{at}.mlp.gate_proj", ffn, hidden, mlp_bias)
        matrix(f"{at}.mlp.up_proj", ffn, hidden, mlp_bias)
        matrix(f"{at}.mlp.down_proj", hidden, ffn, mlp_bias)
    vector("model.norm.weight", hidden, 1.0)
    if not tied:
        matrix("lm_head", vocab, hidden)

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": width,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "attention_bias": attention_bias,
        "mlp_bias": mlp_bias,
        "hidden_act": "silu",
        "eos_token_id": 2,
        **(extra or {}),
    }
    if kind in ("q4", "q8"):
        config["quantization"] = {"group_size": group_size, "bits": int(kind[1:])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    _write_weights(folder, arrays, shards)
    return folder


def _write_weights(folder: Path, arrays: Arrays, shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", arrays)
        return
    shard_of: dict[str, str] = {}
    for shard, names in enumerate(np.array_split(list(arrays), shards)):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {str(name): arrays[str(name)] for name in names})
        shard_of |= {str(name): file for name in names}
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="f32")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=96)
    parser.add_argument("--vocab", type=int, default=97)
    chosen = parser.parse_args()
    make_checkpoint(
        chosen.folder,
        kind=chosen.kind,
        n_layers=chosen.layers,
        hidden=chosen.hidden,
        ffn=chosen.ffn,
        vocab=chosen.vocab,
    )


if __name__ == "__main__":
    main()
