"""What a model on disk consists of, whatever its format: config, generation config, parts.

A model is a folder in Hugging Face format, a GGUF file, or a folder that holds one GGUF model.
Reads configs and headers, never weights, and needs no NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gangline.checkpoint.config import CONFIG_NAME, read_config, read_generation, shape_of
from gangline.checkpoint.gguf import find_gguf, read_gguf
from gangline.checkpoint.gguf_config import config_of
from gangline.checkpoint.gguf_names import gguf_parts
from gangline.checkpoint.headers import Entry, read_entries
from gangline.checkpoint.parts import Part
from gangline.checkpoint.quantized_parts import parts_of
from gangline.checkpoint.shape import ModelShape


class Contents(msgspec.Struct, frozen=True):
    """`path` is what errors name: the folder, or the (first) GGUF file."""

    path: Path
    config: Mapping[str, Any]  # as in Hugging Face's config.json
    generation: Mapping[str, Any]
    entries: Mapping[str, Entry]  # by the names in the files

    def shape(self) -> ModelShape:
        """The checked config; `CheckpointError` where the model cannot be run."""
        return shape_of(self.config, self.generation, self.path)

    def parts(self, shape: ModelShape) -> dict[str, Part]:
        """The tensors that the engine may ask for, by the names that Hugging Face gives them."""
        if self.path.is_file():
            return gguf_parts(self.path, self.config, self.entries)
        return parts_of(self.entries, shape.quantization)


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a model is; `None` for one in Hugging Face's format."""
    return None if (path / CONFIG_NAME).is_file() else find_gguf(path)


def read_contents(path: Path) -> Contents:
    """Open a model; `NotFound` where there is none, `CheckpointError` where it is damaged."""
    file = gguf_file(path)
    if file is not None:
        gguf = read_gguf(file)
        return Contents(file, config_of(gguf), {}, gguf.entries)
    config = read_config(path)
    return Contents(path, config, read_generation(path), read_entries(path))
