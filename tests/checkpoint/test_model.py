"""Opened and described models: sizes, fingerprints, quantized triples, and no NumPy in a node."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gangline.checkpoint.describe import describe
from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.quantization import GroupAffine
from gangline.errors import CheckpointError
from tests.checkpoint.apart import described_apart
from tests.make_checkpoint import KINDS, make_checkpoint

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_sizes_add_up(tmp_path: Path, kind: str, tied: bool) -> None:
    folder = make_checkpoint(tmp_path, kind=kind, tied=tied)
    found = describe(folder)
    checkpoint = open_checkpoint(folder)
    assert found.supported and (found.family, found.n_layers) == ("llama", 3)
    assert found.size_bytes == checkpoint.size_bytes
    assert sum(found.layer_bytes) + found.embedding_bytes + found.output_bytes == found.size_bytes
    assert checkpoint.sizes.layers == found.layer_bytes
    assert found.embedding_bytes == checkpoint.tensor("model.embed_tokens.weight").n_bytes
    assert (found.output_bytes < found.embedding_bytes) is tied
    names = [name for name in checkpoint.names if ".layers.1." in name and "weight" in name]
    assert found.layer_bytes[1] == sum(checkpoint.tensor(name).n_bytes for name in names)


def test_the_fingerprint_knows_headers_and_config_not_files(tmp_path: Path) -> None:
    one = describe(make_checkpoint(tmp_path / "1"))
    assert describe(make_checkpoint(tmp_path / "2", shards=3)).fingerprint == one.fingerprint
    assert open_checkpoint(tmp_path / "2").fingerprint() == one.fingerprint
    assert describe(make_checkpoint(tmp_path / "3", kind="f16")).fingerprint != one.fingerprint
    extra = {"rope_theta": 5.0}
    assert describe(make_checkpoint(tmp_path / "4", extra=extra)).fingerprint != one.fingerprint


def test_a_quantized_triple_is_one_tensor(tmp_path: Path) -> None:
    tensor = open_checkpoint(make_checkpoint(tmp_path, kind="q4")).tensor(f"{QUERY}.weight")
    assert tensor.shape == (64, 64) and tensor.data.shape == (64, 8)
    assert tensor.quantized == GroupAffine(4, 32)
    assert tensor.scales is not None and tensor.scales.shape == (64, 2)
    assert tensor.n_bytes == 64 * 32 + 2 * 64 * 2 * 2


def test_a_config_that_does_not_fit_the_triple_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, kind="q4")
    config = json.loads((folder / "config.json").read_text())
    for form, expected in (({"group_size": 64, "bits": 4}, "not 4-bit"), (None, "does not say")):
        (folder / "config.json").write_text(json.dumps({**config, "quantization": form}))
        with pytest.raises(CheckpointError, match=expected):
            open_checkpoint(folder).tensor(f"{QUERY}.weight")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path))
    assert f"{QUERY}.weight" in checkpoint and "nothing" not in checkpoint
    with pytest.raises(CheckpointError, match="no tensor `nothing`"):
        checkpoint.tensor("nothing")


def test_an_unsupported_model_is_described_with_the_reason(tmp_path: Path) -> None:
    extra = {"architectures": ["OtherForCausalLM"]}
    found = describe(make_checkpoint(tmp_path, extra=extra))
    assert not found.supported and found.family == "OtherForCausalLM"
    assert "OtherForCausalLM" in found.reason and "LlamaForCausalLM" in found.reason
    assert found.size_bytes > 0 and found.fingerprint


def test_describing_needs_no_numpy(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    assert described_apart(folder) == (3, False)


def test_only_asked_files_are_mapped(tmp_path: Path) -> None:
    """A stage touches the shards of its own layers: the others may vanish."""
    folder = make_checkpoint(tmp_path, shards=6)
    checkpoint = open_checkpoint(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(index.values()) - {index[f"{QUERY}.weight"]}:
        (folder / shard).unlink()
    assert np.isfinite(checkpoint.tensor(f"{QUERY}.weight").data).all()
    with pytest.raises(CheckpointError, match="cannot map"):
        checkpoint.tensor("model.layers.2.mlp.down_proj.weight")
