"""A GGUF model is the same model: config, tensors, sizes, answers; and split files are one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from gangline.checkpoint.affine import values
from gangline.checkpoint.model import open_checkpoint
from gangline.errors import CheckpointError, NotFound
from tests.checkpoint.apart import described_apart
from tests.described import describe
from tests.make_checkpoint import make_checkpoint
from tests.make_gguf import make_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    return make_checkpoint(made, hidden=64, ffn=96, tied=False, attention_bias=True)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_every_tensor_has_its_numbers(tmp_path: Path, folder: Path, kind: str) -> None:
    own = open_checkpoint(folder)
    other = open_checkpoint(make_gguf(tmp_path / "m.gguf", folder, kind))
    assert set(other.names) == set(own.names)
    for name in own.names:
        expected = values(own.tensor(name))
        if expected.ndim == 2 and kind != "F32":
            of_kind = GGMLQuantizationType[kind]
            expected = dequantize(quantize(expected, of_kind), of_kind)
        np.testing.assert_array_equal(values(other.tensor(name)), expected, err_msg=name)


def test_the_shape_is_that_of_the_config(tmp_path: Path, folder: Path) -> None:
    own, other = describe(folder), describe(make_gguf(tmp_path / "m.gguf", folder, "Q8_0"))
    assert own.shape is not None and other.shape is not None
    for field in own.shape.__struct_fields__:
        if field not in ("eos_ids", "norm_eps"):  # no tokenizer; single precision in the file
            assert getattr(other.shape, field) == getattr(own.shape, field), field
    assert other.shape.norm_eps == np.float32(own.shape.norm_eps)


def test_sizes_are_what_is_in_memory(tmp_path: Path, folder: Path) -> None:
    file = make_gguf(tmp_path / "m.gguf", folder, "Q4_0")
    found, checkpoint = describe(file), open_checkpoint(file)
    names = [name for name in checkpoint.names if ".layers.1." in name]
    assert found.layer_bytes[1] == sum(checkpoint.tensor(name).n_bytes for name in names)
    assert found.embedding_bytes == checkpoint.tensor("model.embed_tokens.weight").n_bytes
    assert found.size_bytes == checkpoint.size_bytes < file.stat().st_size
    assert found.fingerprint == checkpoint.fingerprint()
    assert found.fingerprint != describe(make_gguf(tmp_path / "n.gguf", folder, "Q8_0")).fingerprint


def test_a_folder_may_hold_one_file(tmp_path: Path, folder: Path) -> None:
    file = make_gguf(tmp_path / "m.gguf", folder, "F16")
    assert describe(tmp_path).fingerprint == describe(file).fingerprint
    make_gguf(tmp_path / "n.gguf", folder, "F16")
    with pytest.raises(CheckpointError, match=r"2 GGUF models: m\.gguf, n\.gguf"):
        describe(tmp_path)


def test_describing_needs_no_numpy(tmp_path: Path, folder: Path) -> None:
    file = make_gguf(tmp_path / "m.gguf", folder, "Q8_0")
    assert described_apart(file) == (3, False)


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        describe(tmp_path / "m.gguf")
