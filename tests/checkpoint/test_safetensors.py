"""Reading safetensors: what is right is read exactly, what is wrong is refused by name."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gangline.checkpoint.headers import INDEX_NAME, read_entries, read_header
from gangline.checkpoint.safetensors import Maps
from gangline.errors import CheckpointError, GanglineError, NotFound
from tests.make_checkpoint import write_safetensors

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def write(file: Path, header: Any, data: bytes = bytes(32), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def test_tensors_come_back_as_they_were_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "f": random.standard_normal((3, 5)).astype(np.float32),
        "h": random.standard_normal((7,)).astype(np.float16),
        "b": random.integers(0, 2**16, (2, 2, 2)).astype(np.uint16),
        "u": random.integers(0, 2**32, (1, 9)).astype(np.uint32),
        "none": np.empty((0, 4), np.float32),
        "scalar": np.array(3.5, np.float32),
    }
    write_safetensors(tmp_path / "model.safetensors", arrays)
    entries, maps = read_entries(tmp_path), Maps()
    assert set(entries) == set(arrays)
    for name, array in arrays.items():
        tensor = maps.tensor(entries[name])
        assert tensor.shape == array.shape
        assert tensor.n_bytes == array.nbytes
        assert (tensor.data == array).all()
        assert array.size == 0 or not tensor.data.flags.writeable


def test_a_header_of_odd_length_leaves_tensors_readable(tmp_path: Path) -> None:
    """Data then begin at an odd address."""
    text = json.dumps(GOOD).encode()
    text += b" " * (1 + len(text) % 2)
    data = np.arange(6, dtype=np.float32).tobytes() + bytes(8)
    file = write(tmp_path / "model.safetensors", text, data)
    assert (Maps().tensor(read_header(file)["a"]).data.reshape(-1) == np.arange(6)).all()


def changed(name: str, **fields: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **fields}}


BROKEN: dict[str, tuple[Any, str]] = {
    "bytes beyond the file": (changed("b", shape=[40], data_offsets=[24, 104]), "`b` ends at byte"),
    "too few bytes": (changed("a", data_offsets=[0, 20]), "`a` has 20 bytes, F32 of shape [2, 3]"),
    "overlap": (changed("b", data_offsets=[20, 28]), "`b` at byte"),
    "hole": ({"b": GOOD["b"]}, "`b` at byte"),
    "rest": ({"a": GOOD["a"]}, "8 bytes after the last tensor"),
    "unknown dtype": (changed("a", dtype="F33"), "`a` has dtype 'F33'"),
    "dtype of a wrong type": (changed("a", dtype=["F32"]), "`a` has dtype"),
    "negative shape": (changed("a", shape=[-2, -3]), "`a` has shape"),
    "huge shape": (changed("a", shape=[2**62, 2**62]), "`a` has 24 bytes"),
    "true as a size": (changed("a", shape=[True, 6]), "`a` has shape"),
    "float as a size": (changed("a", shape=[2.0, 3]), "`a` has shape"),
    "many dimensions": (changed("a", shape=[1] * 1000), "`a` has shape"),
    "offsets reversed": (changed("a", data_offsets=[24, 0]), "`a` has data_offsets"),
    "three offsets": (changed("a", data_offsets=[0, 24, 24]), "`a` has data_offsets"),
    "negative offset": (changed("a", data_offsets=[-24, 0]), "`a` has data_offsets"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, "`a` has shape None"),
    "an entry that is a list": ({"a": [1]}, "`a` is not an object"),
    "a header that is a list": ([1], "not a JSON object"),
    "no JSON": (b"{nonsense", "not valid JSON"),
    "no UTF-8": (b'{"\xff\xfe": 1}', "not valid JSON"),
    "deep nesting": (b"[" * 100_000, "not valid JSON"),
    "an absurd number": (b'{"a": ' + b"9" * 100_000 + b"}", "not valid JSON"),
    "duplicate tensor": (b'{"a": {}, "a": {}}', "`a` occurs twice"),
    "duplicate field": (b'{"a": {"dtype": "F32", "dtype": "F16"}}', "`dtype` occurs twice"),
    "metadata that is a number": ({**GOOD, "__metadata__": 3}, "__metadata__"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_header_is_refused_by_name(tmp_path: Path, case: str) -> None:
    header, expected = BROKEN[case]
    file = write(tmp_path / "model.safetensors", header)
    with pytest.raises(CheckpointError) as caught:
        read_header(file)
    assert expected in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_001, 10**6, 0])
def test_a_wrong_header_length_is_refused_without_reading(tmp_path: Path, length: int) -> None:
    file = write(tmp_path / "model.safetensors", GOOD, length=length)
    with pytest.raises(CheckpointError):
        read_header(file)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", GOOD)
    whole = file.read_bytes()
    assert set(read_header(file)) == {"a", "b"}
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_header(file)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", GOOD)
    entries = read_header(file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="changed since"):
        Maps().tensor(entries["b"])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "I64", "Q4"]) | JUNK,
        "shape": st.lists(st.integers(-1, 9), max_size=4) | JUNK,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | JUNK,
    }
)


def files(count: int) -> settings:
    """Settings of a property; each example overwrites the file of the last one in one folder."""
    shared = [HealthCheck.function_scoped_fixture]  # the folder, whose one file each replaces
    return settings(max_examples=count, deadline=None, suppress_health_check=shared)


@files(300)
@given(
    header=st.dictionaries(st.sampled_from("abcd"), ENTRY) | JUNK | st.binary(max_size=60),
    data=st.binary(max_size=64),
    length=st.none() | st.integers(0, 2**64 - 1),
)
def test_hostile_files_raise_our_error_or_give_sound_tensors(
    tmp_path: Path, header: Any, data: bytes, length: int | None
) -> None:
    file = write(tmp_path / "model.safetensors", header, data, length)
    with contextlib.suppress(GanglineError):  # refused: the other good end
        entries, maps = read_header(file), Maps()
        for entry in entries.values():
            tensor = maps.tensor(entry)
            assert tensor.data.nbytes == entry.n_bytes <= len(data)
            tensor.data.tobytes()


@files(200)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_never_leads_outside_the_file(
    tmp_path: Path, position: int, value: int
) -> None:
    file = write(tmp_path / "model.safetensors", GOOD)
    whole = bytearray(file.read_bytes())
    whole[position % len(whole)] = value
    file.write_bytes(whole)
    try:
        entries = read_header(file)
    except CheckpointError:
        return
    assert all(0 < entry.start <= entry.end <= len(whole) for entry in entries.values())


def shard(folder: Path, weight_map: Any) -> None:
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))


def test_a_sharded_model_is_one_set_of_tensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "1.safetensors", {"a": np.ones(3, np.float32)})
    write_safetensors(tmp_path / "2.safetensors", {"b": np.full(2, 2, np.float32)})
    shard(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    entries = read_entries(tmp_path)
    maps = Maps()
    assert maps.tensor(entries["a"]).data.tolist() == [1, 1, 1]
    assert maps.tensor(entries["b"]).data.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "../1.safetensors"}, "not a plain file name"),
        ({"a": "/etc/passwd"}, "not a plain file name"),
        ({"a": "..\\1.safetensors"}, "not a plain file name"),
        ({"a": ".."}, "missing"),
        ({"a": ""}, "not a plain file name"),
        ({"a": 1}, "not a plain file name"),
        ({"a": "3.safetensors"}, "is missing"),
        ({"b": "1.safetensors"}, "`b` is not in it"),
        ({}, "no `weight_map`"),
        ([], "no `weight_map`"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: Any, expected: str) -> None:
    write_safetensors(tmp_path / "1.safetensors", {"a": np.ones(3, np.float32)})
    shard(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=expected):
        read_entries(tmp_path)


def test_a_folder_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"neither model.safetensors nor"):
        read_entries(tmp_path)


def test_a_dtype_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F8_E4M3", "shape": [32], "data_offsets": [0, 32]}}
    entries = read_header(write(tmp_path / "model.safetensors", header))
    with pytest.raises(CheckpointError, match="`a` has dtype F8_E4M3"):
        Maps().tensor(entries["a"])
