"""What a model folder holds, cheaply: config and headers only, no NumPy, no weights.

A node calls this for every model that it stores; the planner needs the sizes per layer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from gangline.checkpoint.config import architecture_of
from gangline.checkpoint.contents import Contents
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.parts import Part
from gangline.checkpoint.shape import ModelShape
from gangline.errors import CheckpointError

# Of a text model, alone or beside the other parts of a model that sees.
_ROOT = r"^(?:language_model\.|model\.)*"
_LAYER = re.compile(_ROOT + r"layers\.(\d{1,9})\.")
_EMBEDDING = re.compile(_ROOT + r"embed_tokens\.")
_EXPERTS = re.compile(r"\.(experts|switch_mlp)\.")
_OUTPUT = re.compile(_ROOT + r"(norm|lm_head)\.")


class Sizes(msgspec.Struct, frozen=True):
    """Bytes of the parts that a plan hands out, as they are in memory once they are loaded.

    `output` is the final norm and the output matrix; where the matrix is the embedding (tied) it
    counts as `embedding` only. `experts` is the part of each layer that a router chooses from.
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    embedding: int
    output: int


class Description(msgspec.Struct, frozen=True):
    """A stored model. `shape` is `None` exactly when it is not supported; `reason` says why."""

    fingerprint: str
    size_bytes: int
    architecture: str
    shape: ModelShape | None = None
    reason: str = ""
    layer_bytes: tuple[int, ...] = ()
    embedding_bytes: int = 0
    output_bytes: int = 0

    @property
    def supported(self) -> bool:
        return self.shape is not None

    @property
    def family(self) -> str:
        """Our family name; the architecture's where the model is not supported."""
        return self.shape.family if self.shape is not None else self.architecture

    @property
    def n_layers(self) -> int:
        return self.shape.n_layers if self.shape is not None else 0


def describe_contents(contents: Contents) -> Description:
    """Describe a model by its config and headers; a sound one that is not supported is described
    as such. CheckpointError where a header says what cannot be."""
    shape, reason, found = None, "", Sizes((), (), 0, 0)
    try:
        shape = contents.shape()
    except CheckpointError as error:
        reason = f"{error.message}. {error.hint}".strip()
    if shape is not None:
        parts = contents.parts(shape)
        found = sizes_of(parts, shape)
        lacking = missing(parts, shape)
        if lacking:
            shape, found = None, Sizes((), (), 0, 0)
            reason = f"{contents.path} lacks {lacking}. {REDOWNLOAD}"
    return Description(
        fingerprint=fingerprint_of(contents.config, contents.entries),
        size_bytes=sum(entry.n_bytes for entry in contents.entries.values()),
        architecture=architecture_of(contents.config),
        shape=shape,
        reason=reason,
        layer_bytes=found.layers,
        embedding_bytes=found.embedding,
        output_bytes=found.output,
    )


def sizes_of(parts: Mapping[str, Part], shape: ModelShape) -> Sizes:
    """Sum the tensors by where they belong; those that do not serve the text count nowhere."""
    layers, experts = [0] * shape.n_layers, [0] * shape.n_layers
    embedding = output = 0
    for name, part in parts.items():
        layer = _LAYER.search(name)
        if layer is not None:
            number = int(layer[1])
            if number < shape.n_layers:
                layers[number] += part.n_bytes
                experts[number] += part.n_bytes if _EXPERTS.search(name) else 0
        elif _EMBEDDING.search(name):
            embedding += part.n_bytes
        elif (own := _OUTPUT.search(name)) and not (shape.tied and own[1] == "lm_head"):
            output += part.n_bytes
    return Sizes(tuple(layers), tuple(experts), embedding, output)


def missing(parts: Mapping[str, Part], shape: ModelShape) -> str:
    """What the files lack of the model that the config describes, in words; "" for nothing.

    Layers of one kind have the same tensors, so one that another layer of its kind has is missed.
    """
    of_layer: list[set[str]] = [set() for _ in range(shape.n_layers)]
    others = set()
    for name in parts:
        layer = _LAYER.search(name)
        if layer is None:
            own = _OUTPUT.search(name)
            others.add(own[1] if own else "embed_tokens" if _EMBEDDING.search(name) else "")
        elif int(layer[1]) < shape.n_layers and name.endswith(".weight"):
            of_layer[int(layer[1])].add(name[layer.end() :])
    empty = [number for number, names in enumerate(of_layer) if not names]
    if empty:
        first = f"layer {empty[0]}" if len(empty) == 1 else f"{len(empty)} layers, as {empty[0]},"
        return f"{first} of the {shape.n_layers} of its config"
    wanted = {"embed_tokens", "norm"} | (set() if shape.tied else {"lm_head"})
    if wanted - others:
        return f"`{min(wanted - others)}.weight`"
    for number, (layer_shape, names) in enumerate(zip(shape.layers, of_layer, strict=True)):
        twin = shape.layers.index(layer_shape)
        if names ^ of_layer[twin]:
            bare = number if of_layer[twin] - names else twin
            return f"`{min(names ^ of_layer[twin])}` of layer {bare}"
    return ""


def unused(parts: Mapping[str, Part], shape: ModelShape) -> dict[str, int]:
    """What does not serve the text, by the place that its names share → number of tensors: vision
    towers, and layers that guess tokens ahead ("model.layers.61")."""
    found: dict[str, int] = {}
    for name in parts:
        layer = _LAYER.search(name)
        if layer is not None and int(layer[1]) >= shape.n_layers:
            place = name[: layer.end() - 1]
        elif layer is None and not (_EMBEDDING.search(name) or _OUTPUT.search(name)):
            place = re.sub(r"^((?:model\.)?[^.]*).*$", r"\1", name)
        else:
            continue
        found[place] = found.get(place, 0) + 1
    return found


def fingerprint_of(config: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    """Equal exactly when configs and tensor names, dtypes and shapes are; sharding is ignored."""
    lines = [json.dumps(config, sort_keys=True)]
    lines += [json.dumps([e.name, e.dtype, e.shape]) for _, e in sorted(entries.items())]
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
