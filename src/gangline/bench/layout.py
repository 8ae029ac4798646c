"""Which tensors a checkpoint of a config has: names, dtypes and shapes, in the order of a file.

Dense (bf16) ones are named as Hugging Face's transformers names them, quantized ones as MLX does:
they differ for experts only, which MLX stacks. Knows no bytes and no NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

from gangline.checkpoint.headers import DTYPE_BYTES

GROUP_SIZE = 64  # MLX's default
QUANTS = {"q4": 4, "q8": 8, "bf16": None}  # name → bits per weight; None is dense
_GATE_BITS = 8  # of the router of experts, whatever the others have (mlx-lm, qwen3_moe.py)

Content = Literal["one", "dense", "codes", "scales", "offsets"]


class Part(NamedTuple):
    """One tensor of a file; `columns` and `bits` are those of the matrix that it belongs to."""

    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    content: Content
    columns: int = 0
    bits: int = 0

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


class _Module(NamedTuple):
    """A norm (no columns) or a matrix, or several of them stacked."""

    name: str
    rows: int
    columns: int = 0
    stacked: int = 0
    router: bool = False


def parts_of(config: Mapping[str, Any], bits: int | None) -> list[Part]:
    """All tensors of the checkpoint; with `bits` every matrix is quantized in groups."""
    return [part for module in _modules(config, bits) for part in _parts(module, bits)]


def quantization_of(config: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """MLX's `quantization` for the config: one form for all, and the modules that differ."""
    form: dict[str, Any] = {"group_size": GROUP_SIZE, "bits": bits}
    routers = {"group_size": GROUP_SIZE, "bits": _GATE_BITS}
    return form | {one.name: dict(routers) for one in _modules(config, bits) if one.router}


def _modules(config: Mapping[str, Any], bits: int | None) -> Iterator[_Module]:
    hidden, n_heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // n_heads
    q_rows, kv_rows = n_heads * head_dim, config["num_key_value_heads"] * head_dim
    has_head_norms = config["model_type"] in ("qwen3", "qwen3_moe")
    yield _Module("model.embed_tokens", config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield _Module(f"{at}.input_layernorm", hidden)
        yield _Module(f"{at}.self_attn.q_proj", q_rows, hidden)
        yield _Module(f"{at}.self_attn.k_proj", kv_rows, hidden)
        yield _Module(f"{at}.self_attn.v_proj", kv_rows, hidden)
        yield _Module(f"{at}.self_attn.o_proj", hidden, q_rows)
        if has_head_norms:
            yield _Module(f"{at}.self_attn.q_norm", head_dim)
            yield _Module(f"{at}.self_attn.k_norm", head_dim)
        yield _Module(f"{at}.post_attention_layernorm", hidden)
        if "num_experts" in config:
            yield from _experts(f"{at}.mlp", config, bits)
        else:
            yield from _gated(f"{at}.mlp", hidden, config["intermediate_size"])
    yield _Module("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        yield _Module("lm_head", config["vocab_size"], hidden)


def _gated(at: str, hidden: int, width: int, stacked: int = 0) -> Iterator[_Module]:
    yield _Module(f"{at}.gate_proj", width, hidden, stacked)
    yield _Module(f"{at}.up_proj", width, hidden, stacked)
    yield _Module(f"{at}.down_proj", hidden, width, stacked)


def _experts(at: str, config: Mapping[str, Any], bits: int | None) -> Iterator[_Module]:
    hidden, n_experts = config["hidden_size"], config["num_experts"]
    width = config["moe_intermediate_size"]
    yield _Module(f"{at}.gate", n_experts, hidden, router=True)
    if bits is not None:
        yield from _gated(f"{at}.switch_mlp", hidden, width, n_experts)
        return
    for expert in range(n_experts):
        yield from _gated(f"{at}.experts.{expert}", hidden, width)


def _parts(module: _Module, bits: int | None) -> Iterator[Part]:
    name, rows, columns, stacked, router = module
    if not columns:
        yield Part(f"{name}.weight", "BF16" if bits is None else "F16", (rows,), "one")
        return
    outer = (stacked, rows) if stacked else (rows,)
    if bits is None:
        yield Part(f"{name}.weight", "BF16", (*outer, columns), "dense", columns)
        return
    bits = _GATE_BITS if router else bits
    groups = (*outer, columns // GROUP_SIZE)
    yield Part(f"{name}.weight", "U32", (*outer, columns * bits // 32), "codes", columns, bits)
    yield Part(f"{name}.scales", "F16", groups, "scales", columns, bits)
    yield Part(f"{name}.biases", "F16", groups, "offsets", columns, bits)
