"""GGUF files that are truncated, mislabelled or hostile: our error, naming file and fault."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gangline.checkpoint.block_types import BLOCK_TYPES
from gangline.checkpoint.gguf import Array, read_gguf, read_head
from gangline.errors import CheckpointError, GanglineError
from tests.described import describe
from tests.fuzz_files import attack
from tests.make_checkpoint import make_checkpoint
from tests.make_gguf import make_gguf

U32, STRING, ARRAY = 4, 8, 9


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def number(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", U32, value)


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dims + struct.pack("<IQ", kind, offset)


def file_of(
    path: Path,
    keys: list[bytes],
    tensors: list[bytes],
    data: bytes = bytes(256),
    *,
    head: bytes | None = None,
) -> Path:
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) if head is None else head
    body = start + b"".join(keys) + b"".join(tensors)
    path.write_bytes(body + bytes(-len(body) % 32) + data)
    return path


def head(n_tensors: int, n_keys: int, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", magic, version, n_tensors, n_keys)


A = tensor("a", [8, 8])
ALIGNED = number("general.alignment", 32)

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no GGUF": ({"head": head(0, 0, b"GGML")}, r"begins with b'GGML', a GGUF file with b'GGUF'"),
    "an old version": ({"head": head(0, 0, version=1)}, r"GGUF version 1, supported are \(2, 3\)"),
    "big-endian": ({"head": head(0, 0, version=3 << 24)}, r"GGUF version 50331648"),
    "a billion keys": ({"head": head(0, 10**9)}, r"1000000000 keys, the limit is 65536"),
    "a billion tensors": ({"head": head(10**9, 0)}, r"1000000000 tensors, the limit is 65536"),
    "more keys than there are": ({"head": head(0, 60_000)}, r"key `` occurs twice"),
    "a key without end": (
        {"keys": [struct.pack("<Q", 2**63)]},
        r"key 1 of 1 is a string of 9223372036854775808 bytes",
    ),
    "a key that is not UTF-8": ({"keys": [string(b"\xff\xfe")]}, r"key 1 of 1 is not UTF-8"),
    "a key twice": ({"keys": [ALIGNED, ALIGNED]}, r"key `general\.alignment` occurs twice"),
    "an unknown type": (
        {"keys": [string("k") + struct.pack("<I", 77)]},
        r"key `k` has a value of unknown type 77",
    ),
    "a value beyond the file": (
        {"keys": [string("k") + struct.pack("<IQ", STRING, 10**6)]},
        r"value of `k` of 1000000 bytes",
    ),
    "a value of gigabytes": (
        {"keys": [string("k") + struct.pack("<IQ", STRING, 2**40)]},
        r"value of `k` is a string of 1099511627776 bytes",
    ),
    "a huge array": (
        {"keys": [string("k") + struct.pack("<IIQ", ARRAY, U32, 2**62)]},
        r"key `k` has 4611686018427387904 elements",
    ),
    "an array beyond the file": (
        {"keys": [string("k") + struct.pack("<IIQ", ARRAY, U32, 1000)]},
        r"array `k` of 4000 bytes",
    ),
    "strings beyond the file": (
        {"keys": [string("k") + struct.pack("<IIQQ", ARRAY, STRING, 3, 2**64 - 1)]},
        r"string 0 of `k` ends beyond the file",
    ),
    "nested arrays": (
        {"keys": [string("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1)]},
        r"key `k` is an array of type 9",
    ),
    "an odd alignment": (
        {"keys": [number("general.alignment", 3)], "tensors": [A]},
        r"`general\.alignment` is '3'",
    ),
    "an alignment of nothing": (
        {"keys": [number("general.alignment", 0)], "tensors": [A]},
        r"`general\.alignment` is '0'",
    ),
    "a tensor twice": ({"tensors": [A, A]}, r"tensor `a` occurs twice"),
    "many dimensions": (
        {"tensors": [tensor("a", [1] * 5)]},
        r"tensor `a` has 5 dimensions, up to 4",
    ),
    "a dimension count of billions": (
        {"tensors": [string("a") + struct.pack("<I", 2**32 - 1)]},
        r"tensor `a` has 4294967295 dimensions",
    ),
    "a huge shape": (
        {"tensors": [tensor("a", [2**40, 2**40])]},
        r"tensor `a` has shape \[1099511627776, 1099511627776\]",
    ),
    "a type that cannot be run": (
        {"tensors": [tensor("a", [256], kind=16)]},
        r"tensor `a` is of type IQ2_XXS \(16\) and cannot be run",
    ),
    "a row of half a block": (
        {"tensors": [tensor("a", [48, 2], kind=8)]},
        r"tensor `a` has shape \[2, 48\], Q8_0 needs rows of whole blocks of 32",
    ),
    "no numbers": (
        {"tensors": [tensor("a", [0, 2], kind=8)]},
        r"tensor `a` has shape \[2, 0\], so no numbers",
    ),
    "a tensor beyond the file": (
        {"tensors": [tensor("a", [8, 9])]},
        r"tensor `a` ends at byte \d+, the file has \d+ \(truncated\)",
    ),
    "an offset beyond the file": (
        {"tensors": [tensor("a", [8, 8], offset=2**64 - 32)]},
        r"tensor `a` ends at byte \d+",
    ),
    "an offset that is not aligned": (
        {"tensors": [tensor("a", [8], offset=8)]},
        r"tensor `a` at offset 8 is not aligned",
    ),
    "tensors over each other": (
        {"tensors": [A, tensor("b", [8], offset=32)]},
        r"tensor `b` at byte \d+ overlaps another",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    parts, expected = BROKEN[case]
    file = file_of(tmp_path / "m.gguf", parts.get("keys", []), parts.get("tensors", []),
                   head=parts.get("head"))  # fmt: skip
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_head(file)
    assert str(file) in caught.value.message and caught.value.hint


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    keys = [
        ALIGNED,
        string("s") + struct.pack("<I", STRING) + string("héllo"),
        string("l") + struct.pack("<IIQ", ARRAY, STRING, 2) + string("ab") + string(b"\xff"),
        string("n") + struct.pack("<IIQ3I", ARRAY, U32, 3, 1, 2, 3),
    ]
    tensors = [A, tensor("scalar", [], offset=256)]
    metadata, entries = read_head(file_of(tmp_path / "m.gguf", keys, tensors, bytes(288)))
    assert metadata["s"] == "héllo" and metadata["general.alignment"] == 32
    assert metadata["l"].values() == ["ab", "\N{REPLACEMENT CHARACTER}"]
    assert metadata["n"].values() == [1, 2, 3] and len(metadata["n"]) == 3
    assert entries["a"].shape == (8, 8) and entries["a"].n_bytes == 256


@pytest.mark.parametrize("kind", GGMLQuantizationType)
def test_every_type_is_read_or_named(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    """All that the `gguf` package knows; the error says which types to look for instead."""
    n_values, n_bytes = GGML_QUANT_SIZES[kind]
    file = file_of(tmp_path / "m.gguf", [], [tensor("a", [n_values], kind)], bytes(n_bytes))
    if kind.name in BLOCK_TYPES:
        assert read_head(file)[1]["a"].dtype == kind.name
        return
    expected = rf"m\.gguf: tensor `a` is of type {kind.name} \({kind.value}\) and cannot"
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_head(file)
    assert "Q4_K" in caught.value.hint


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    file = file_of(tmp_path / "m.gguf", [ALIGNED], [A])
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_head(file)


def test_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "hf", n_layers=1)
    whole = read_gguf(make_gguf(tmp_path / "m.gguf", folder, "F32"))
    split = tmp_path / "s-00001-of-00002.gguf"
    other = tmp_path / "s-00002-of-00002.gguf"
    count = string("split.count") + struct.pack("<IH", 2, 2)
    names = ("a", "b"), ("c",)
    for file, parts in zip((split, other), names, strict=True):
        tensors = [tensor(name, [8], offset=32 * at) for at, name in enumerate(parts)]
        file_of(file, [count], tensors)
    assert set(read_gguf(split).entries) == {"a", "b", "c"}
    assert read_gguf(split).entries["c"].file == other
    with pytest.raises(CheckpointError, match=r"is part 2 of 2"):
        read_gguf(other)
    file_of(other, [count], [A])
    with pytest.raises(CheckpointError, match=r"tensor `a` is in s-00001-of-00002\.gguf, too"):
        read_gguf(split)
    other.unlink()
    with pytest.raises(CheckpointError, match=r"s-00002-of-00002\.gguf is missing"):
        read_gguf(split)
    renamed = split.rename(tmp_path / "renamed.gguf")
    with pytest.raises(CheckpointError, match="one of 2 files, which its name does not say"):
        read_gguf(renamed)
    assert whole.entries


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("general.architecture", "mamba9", r"architecture `mamba9` is not supported"),
        ("llama.block_count", 0, r"`llama\.block_count` is '0'"),
        ("llama.block_count", 10**6, r"`llama\.block_count` is '1000000'"),
        ("llama.embedding_length", "wide", r"`llama\.embedding_length` is 'wide'"),
        ("llama.attention.head_count", 7, r"tensor|head"),
    ],
)
def test_metadata_that_lies_is_refused(
    tmp_path: Path, key: str, value: int | str, expected: str
) -> None:
    folder = make_checkpoint(tmp_path / "hf", n_layers=1)
    file = make_gguf(tmp_path / "m.gguf", folder, "F32")
    gguf = read_gguf(file)
    given = {name: v for name, v in gguf.metadata.items() if not isinstance(v, Array)}
    keys = []
    for name, known in {**given, key: value}.items():
        if isinstance(known, str):
            keys.append(string(name) + struct.pack("<I", STRING) + string(known))
        elif isinstance(known, float):
            keys.append(string(name) + struct.pack("<If", 6, known))
        else:
            keys.append(number(name, known))
    tensors, at = [], 0
    for name, entry in gguf.entries.items():
        tensors.append(tensor(name, list(entry.shape[::-1]), offset=at))
        at += -(-entry.n_bytes // 32) * 32
    lying = file_of(tmp_path / "lying.gguf", keys, tensors, bytes(at))
    with pytest.raises(CheckpointError, match=expected):
        found = describe(lying)
        raise CheckpointError(found.reason)


CHUNK = st.binary(max_size=24) | st.builds(
    struct.pack, st.just("<Q"), st.sampled_from([0, 1, 3, 8, 9, 2**32, 2**63, 2**64 - 1])
)


# Each example writes its own file over the last one's, so that one folder serves all.
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chunks=st.lists(CHUNK, max_size=12), n_tensors=st.integers(0, 4), n_keys=st.integers(0, 4))
def test_junk_after_a_good_header_raises_our_error(
    tmp_path: Path, chunks: list[bytes], n_tensors: int, n_keys: int
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(head(n_tensors, n_keys) + b"".join(chunks))
    try:
        metadata, entries = read_head(file)
    except GanglineError as error:
        assert str(file) in error.message
        return
    assert len(metadata) == n_keys and len(entries) == n_tensors
    for value in metadata.values():
        if isinstance(value, Array):
            value.values()


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    """A part of `make fuzz`, both formats."""
    assert attack(tmp_path, 150, random.Random(1)) > 50
