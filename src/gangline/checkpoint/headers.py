"""Headers of safetensors files: which tensors there are and where their bytes lie.

Everything a file says about itself is checked here before anyone reads a tensor: lengths,
offsets, dtypes, duplicates, holes and overlaps. Reads headers only, and needs no NumPy.
Format: https://huggingface.co/docs/safetensors (u64 header length, JSON header, data).
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from gangline.checkpoint.faults import REDOWNLOAD, damaged
from gangline.errors import CheckpointError, NotFound

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
MAX_DIMENSIONS = 8
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

# Bytes per element of every dtype that the format names.
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


class Entry(msgspec.Struct, frozen=True):
    """Where one tensor lies: bytes `start <= b < end` of the file, after the header."""

    name: str
    dtype: str  # as the format names it: "BF16"
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def n_bytes(self) -> int:
        return self.end - self.start


def read_entries(folder: Path) -> dict[str, Entry]:
    """All tensors of a model's folder, whether it is one file or many with an index."""
    index = folder / INDEX_NAME
    if index.is_file():
        return _read_sharded(folder, index)
    single = folder / SINGLE_NAME
    if single.is_file():
        return read_header(single)
    raise NotFound(
        f"{folder} holds neither {SINGLE_NAME} nor {INDEX_NAME}",
        hint="Give the folder of a model in Hugging Face format with safetensors weights.",
    )


def read_header(file: Path) -> dict[str, Entry]:
    """The checked header of one safetensors file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            first = stream.read(8)
            if len(first) < 8:
                raise damaged(file, f"it has {size} bytes, a header needs at least 8")
            (length,) = struct.unpack("<Q", first)
            if length > MAX_HEADER_BYTES:
                raise damaged(file, f"header of {length} bytes, the limit is {MAX_HEADER_BYTES}")
            if length > size - 8:
                raise damaged(file, f"header of {length} bytes, the file has only {size - 8} more")
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    if len(text) != length:
        raise damaged(file, f"header of {length} bytes, only {len(text)} could be read")
    data_start = 8 + length
    fields = _parse_object(file, text)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise damaged(file, "`__metadata__` is not an object")
    entries = [_entry(file, name, value, data_start) for name, value in fields.items()]
    _check_layout(file, entries, data_start, size)
    return {entry.name: entry for entry in entries}


def _read_sharded(folder: Path, index: Path) -> dict[str, Entry]:
    try:
        text = index.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {index}: {error.strerror or error}") from error
    shard_of = _parse_object(index, text).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise damaged(index, "it has no `weight_map` object")
    shards: dict[str, dict[str, Entry]] = {}
    for name, shard in shard_of.items():
        # A shard is a file of this very folder: an index must not lead anywhere else.
        if not isinstance(shard, str) or shard != Path(shard).name or "\\" in shard or not shard:
            raise damaged(
                index, f"tensor `{name}` is said to be in {shard!r}, not a plain file name"
            )
        if shard not in shards:
            if not (folder / shard).is_file():
                raise CheckpointError(
                    f"{folder / shard} is missing, {index.name} names it for tensor `{name}`",
                    hint=REDOWNLOAD,
                )
            shards[shard] = read_header(folder / shard)
        if name not in shards[shard]:
            raise damaged(folder / shard, f"tensor `{name}` is not in it, {index.name} says it is")
    return {name: shards[shard][name] for name, shard in shard_of.items()}


def _entry(file: Path, name: str, value: Any, data_start: int) -> Entry:
    """One checked line of the header."""
    where = f"tensor `{name}`"
    if not isinstance(value, dict):
        raise damaged(file, f"{where} is not an object")
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise damaged(file, f"{where} has dtype {dtype!r}, known are {', '.join(DTYPE_BYTES)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise damaged(file, f"{where} has shape {shape!r}, expected up to {MAX_DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(file, f"{where} has data_offsets {offsets!r}, expected [start, end]")
    start, end = offsets
    expected = prod(shape) * DTYPE_BYTES[dtype]
    if end - start != expected:
        raise damaged(
            file,
            f"{where} has {end - start} bytes, {dtype} of shape {list(shape)} needs {expected}",
        )
    return Entry(name, dtype, tuple(shape), file, data_start + start, data_start + end)


def _check_layout(file: Path, entries: list[Entry], data_start: int, size: int) -> None:
    """The format wants the tensors to fill the data exactly: no overlap, no hole, no rest."""
    position = data_start
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.end > size:
            raise damaged(
                file,
                f"tensor `{entry.name}` ends at byte {entry.end}, the file has {size} (truncated)",
            )
        if entry.start != position:
            fault = "overlaps the one before it" if entry.start < position else "follows a hole"
            raise damaged(file, f"tensor `{entry.name}` at byte {entry.start} {fault}")
        position = entry.end
    if position != size:
        raise damaged(file, f"{size - position} bytes after the last tensor belong to none")


def _parse_object(file: Path, text: bytes) -> dict[str, Any]:
    """A JSON object without duplicate names anywhere."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise damaged(file, f"`{name[:200]}` occurs twice")
            found[name] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, absurd numbers or nesting
        raise damaged(file, f"its header is not valid JSON ({str(error)[:200]})") from error
    if not isinstance(value, dict):
        raise damaged(file, "its header is not a JSON object")
    return value


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)
