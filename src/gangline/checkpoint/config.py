"""`config.json` (Hugging Face, MLX) → `ModelShape`; knows no tensor and no array library.

Which architectures there are is a table; reading one that is not in it is an error that names
it. Everything else a config says is checked before it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gangline.checkpoint.quantization import bad, quantization_of
from gangline.checkpoint.shape import Activation, ModelShape, RopeKind, RopeScaling
from gangline.errors import CheckpointError, NotFound

CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_LAYERS = 4096
MAX_SIZE = 2**31 - 1

# Architecture of config.json → our family.
ARCHITECTURES = {"LlamaForCausalLM": "llama"}

# `hidden_act` of config.json → our name.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}

ROPE_KINDS: dict[str, RopeKind] = {"default": "default", "linear": "linear", "llama3": "llama3"}


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as it is."""
    if not folder.is_dir():
        raise NotFound(f"no model folder at {folder}", hint="Check the path for spelling.")
    found = _read_json(folder / CONFIG_NAME)
    if found is None:
        raise NotFound(
            f"{folder} holds no {CONFIG_NAME}",
            hint="Give the folder of a model in Hugging Face format.",
        )
    return found


def architecture_of(config: Mapping[str, Any]) -> str:
    """The name in config.json, whether we know it or not; "" where there is none."""
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0][:200]
    model_type = config.get("model_type")
    # MLX checkpoints sometimes keep the model type only.
    return "LlamaForCausalLM" if model_type == "llama" else ""


def read_generation(folder: Path) -> dict[str, Any]:
    """`generation_config.json` as it is; empty where there is none."""
    return _read_json(folder / GENERATION_NAME) or {}


def shape_of(config: Mapping[str, Any], generation: Mapping[str, Any], folder: Path) -> ModelShape:
    """Check a config and keep what running the model needs."""
    file = folder if folder.suffix == ".gguf" else folder / CONFIG_NAME
    architecture = architecture_of(config)
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{file}: architecture `{architecture}` is not supported",
            hint=f"Supported: {', '.join(ARCHITECTURES)}.",
        )
    fields = _Fields(file, config)
    n_heads = fields.count("num_attention_heads")
    n_kv_heads = fields.count("num_key_value_heads", n_heads)
    hidden = fields.count("hidden_size")
    head_dim = fields.count("head_dim", hidden // n_heads)
    if n_heads % n_kv_heads:
        raise fields.bad("num_key_value_heads", n_kv_heads, f"a divisor of {n_heads}")
    if head_dim % 2 or head_dim > 512:
        raise fields.bad("head_dim", head_dim, "an even number up to 512")
    rope = _object(config.get("rope_parameters")) or _object(config.get("rope_scaling"))
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    return ModelShape(
        architecture=architecture,
        family=ARCHITECTURES[architecture],
        n_layers=fields.count("num_hidden_layers", limit=MAX_LAYERS),
        hidden=hidden,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        ffn=fields.count("intermediate_size"),
        vocab=fields.count("vocab_size"),
        context=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive("rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
        rope_theta=fields.positive("rope_theta", theta),
        rope_scaling=_rope_scaling(fields, rope),
        tied=fields.flag("tie_word_embeddings", False),
        activation=_activation(fields),
        quantization=quantization_of(config, file),
        eos_ids=_eos_ids(config, generation),
    )


class _Fields:
    """Typed access to a config, with errors that name the file and the field."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self.file = file
        self.config = config

    def bad(self, name: str, value: object, expected: str) -> CheckpointError:
        return bad(self.file, name, value, expected)

    def count(self, name: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        value = self.config.get(name)
        if value is None:
            value = default
        if type(value) is not int or not 1 <= value <= limit:
            raise self.bad(name, value, f"a whole number from 1 to {limit}")
        return value

    def positive(self, name: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise self.bad(name, value, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        if value is None:
            value = default
        if type(value) is not bool:
            raise self.bad(name, value, "true or false")
        return value


def _activation(fields: _Fields) -> Activation:
    name = fields.config.get("hidden_act", "silu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise fields.bad("hidden_act", name, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _rope_scaling(fields: _Fields, rope: dict[str, Any]) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_KINDS:
        raise fields.bad("rope_scaling", kind, f"one of {', '.join(ROPE_KINDS)}")
    if kind == "default":
        return RopeScaling()
    factor = fields.positive("rope_scaling.factor", rope.get("factor"))
    if kind == "linear":
        return RopeScaling("linear", factor)
    original = rope.get("original_max_position_embeddings", 8192)
    low = fields.positive("rope_scaling.low_freq_factor", rope.get("low_freq_factor", 1.0))
    high = fields.positive("rope_scaling.high_freq_factor", rope.get("high_freq_factor", 4.0))
    if high <= low:
        raise fields.bad("rope_scaling.high_freq_factor", high, f"more than {low}")
    return RopeScaling("llama3", factor, low, high, int(fields.positive("rope_scaling", original)))


def _eos_ids(*sources: Mapping[str, Any]) -> tuple[int, ...]:
    """Every end token that the config or the generation config names, in their order."""
    ids: list[Any] = []
    for source in sources:
        value = source.get("eos_token_id")
        ids += value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(id for id in ids if type(id) is int and id >= 0))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object, or `None` where there is no such file."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file} is larger than {MAX_CONFIG_BYTES} bytes")
        value = json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is not valid JSON ({str(error)[:200]})",
            hint="The file is damaged or incomplete: download or copy it again.",
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return value
