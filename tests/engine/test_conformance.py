"""Every family's logits are those of Hugging Face transformers in float32, on every back end.

The fixtures are made by `python -m tools.conformance record`; `make conformance` compares live.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.families import FAMILIES
from tests.engine.conformance import CONTEXT, decode_error, lanes_error, prefill_error
from tests.engine.fixtures import (
    FIXTURES,
    NAMES,
    family_of,
    read_case,
    read_fixture,
    write_model,
)
from tests.engine.steps import Chain

BOUND = 1e-4  # of the largest logit

# What a back end needs besides gangline itself.
BACKENDS = {"reference": "numpy", "cpu": "gangline._kernels"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, backend: str) -> None:
    """Prefill in one step, token by token, and lanes of different lengths in one batch."""
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{BACKENDS[backend]} is not installed")
    case = read_case(name, tmp_path)
    assert prefill_error(case, backend) <= BOUND
    assert decode_error(case, backend) <= BOUND
    assert lanes_error(case, backend) <= BOUND


def test_every_family_has_a_fixture() -> None:
    assert {family_of(name) for name in NAMES} == set(FAMILIES)
    for name in NAMES:
        config, _, _ = read_fixture(name)
        assert config["architectures"][0] in FAMILIES[family_of(name)].architectures, name


def test_fixtures_are_small() -> None:
    sizes = [(FIXTURES / f"{name}.npz").stat().st_size for name in NAMES]
    assert max(sizes) < 150_000 and sum(sizes) < 2_500_000


# Fixture → fields of its config, and another value for each.
OTHERWISE: dict[str, dict[str, Any]] = {
    "cohere2": {"layer_norm_eps": 0.1, "logit_scale": 0.6, "sliding_window": 12},
    "deepseek_v3": {
        "routed_scaling_factor": 1.5,
        "norm_topk_prob": False,
        "n_group": 2,
        "topk_group": 3,
        "num_experts_per_tok": 2,
        "rope_interleave": False,
    },
    "gemma2": {
        "query_pre_attn_scalar": 22,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": 5.0,
        "hidden_activation": "silu",
        "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "gemma3": {"query_pre_attn_scalar": 22, "sliding_window": 8, "final_logit_softcapping": 9.0},
    "glm4_moe": {"n_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.4},
    "gpt_oss": {"num_experts_per_tok": 3, "sliding_window": 9},
    "granite": {
        "embedding_multiplier": 2.9,
        "logits_scaling": 1.6,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
    },
    "llama": {"rms_norm_eps": 0.1, "hidden_act": "gelu"},
    "mistral": {"sliding_window": 12},
    "mixtral": {"num_experts_per_tok": 3, "sliding_window": 18},
    "qwen2": {"layer_types": ["full_attention"] * 3, "sliding_window": 10},
    "qwen3_moe": {"norm_topk_prob": False, "num_experts_per_tok": 2},
    "qwen3_next": {"norm_topk_prob": False, "num_experts_per_tok": 1},
    "smollm3": {"no_rope_layers": [1, 1, 1]},
}
# The same of the object that says how heads rotate.
ROPES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 9000.0, "factor": 7.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0},
    "qwen2": {"factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.1, "attention_factor": 1.1},
    "gpt_oss": {"truncate": True, "original_max_position_embeddings": 40},
    "deepseek_v3": {"mscale": 0.8, "mscale_all_dim": 0.8},
    "phi3": {"long_factor": [1.0] * 6, "attention_factor": 1.1, "rope_type": "default"},
    "glm4": {"partial_rotary_factor": 1.0},
}
CHANGES = [(name, field, value) for name, of in OTHERWISE.items() for field, value in of.items()]
CHANGES += [
    (name, f"rope_parameters.{field}", value)
    for name, of in ROPES.items()
    for field, value in of.items()
]


@pytest.mark.parametrize(("name", "field", "value"), CHANGES)
def test_no_field_is_ignored(tmp_path: Path, name: str, field: str, value: Any) -> None:
    """What a config says matters: another value gives logits beyond the bound."""
    config, weights, rest = read_fixture(name)
    where, _, key = field.rpartition(".")
    changed = config[where] if where else config
    changed[key] = value
    ids = rest["ids/0"].tolist()
    chain = Chain(write_model(tmp_path, config, weights), backend="reference", context=CONTEXT)
    expected = rest["logits/0"]
    assert np.abs(chain.run(ids) - expected).max() > BOUND * np.abs(expected).max()
