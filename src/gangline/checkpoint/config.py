"""`config.json` (Hugging Face, MLX) → `ModelShape`; knows no tensor and no array library.

What an architecture means is its family's affair (`families/`); reading one that is not there is an
error that names it. Everything else a config says is checked before it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gangline.checkpoint.families import ARCHITECTURES, MODEL_TYPES
from gangline.checkpoint.fields import Fields
from gangline.checkpoint.quantization import quantization_of
from gangline.checkpoint.shape import ModelShape
from gangline.errors import CheckpointError, NotFound

CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024


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
    # MLX checkpoints sometimes keep the model type only.
    model_type = config.get("model_type")
    return MODEL_TYPES.get(model_type, "") if isinstance(model_type, str) else ""


def read_generation(folder: Path) -> dict[str, Any]:
    """`generation_config.json` as it is; empty where there is none."""
    return _read_json(folder / GENERATION_NAME) or {}


def shape_of(config: Mapping[str, Any], generation: Mapping[str, Any], folder: Path) -> ModelShape:
    """Check a config and keep what running the model needs."""
    file = folder if folder.suffix == ".gguf" else folder / CONFIG_NAME
    architecture = architecture_of(config)
    family = ARCHITECTURES.get(architecture)
    if family is None:
        name = architecture or str(config.get("model_type", ""))[:200]
        raise CheckpointError(
            f"{file}: architecture `{name}` is not supported",
            hint=f"Supported: {', '.join(ARCHITECTURES)}.",
        )
    text = config.get(family.text_config) if family.text_config else None
    merged = {**config, **text} if isinstance(text, dict) else config
    given = {name: value for name, value in merged.items() if value is not None}
    fields = Fields(file, {**merged, **family.defaults, **given})
    layers = tuple(family.layers(fields))
    return ModelShape(
        architecture=architecture,
        family=family.name,
        layers=layers,
        hidden=fields.count("hidden_size"),
        vocab=fields.count("vocab_size"),
        context=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive(f"{family.norm}_norm_eps", 1e-6),
        tied=fields.flag("tie_word_embeddings", False),
        quantization=quantization_of(merged, file),
        eos_ids=_eos_ids(config, merged, generation),
        **{"activation": fields.activation(), **family.extras(fields)},
    )


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
