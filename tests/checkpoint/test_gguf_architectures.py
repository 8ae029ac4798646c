"""Every architecture that GGUF has of ours: the same tensors, the same shape, so the same model.

The small models of the conformance tests are converted as llama.cpp does it (`make_gguf`), then
read back. What GGUF cannot say (a window of Mistral, say) is taken from their configs first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gangline.checkpoint.affine import values
from gangline.checkpoint.config import shape_of
from gangline.checkpoint.gguf_config import ARCHITECTURES
from gangline.checkpoint.gguf_names import NAMES
from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.shape import ModelShape
from tests.described import describe
from tests.engine.fixtures import NAMES as FIXTURES
from tests.engine.fixtures import read_case
from tests.make_gguf import make_gguf

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

# Converters write the text part of a model that sees; these files have all of it.
CASES = [name for name in FIXTURES if not name.endswith("-seeing")]

# Case → changes to its config: what files of this architecture cannot say, or leave to llama.cpp.
CHANGES: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "mistral": {"sliding_window": None},
    "mixtral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False, "layer_types": None, "sliding_window": None},
    "qwen3_moe": {"mlp_only_layers": []},
    "gemma2": {"query_pre_attn_scalar": 12},
    "gemma3": {
        "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention"] * 4,
    },
    "smollm3": {"no_rope_layers": [1, 1, 1]},
    "cohere2": {"layer_types": ["sliding_attention"] * 3},
    "glm4_moe": {"n_group": 1, "topk_group": 1},
    "deepseek_v3": {"rope_parameters": None},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "full_attention_interval": 2,
    },
}


def flat(shape: ModelShape, ignored: tuple[str, ...]) -> dict[str, Any]:
    """Every number of a shape by its path; a file keeps them in single precision."""

    def walk(path: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict | list | tuple):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            return {k: v for n, part in pairs for k, v in walk(f"{path}.{n}", part).items()}
        return {path: value}

    found = msgspec.to_builtins(shape)
    return walk("", {name: value for name, value in found.items() if name not in ignored})


@pytest.mark.parametrize("name", CASES)
def test_a_model_comes_back_from_gguf(tmp_path: Path, name: str) -> None:
    read_case(name, tmp_path)
    own = open_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changes = dict(CHANGES.get(name, {}))
    if name.startswith("deepseek_v3"):  # one number in the file says both
        changes["rope_parameters"] = {**config["rope_parameters"], "mscale": 0.7}
    file = make_gguf(tmp_path / "m.gguf", tmp_path, "F32", changes=changes)

    other = open_checkpoint(file)
    wanted = shape_of({**config, **changes}, {}, tmp_path)
    ignored = ("architecture", "family", "eos_ids")
    expected_shape = flat(wanted, ignored)
    for path, value in flat(other.shape, ignored).items():
        near = isinstance(value, float)
        expected_value = expected_shape.pop(path, None)
        assert value == (pytest.approx(expected_value, rel=1e-6) if near else expected_value), path
    assert not expected_shape

    stored = {n for n in own.names if "gate_up_proj" not in n and "experts.down_proj" not in n}
    assert stored <= set(other.names)
    for tensor in stored:
        found, expected = other.tensor(tensor), values(own.tensor(tensor))
        assert found.shape == expected.shape, tensor
        # An exponential was taken of one and is undone; else one was added to a norm.
        near = 2e-7 if "A_log" in tensor or "norm" in tensor else 0
        np.testing.assert_allclose(values(found), expected, rtol=near, atol=near, err_msg=tensor)
    assert describe(file).size_bytes > 0


def test_experts_with_gates_in_turns_come_back(tmp_path: Path) -> None:
    """gpt-oss: gate rows and up rows alternate in Hugging Face's stacks, transposed."""
    read_case("gpt_oss", tmp_path)
    own = open_checkpoint(tmp_path)
    other = open_checkpoint(make_gguf(tmp_path / "m.gguf", tmp_path, "F32"))
    at = "model.layers.1.mlp.experts"
    stack, bias = (values(own.tensor(f"{at}.gate_up_proj{end}")) for end in ("", "_bias"))
    down, down_bias = (values(own.tensor(f"{at}.down_proj{end}")) for end in ("", "_bias"))
    for e in range(5):
        expected = {
            "gate_proj.weight": stack[e].T[::2],
            "up_proj.weight": stack[e].T[1::2],
            "down_proj.weight": down[e].T,
            "gate_proj.bias": bias[e][::2],
            "up_proj.bias": bias[e][1::2],
            "down_proj.bias": down_bias[e],
        }
        for name, numbers in expected.items():
            found = values(other.tensor(f"{at}.{e}.{name}"))
            np.testing.assert_array_equal(found, numbers, err_msg=name)


def test_every_architecture_has_names() -> None:
    assert set(ARCHITECTURES) == set(NAMES)
