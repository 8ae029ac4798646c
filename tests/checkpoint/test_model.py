"""Opened and described models: sizes, fingerprints, quantized triples, and no NumPy in a node."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from gangline import load_model
from gangline.checkpoint.headers import read_header
from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.quantization import GroupAffine
from gangline.errors import CheckpointError
from tests.checkpoint.apart import described_apart
from tests.described import describe
from tests.make_checkpoint import KINDS, Arrays, make_checkpoint, write_safetensors


def load_safetensors(file: Path) -> Arrays:
    """The arrays of a file, copied; bf16 as uint16."""
    kinds = {"BF16": np.uint16, "F32": np.float32}
    return {
        name: np.fromfile(file, np.uint8, entry.n_bytes, offset=entry.start)
        .view(kinds[entry.dtype])
        .reshape(entry.shape)
        for name, entry in read_header(file).items()
    }


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


def test_a_checkpoint_that_lacks_a_weight_is_refused_with_its_name(tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path) / "model.safetensors"
    arrays = load_safetensors(weights)
    del arrays["model.layers.2.mlp.up_proj.weight"]
    write_safetensors(weights, arrays)
    with pytest.raises(
        CheckpointError, match=r"no tensor `model\.layers\.2\.mlp\.up_proj\.weight`"
    ):
        load_model(tmp_path, "reference")


def test_what_does_not_serve_text_is_said_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads that guess tokens ahead (in a layer of their own, or under `mtp`), a vision tower."""
    plain = describe(make_checkpoint(tmp_path))
    weights = tmp_path / "model.safetensors"
    more = np.zeros((4, 4), np.uint16)
    names = ["model.layers.3.eh_proj.weight", "model.layers.3.enorm.weight", "mtp.fc.weight"]
    names += ["model.vision_tower.layers.0.weight", "multi_modal_projector.norm.weight"]
    write_safetensors(weights, load_safetensors(weights) | dict.fromkeys(names, more))
    with caplog.at_level(logging.INFO, "gangline.checkpoint.model"):
        checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.unused == {
        "model.layers.3": 2,
        "mtp": 1,
        "model.vision_tower": 1,
        "multi_modal_projector": 1,
    }
    assert "not used, since it does not serve text: model.layers.3 (2 tensors)" in caplog.text
    found = describe(tmp_path)
    assert (found.layer_bytes, found.embedding_bytes) == (plain.layer_bytes, plain.embedding_bytes)
    assert load_model(tmp_path, "reference").logits([1, 2]).shape[0] == 2


def test_an_unsupported_model_is_described_with_the_reason(tmp_path: Path) -> None:
    extra = {"architectures": ["OtherForCausalLM"]}
    found = describe(make_checkpoint(tmp_path, extra=extra))
    assert not found.supported and found.family == "OtherForCausalLM"
    assert "OtherForCausalLM" in found.reason and "LlamaForCausalLM" in found.reason
    assert found.size_bytes > 0 and found.fingerprint


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("model.layers.1.", "lacks layer 1 of the 3 of its config"),
        ("model.layers.", "lacks 3 layers, as 0, of the 3 of its config"),
        ("model.layers.2.mlp.up_proj", "lacks `mlp.up_proj.weight` of layer 2"),
        ("model.layers.0.mlp.up_proj", "lacks `mlp.up_proj.weight` of layer 0"),
        ("model.norm", "lacks `norm.weight`"),
        ("lm_head", "lacks `lm_head.weight`"),
    ],
)
def test_a_model_that_lacks_a_part_is_described_as_one_that_cannot_run(
    tmp_path: Path, lost: str, said: str
) -> None:
    """Before anybody loads it: a list of models is where a user looks."""
    weights = make_checkpoint(tmp_path, tied=False) / "model.safetensors"
    tensors = load_safetensors(weights)
    kept = {name: one for name, one in tensors.items() if not name.startswith(lost)}
    write_safetensors(weights, kept)
    found = describe(tmp_path)
    assert not found.supported and said in found.reason and "again" in found.reason


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
