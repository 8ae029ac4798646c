"""GGUF files: what is known of a model, and which tensors there are and where their bytes lie.

Everything that a file says about itself is checked before anyone relies on it: counts, lengths,
types, offsets, duplicates. Reads the head of the file only and needs no NumPy; arrays (a
vocabulary, say) are walked over and read when they are asked for.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from gangline.checkpoint.block_types import BLOCK_TYPES, BY_NUMBER, UNREAD_TYPES
from gangline.checkpoint.faults import REDOWNLOAD, bad_field, damaged
from gangline.checkpoint.headers import Entry
from gangline.errors import CheckpointError, NotFound

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_NAME_BYTES = 1024
MAX_TEXT_BYTES = 64 * 1024 * 1024  # of all strings that are values: chat templates, licences
MAX_ELEMENTS = 8_000_000  # of all arrays together: the largest vocabularies have under two
MAX_DIMENSIONS = 4
MAX_SHARDS = 1000
MAX_SIZE = 2**63 - 1

_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")

# Number of a value's type → its form for `struct`, little-endian.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


class Array:
    """An array of a file's metadata; its elements are read by `values`."""

    def __init__(self, file: Path, name: str, kind: int, count: int, start: int, end: int) -> None:
        self._file, self._name = file, name
        self._kind, self._start, self._end = kind, start, end
        self.count = count

    def __len__(self) -> int:
        return self.count

    def values(self) -> list[Any]:
        """The elements: numbers, or strings."""
        with self._file.open("rb") as stream:
            stream.seek(self._start)
            data = stream.read(self._end - self._start)
        if len(data) != self._end - self._start:
            raise damaged(self._file, f"`{self._name}` is no longer there (the file changed)")
        if self._kind != _STRING:
            return list(struct.unpack(f"<{self.count}{_SCALARS[self._kind]}", data))
        values, position = [], 0
        for _ in range(self.count):
            length = int.from_bytes(data[position : position + 8], "little")
            position += 8
            # A vocabulary may hold half a character as a token: those never match any text.
            values.append(data[position : position + length].decode("utf-8", "replace"))
            position += length
        return values


Metadata = Mapping[str, Any]  # scalars, strings and `Array`s by key


class Gguf:
    """The checked head of a model's GGUF file, or of all the files that it was split into."""

    def __init__(self, file: Path, metadata: Metadata, entries: dict[str, Entry]) -> None:
        self.file = file
        self.metadata = metadata
        self.entries = entries

    def bad(self, key: str, value: object, expected: str) -> CheckpointError:
        return bad_field(self.file, key, value, expected)

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of `key`; an error where it is of another kind."""
        value = self.metadata.get(key)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:
            names = " or ".join(known.__name__ for known in kinds)
            raise self.bad(key, value, f"a value of type {names}")
        return value

    def floats(self, name: str, limit: int = 4096) -> list[float] | None:
        """The numbers of a small F32 tensor (factors of a rotation, say); `None` without it."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.dtype != "F32" or entry.n_bytes > 4 * limit:
            raise self.bad(name, f"{entry.dtype} {list(entry.shape)}", f"up to {limit} F32 numbers")
        with entry.file.open("rb") as stream:
            stream.seek(entry.start)
            data = stream.read(entry.n_bytes)
        if len(data) != entry.n_bytes:
            raise damaged(entry.file, f"tensor `{name}` is no longer there (the file changed)")
        return list(struct.unpack(f"<{len(data) // 4}f", data))


def find_gguf(path: Path) -> Path | None:
    """The (first) GGUF file at `path`: a file, or the only model of a folder; else `None`."""
    if path.suffix == SUFFIX and path.is_file():
        return path
    if not path.is_dir():
        return None
    files = sorted(file for file in path.glob("*" + SUFFIX) if _shard_number(file) == 1)
    if len(files) > 1:
        raise CheckpointError(
            f"{path} holds {len(files)} GGUF models: {', '.join(file.name for file in files)}",
            hint="Name the file that you mean.",
        )
    return files[0] if files else None


def model_name(file: Path) -> str:
    """What a GGUF file is called: its name without number and suffix."""
    split = _SPLIT.match(file.name)
    return split["stem"] if split else file.name.removesuffix(SUFFIX)


def is_first_file(file: Path) -> bool:
    """Whether a file is a model by itself or the first part of one."""
    return file.suffix == SUFFIX and _shard_number(file) == 1


def read_gguf(file: Path) -> Gguf:
    """The checked head of a GGUF file, and of the files that belong to it."""
    metadata, entries = read_head(file)
    split = _SPLIT.match(file.name)
    count = metadata.get("split.count", 0)
    if type(count) is int and count > 1:
        if split is None or int(split["count"]) != count or count > MAX_SHARDS:
            raise damaged(file, f"it is one of {count} files, which its name does not say")
        if int(split["number"]) != 1:
            raise CheckpointError(
                f"{file} is part {int(split['number'])} of {count}",
                hint=f"Name the first: {_sibling(file, split, 1).name}",
            )
        for number in range(2, count + 1):
            part = _sibling(file, split, number)
            if not part.is_file():
                raise CheckpointError(f"{part} is missing, {file.name} needs it", hint=REDOWNLOAD)
            for name, entry in read_head(part)[1].items():
                if name in entries:
                    raise damaged(part, f"tensor `{name}` is in {entries[name].file.name}, too")
                entries[name] = entry
    return Gguf(file, metadata, entries)


def read_head(file: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Metadata and tensors of one file."""
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            if size < 24:
                raise damaged(file, f"it has {size} bytes, a header needs at least 24")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _Reader(file, mapped).read()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}", hint="Check the path for spelling.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error


class _Reader:
    """Walks over the head of one file; every step is checked against the file's end."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self._file = file
        self._data = data
        self._position = 0
        self._elements_left = MAX_ELEMENTS
        self._text_left = MAX_TEXT_BYTES

    def read(self) -> tuple[dict[str, Any], dict[str, Entry]]:
        magic = self._data[self._take(4, "header") : 4]
        if magic != MAGIC:
            raise damaged(self._file, f"it begins with {magic!r}, a GGUF file with {MAGIC!r}")
        version = self._number("I", "version")
        if version not in VERSIONS:
            raise CheckpointError(
                f"{self._file}: GGUF version {version}, supported are {VERSIONS} (little-endian)",
                hint="Convert the model again with a current version of its tool.",
            )
        n_tensors = self._count("tensors", MAX_TENSORS)
        n_keys = self._count("keys", MAX_KEYS)
        metadata: dict[str, Any] = {}
        for index in range(n_keys):
            key = self._string(f"key {index + 1} of {n_keys}", MAX_NAME_BYTES)
            if key in metadata:
                raise damaged(self._file, f"key `{key}` occurs twice")
            metadata[key] = self._value(key)
        infos = [self._tensor_info(index, n_tensors) for index in range(n_tensors)]
        return metadata, self._layout(metadata, infos)

    def _take(self, n_bytes: int, what: str) -> int:
        """Step over bytes; where they begin."""
        start = self._position
        if n_bytes > len(self._data) - start:
            raise damaged(
                self._file,
                f"{what} of {n_bytes} bytes at byte {start}, the file has {len(self._data)}",
            )
        self._position = start + n_bytes
        return start

    def _number(self, form: str, what: str) -> Any:
        start = self._take(struct.calcsize("<" + form), what)
        return struct.unpack_from("<" + form, self._data, start)[0]

    def _count(self, what: str, limit: int) -> int:
        count: int = self._number("Q", f"number of {what}")
        if count > limit:
            raise damaged(self._file, f"it is said to have {count} {what}, the limit is {limit}")
        return count

    def _string(self, what: str, limit: int) -> str:
        length = self._number("Q", what)
        if length > limit:
            raise damaged(self._file, f"{what} is a string of {length} bytes, the limit is {limit}")
        start = self._take(length, what)
        try:
            return self._data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(self._file, f"{what} is not UTF-8 ({error.reason})") from error

    def _value(self, key: str) -> Any:
        kind = self._number("I", f"type of `{key}`")
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], f"value of `{key}`")
        if kind == _STRING:
            text = self._string(f"value of `{key}`", self._text_left)
            self._text_left -= len(text)
            return text
        if kind != _ARRAY:
            raise damaged(self._file, f"key `{key}` has a value of unknown type {kind}")
        kind = self._number("I", f"type of `{key}`")
        count = self._number("Q", f"length of `{key}`")
        if count > self._elements_left:
            raise damaged(
                self._file,
                f"key `{key}` has {count} elements, {self._elements_left} of the limit of "
                f"{MAX_ELEMENTS} are left",
            )
        self._elements_left -= count
        start = self._position
        if kind in _SCALARS:
            self._take(count * struct.calcsize("<" + _SCALARS[kind]), f"array `{key}`")
        elif kind == _STRING:
            self._skip_strings(key, count)
        else:
            raise damaged(self._file, f"key `{key}` is an array of type {kind}, which nothing uses")
        return Array(self._file, key, kind, count, start, self._position)

    def _skip_strings(self, key: str, count: int) -> None:
        """As fast as can be: a vocabulary and its merges are half a million strings."""
        data, end, position = self._data, len(self._data), self._position
        for index in range(count):
            position += 8 + int.from_bytes(data[position : position + 8], "little")
            if position > end:
                raise damaged(self._file, f"string {index} of `{key}` ends beyond the file")
        self._position = position

    def _tensor_info(self, index: int, count: int) -> tuple[str, str, tuple[int, ...], int]:
        """Name, type, shape (rows first) and offset in the data."""
        name = self._string(f"name of tensor {index + 1} of {count}", MAX_NAME_BYTES)
        what = f"tensor `{name}`"
        n_dimensions = self._number("I", what)
        if n_dimensions > MAX_DIMENSIONS:
            raise damaged(
                self._file, f"{what} has {n_dimensions} dimensions, up to {MAX_DIMENSIONS}"
            )
        shape = tuple(self._number("Q", what) for _ in range(n_dimensions))[::-1]
        number = self._number("I", what)
        offset: int = self._number("Q", what)
        if number not in BY_NUMBER:
            known = UNREAD_TYPES.get(number)
            kind = f"{known} ({number})" if known else f"{number}, which is not known,"
            raise CheckpointError(
                f"{self._file}: {what} is of type {kind} and cannot be run",
                hint=f"Take a file of the same model in one of {', '.join(BLOCK_TYPES)}.",
            )
        return name, BY_NUMBER[number], shape, offset

    def _layout(
        self, metadata: Metadata, infos: list[tuple[str, str, tuple[int, ...], int]]
    ) -> dict[str, Entry]:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 8 or alignment % 8 or alignment > 65_536:
            raise damaged(self._file, f"`general.alignment` is {str(alignment)[:200]!r}")
        data_start = -(-self._position // alignment) * alignment
        entries: dict[str, Entry] = {}
        for name, dtype, shape, offset in infos:
            if name in entries:
                raise damaged(self._file, f"tensor `{name}` occurs twice")
            n_bytes = self._n_bytes(name, dtype, shape)
            start = data_start + offset
            if offset % alignment:
                raise damaged(self._file, f"tensor `{name}` at offset {offset} is not aligned")
            if start + n_bytes > len(self._data):
                raise damaged(
                    self._file,
                    f"tensor `{name}` ends at byte {start + n_bytes}, the file has "
                    f"{len(self._data)} (truncated)",
                )
            entries[name] = Entry(name, dtype, shape, self._file, start, start + n_bytes)
        position = data_start
        for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
            if entry.start < position:
                raise damaged(
                    self._file, f"tensor `{entry.name}` at byte {entry.start} overlaps another"
                )
            position = entry.end
        return entries

    def _n_bytes(self, name: str, dtype: str, shape: tuple[int, ...]) -> int:
        kind = BLOCK_TYPES[dtype]
        columns = shape[-1] if shape else 1
        n_values = prod(shape)
        if n_values == 0:
            raise damaged(self._file, f"tensor `{name}` has shape {list(shape)}, so no numbers")
        if columns % kind.n_values or n_values > MAX_SIZE:
            raise damaged(
                self._file,
                f"tensor `{name}` has shape {list(shape)}, {dtype} needs rows of whole blocks of "
                f"{kind.n_values}",
            )
        return n_values // kind.n_values * kind.n_bytes


def _shard_number(file: Path) -> int:
    split = _SPLIT.match(file.name)
    return int(split["number"]) if split else 1


def _sibling(file: Path, split: re.Match[str], number: int) -> Path:
    return file.with_name(f"{split['stem']}-{number:05}-of-{split['count']}{SUFFIX}")
