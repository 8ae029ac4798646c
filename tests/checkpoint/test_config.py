"""config.json → ModelShape: real configs, and every way in which one may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.checkpoint.config import read_config, read_generation, shape_of
from gangline.checkpoint.quantization import GroupAffine
from gangline.checkpoint.shape import Mlp, Rope, RopeScaling
from gangline.errors import CheckpointError, NotFound

# The fields of https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct that matter here.
LLAMA_32_1B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}


def parse(**changes: Any) -> Any:
    config = {**LLAMA_32_1B, **changes}
    missing = [name for name, value in config.items() if value is ...]
    return shape_of({k: v for k, v in config.items() if k not in missing}, {}, Path("m"))


def test_a_real_config() -> None:
    shape = parse()
    assert (shape.family, shape.n_layers, shape.hidden, shape.vocab) == ("llama", 16, 2048, 128256)
    layer = shape.layers[7]
    rules = layer.mixer.rules
    assert (rules.n_heads, rules.n_kv_heads, rules.head_dim, rules.value_dim) == (32, 8, 64, 64)
    assert (rules.scale, rules.window, layer.mlp) == (0.125, 0, Mlp(8192))
    assert (shape.context, shape.tied, shape.activation) == (131072, True, "silu")
    assert layer.mixer.rope == Rope(64, 5e5, RopeScaling("llama3", 32.0, 1.0, 4.0, 8192))
    assert shape.norm_eps == 1e-5
    assert shape.eos_ids == (128001, 128008, 128009)
    assert shape.quantization is None
    assert shape.cache_bytes_per_token("f32") == (2 * 8 * 64 * 4,) * 16


def test_what_may_be_missing_has_a_default() -> None:
    shape = parse(
        head_dim=...,
        num_key_value_heads=...,
        rope_scaling=None,
        tie_word_embeddings=...,
        eos_token_id=...,
    )
    mixer = shape.layers[0].mixer
    assert (mixer.rules.head_dim, mixer.rules.n_kv_heads, mixer.rope) == (64, 32, Rope(64, 5e5))
    assert (shape.tied, shape.eos_ids) == (False, ())


def test_rope_parameters_of_newer_transformers() -> None:
    shape = parse(
        rope_theta=...,
        rope_scaling=...,
        rope_parameters={"rope_theta": 7e5, "rope_type": "default"},
    )
    assert shape.layers[0].mixer.rope == Rope(64, 7e5)
    linear = parse(rope_scaling={"type": "linear", "factor": 2.0})
    assert linear.layers[0].mixer.rope.scaling == RopeScaling("linear", 2.0)


def test_mlx_quantization_with_overrides() -> None:
    shape = parse(
        quantization={
            "group_size": 64,
            "bits": 4,
            "model.embed_tokens": {"group_size": 32, "bits": 8},
            "lm_head": False,
        }
    )
    assert shape.quantization.of("model.layers.0.mlp.up_proj") == GroupAffine(4, 64)
    assert shape.quantization.of("model.embed_tokens") == GroupAffine(8, 32)
    assert shape.quantization.of("lm_head") is None


def test_end_tokens_of_both_files_are_joined(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_32_1B, "eos_token_id": 2}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5]}))
    shape = shape_of(read_config(tmp_path), read_generation(tmp_path), tmp_path)
    assert shape.eos_ids == (2, 5)


def test_an_unknown_architecture_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(CheckpointError, match="`Mamba9ForCausalLM` is not supported") as caught:
        parse(architectures=["Mamba9ForCausalLM"])
    assert "LlamaForCausalLM" in caught.value.hint


WRONG = [
    ("num_hidden_layers", 0),
    ("num_hidden_layers", 10**9),
    ("num_hidden_layers", "16"),
    ("num_hidden_layers", True),
    ("num_hidden_layers", ...),
    ("hidden_size", -1),
    ("hidden_size", 2048.0),
    ("num_key_value_heads", 5),
    ("head_dim", 63),
    ("head_dim", 1024),
    ("vocab_size", 2**40),
    ("rms_norm_eps", "tiny"),
    ("rms_norm_eps", float("nan")),
    ("rope_theta", 0),
    ("rope_theta", float("inf")),
    ("tie_word_embeddings", "yes"),
    ("hidden_act", "mish"),
    ("hidden_act", ["silu"]),
    ("rope_scaling", {"rope_type": "dynamic"}),
    ("rope_scaling", {"rope_type": "dynamic", "factor": 1, "alpha": 1000}),
    ("rope_scaling", {"rope_type": "mrope", "factor": 4}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2}),
    ("rope_scaling", {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
    ("rope_scaling", {"rope_type": "linear"}),
    ("rope_scaling", {"rope_type": "llama3", "factor": 8, "high_freq_factor": 1.0}),
    ("quantization", {"group_size": 64, "bits": 7}),
    ("quantization", {"group_size": 48, "bits": 4}),
    ("quantization", {"group_size": 64, "bits": 4, "mode": "mxfp4"}),
    ("quantization", {"group_size": 16, "bits": 4, "mode": "nvfp4"}),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("quantization_config", {"quant_method": "gptq", "bits": 5, "group_size": 128}),
    ("quantization_config", {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}),
    ("quantization_config", {"quant_method": "awq", "bits": 4, "version": "gemv_fast"}),
    ("quantization_config", {"quant_method": "compressed-tensors", "format": "marlin-24"}),
    (
        "quantization_config",
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"0": {"weights": {"num_bits": 9}}},
        },
    ),
    ("quantization_config", {"quant_method": "fp8", "fmt": "e5m2"}),
    ("quantization_config", {"quant_method": "fp8", "weight_block_size": [128]}),
    ("quantization_config", {"quant_method": ["gptq"]}),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse(**{name: value})
    assert name in caught.value.message


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from([*LLAMA_32_1B, "quantization", "quantization_config"]), value=JUNK)
def test_junk_gives_a_shape_or_our_error(name: str, value: Any) -> None:
    try:
        shape = parse(**{name: value})
    except CheckpointError:
        return
    rules = shape.layers[0].mixer.rules
    assert rules.n_heads % rules.n_kv_heads == 0


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 10**5])
def test_a_damaged_file_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config.json"):
        read_config(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model folder"):
        read_config(tmp_path / "none")
    with pytest.raises(NotFound, match=r"holds no config.json"):
        read_config(tmp_path)
