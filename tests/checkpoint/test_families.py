"""What each family makes of a config: published ones, refused ones, junk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.bench.shapes import SHAPES
from gangline.checkpoint.config import shape_of
from gangline.checkpoint.families import ARCHITECTURES, FAMILIES, MODEL_TYPES
from gangline.checkpoint.quantization import Packed
from gangline.checkpoint.shape import (
    LatentAttention,
    Mixture,
    Mlp,
    ModelShape,
    Rope,
    RopeScaling,
    SelfAttention,
)
from gangline.errors import CheckpointError
from tests.engine.fixtures import NAMES, family_of, read_fixture

CONFIGS = {name: read_fixture(name)[0] for name in NAMES}


def parse(config: dict[str, Any]) -> ModelShape:
    return shape_of(config, {}, Path("m"))


def windows(shape: ModelShape) -> list[int]:
    return [layer.mixer.rules.window for layer in shape.layers]


def test_gemma_3_4b() -> None:
    shape = parse(SHAPES["gemma-3-4b"].config)
    assert (shape.n_layers, shape.embedding_scale, shape.activation) == (34, 2560**0.5, "gelu_tanh")
    assert (shape.tied, shape.logit_cap) == (True, 0)
    assert windows(shape) == ([1024] * 5 + [0]) * 5 + [1024] * 4
    near, far = (shape.layers[number].mixer for number in (0, 5))
    assert near.rope == Rope(256, 1e4)
    assert far.rope == Rope(256, 1e6, RopeScaling("linear", 8.0))
    assert near.rules.scale == 1 / 16 and near.head_norm == "head"
    assert set(shape.cache_bytes_per_token()) == {2 * 4 * 256 * 2}


def test_published_configs_of_gemma_3_leave_fields_out() -> None:
    """google/gemma-3-4b-it says this and no more of its text part."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    seeing = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [1, 106],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    }
    shape, plain = parse(seeing), parse(SHAPES["gemma-3-4b"].config)
    assert shape.layers == plain.layers
    assert (shape.hidden, shape.vocab, shape.context) == (plain.hidden, plain.vocab, plain.context)
    assert shape.eos_ids == (1, 106)


def test_gpt_oss_20b() -> None:
    shape = parse(SHAPES["gpt-oss-20b"].config)
    assert windows(shape) == [128, 0] * 12
    mixer, mlp = shape.layers[0].mixer, shape.layers[0].mlp
    assert isinstance(mixer, SelfAttention) and mixer.sinks and mixer.rope is not None
    scaling = mixer.rope.scaling
    assert (scaling.kind, scaling.factor, scaling.truncate) == ("yarn", 32.0, False)
    assert scaling.magnitude == pytest.approx(1.3465735902799727)  # 0.1 ln(32) + 1
    assert isinstance(mlp, Mixture)
    assert (mlp.routing.scoring, mlp.routing.n_experts, mlp.routing.n_active) == (
        "softmax_chosen",
        32,
        4,
    )
    assert shape.activation == "swiglu_clamped"


def test_deepseek_v3() -> None:
    shape = parse(SHAPES["deepseek-v3"].config)
    assert [type(layer.mlp) for layer in shape.layers[2:4]] == [Mlp, Mixture]
    mixer, mlp = shape.layers[60].mixer, shape.layers[60].mlp
    assert isinstance(mixer, LatentAttention) and isinstance(mlp, Mixture)
    assert (mixer.rules.head_dim, mixer.rules.value_dim, mixer.rules.n_kv_heads) == (576, 512, 1)
    assert mixer.rope.scaling.magnitude == 1, "mscale and mscale_all_dim are equal"
    assert mixer.scale == pytest.approx(192**-0.5 * 1.3688879454113936**2)  # 0.1 ln(40) + 1
    assert (mlp.routing.n_groups, mlp.routing.n_active_groups, mlp.shared_width) == (8, 4, 2048)
    assert shape.cache_bytes_per_token() == (576 * 2,) * 61
    kimi = {**SHAPES["deepseek-v3"].config, "model_type": "kimi_k2", "rope_theta": 50000.0}
    kimi |= {"n_group": 1, "topk_group": 1, "n_routed_experts": 384, "num_attention_heads": 64}
    assert parse(kimi).family == "deepseek_v3"


def test_parts_of_models_that_see_may_be_quantized_by_their_own_config() -> None:
    """Kimi K2.5 says how its text part is quantized within the text part's config."""
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    text = {**SHAPES["deepseek-v3"].config, "model_type": "kimi_k2", "eos_token_id": 7}
    text["quantization_config"] = quantization
    seeing = {"architectures": ["KimiK25ForConditionalGeneration"], "text_config": text}
    shape = parse(seeing | {"model_type": "kimi_k25", "vision_config": {}})
    assert (shape.family, shape.n_layers, shape.eos_ids) == ("deepseek_v3", 61, (7,))
    assert shape.quantization == Packed(4)


def test_mistral_models_that_see() -> None:
    assert parse(CONFIGS["mistral-seeing"]).family == "mistral"
    text = CONFIGS["mistral-seeing"]["text_config"] | {"model_type": "ministral3"}
    with pytest.raises(CheckpointError, match="`model_type` is 'ministral3'"):
        parse(CONFIGS["mistral-seeing"] | {"text_config": text})


def test_memory_of_layers_without_a_cache() -> None:
    shape = parse(CONFIGS["qwen3_next"])
    assert shape.cache_bytes_per_token("f32") == (0, 2 * 2 * 16 * 4) * 2
    width, matrices = 2 * 2 * 8 + 4 * 12, 4 * 8 * 12
    assert shape.state_bytes_per_lane() == ((3 * width + matrices) * 4, 0) * 2


def test_windows_that_a_config_turns_off() -> None:
    qwen = CONFIGS["qwen2"]
    assert windows(parse(qwen)) == [0, 9, 9]
    changed = {name: value for name, value in qwen.items() if name != "layer_types"}
    assert windows(parse(changed)) == [0, 9, 9]
    assert windows(parse(changed | {"use_sliding_window": False})) == [0, 0, 0]
    assert windows(parse(qwen | {"use_sliding_window": False})) == [0, 0, 0]
    assert windows(parse(CONFIGS["mistral"] | {"sliding_window": None})) == [0, 0, 0]


def test_long_rotations() -> None:
    rope = parse(CONFIGS["phi3"]).layers[0].mixer.rope
    assert (rope.dim, rope.scaling.kind, rope.scaling.original_context) == (12, "longrope", 16)
    assert rope.scaling.long == tuple(2 * factor for factor in rope.scaling.short)
    assert rope.scaling.magnitude == pytest.approx((1 + 3 / 4) ** 0.5)  # 1 + ln(128 / 16) / ln(16)


# Fields that change the result in a way that cannot be run.
REFUSED = [
    ("gemma2", "use_bidirectional_attention", True),
    ("mistral", "layer_types", ["full_attention"] * 3),
    ("qwen2", "use_mrope", True),
    ("qwen2", "layer_types", ["linear_attention"] * 3),
    ("qwen3", "layer_types", ["full_attention"]),
    ("cohere2", "use_qk_norm", True),
    ("cohere2", "rotary_pct", 0.5),
    ("gpt_oss", "swiglu_limit", 5.0),
    ("gpt_oss", "swiglu_alpha", 1.0),
    ("gpt_oss", "hidden_act", "gelu"),
    ("deepseek_v3", "scoring_func", "softmax"),
    ("deepseek_v3", "topk_method", "greedy"),
    ("deepseek_v3", "n_group", 3),
    ("deepseek_v3", "n_routed_experts", 2**30),
    ("deepseek_v3", "num_attention_heads", 2**30),
    ("qwen3_next", "linear_num_key_heads", 2**30),
    ("deepseek_v3", "num_experts_per_tok", 5),
    ("glm4_moe", "moe_layer_freq", 2),
    ("smollm3", "no_rope_layers", [1, 0]),
    ("smollm3", "no_rope_layers", [1, 0, 2]),
    ("qwen3_next", "linear_num_value_heads", 3),
    ("qwen3_next", "hidden_act", "gelu"),
    ("granite", "residual_multiplier", 0),
    ("gemma3", "attn_logit_softcapping", -1),
    ("glm4", "partial_rotary_factor", 0.45),
    ("llama", "rope_theta", 1.0),
]


@pytest.mark.parametrize(("family", "name", "value"), REFUSED)
def test_what_cannot_be_run_is_refused_by_name(family: str, name: str, value: Any) -> None:
    config = {key: field for key, field in CONFIGS[family].items() if key != "rope_parameters"}
    with pytest.raises(CheckpointError, match=f"`{name}` is"):
        parse(config | {name: value})


def test_every_family_is_listed_where_one_is_not_known() -> None:
    with pytest.raises(CheckpointError, match="`Llama4ForCausalLM` is not supported") as caught:
        parse({"architectures": ["Llama4ForCausalLM"]})
    assert all(name in caught.value.hint for name in ARCHITECTURES)
    with pytest.raises(CheckpointError, match="`minimax_m2` is not supported"):
        parse({"model_type": "minimax_m2"})
    for model_type, architecture in MODEL_TYPES.items():
        assert ARCHITECTURES[architecture].name in FAMILIES
        config = CONFIGS[ARCHITECTURES[architecture].name] | {"model_type": model_type}
        config.pop("architectures")
        assert parse(config).architecture == architecture


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_junk_gives_a_shape_or_our_error(data: st.DataObject) -> None:
    """Any field of any family's config may be anything, also within the rope's object."""
    name = data.draw(st.sampled_from(NAMES))
    config = dict(CONFIGS[name])
    field = data.draw(st.sampled_from(sorted(config)))
    if isinstance(config[field], dict) and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(sorted(config[field])))
        config[field] = config[field] | {inner: data.draw(JUNK)}
    else:
        config[field] = data.draw(JUNK)
    try:
        shape = parse(config)
    except CheckpointError:
        return
    assert shape.family == family_of(name)
    assert len(shape.cache_bytes_per_token()) == shape.n_layers
