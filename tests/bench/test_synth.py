"""Checkpoints of known shapes: as large as the real ones, readable, sensible, all or nothing."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest

from gangline.bench import synth
from gangline.bench.layout import QUANTS, parts_of
from gangline.bench.shapes import SHAPES
from gangline.bench.synth import config_of, synthesize
from gangline.checkpoint.headers import read_entries
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends.reference import dense
from gangline.errors import Conflict, DoesNotFit, GanglineError, NotFound, UsageError
from tests.described import describe
from tests.engine.steps import Chain

# Parameters of the published checkpoints, an output matrix that is the embedding counted once.
N_PARAMETERS = {
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "qwen3-30b-a3b": 30_532_122_624,
    "gemma-3-4b": 3_880_263_168,  # and 419,816,304 of vision
    "gpt-oss-20b": 20_914_757_184,
    "deepseek-v3": 671_026_419_200,
}
MADE_UP = {"moe-64x4"}  # for benchmarks; nobody publishes it


@pytest.mark.parametrize("shape", N_PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(shape: str) -> None:
    parts = parts_of(config_of(shape, "bf16"), None)
    assert sum(prod(part.shape) for part in parts) == N_PARAMETERS[shape]
    assert len({part.name for part in parts}) == len(parts)


def test_every_shape_has_a_source_and_is_counted_here() -> None:
    real = {name: shape for name, shape in SHAPES.items() if not name.startswith("tiny")}
    assert set(real) == set(N_PARAMETERS) | MADE_UP
    for shape in (real[name] for name in N_PARAMETERS):
        assert shape.source.startswith("https://huggingface.co/")
        assert shape.source.endswith("/config.json")


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("shape", ["tiny", "tiny-tied"])
def test_a_checkpoint_decodes(tmp_path: Path, shape: str, quant: str) -> None:
    written = synthesize(shape, quant, tmp_path / "model")
    found = describe(tmp_path / "model")
    assert found.supported and found.family == "llama" and found.n_layers == 3
    assert (found.size_bytes, written.n_files) == (written.size_bytes, 1)
    assert found.shape is not None
    assert found.shape.layers[0].mixer.rope.scaling.kind == "llama3"
    logits = Chain(tmp_path / "model").run(list(range(9)))
    reference = Chain(tmp_path / "model", backend="reference").run(list(range(9)))
    assert np.isfinite(logits).all()
    assert 0.3 < reference.std() < 3, "hidden states keep their size"
    np.testing.assert_allclose(logits, reference, atol=0.15)


@pytest.mark.parametrize("quant", ["q4", "bf16"])
@pytest.mark.parametrize("shape", ["tiny-moe", "tiny-gemma", "tiny-oss", "tiny-latent"])
def test_checkpoints_of_other_families_decode(tmp_path: Path, shape: str, quant: str) -> None:
    """MLX's names and Hugging Face's, as each family has them."""
    synthesize(shape, quant, tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    chain = Chain(tmp_path / "model", backend="reference")
    logits = chain.run(list(range(9)))
    assert np.isfinite(logits).all() and 0.3 < logits.std() < 3
    assert chain.stages[0].weight_bytes == checkpoint.size_bytes, "every tensor is used"


@pytest.mark.parametrize("quant", QUANTS)
def test_weights_are_spread_as_intended(tmp_path: Path, quant: str) -> None:
    synthesize("tiny", quant, tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    for module, columns in (("up_proj", 64), ("down_proj", 192)):
        w = dense(checkpoint.tensor(f"model.layers.1.mlp.{module}.weight"))
        assert w.std() * columns**0.5 == pytest.approx(1, rel=0.06)
        assert len(np.unique(w)) > 1000
    assert (dense(checkpoint.tensor("model.norm.weight")) == 1).all()


def test_the_seed_decides_and_shards_do_not(tmp_path: Path) -> None:
    one = synthesize("tiny", "q4", tmp_path / "1")
    other = synthesize("tiny", "q4", tmp_path / "2", seed=1)
    many = synthesize("tiny", "q4", tmp_path / "3", shard_bytes=20_000)
    assert (one.n_files, one.seed, other.seed) == (1, 0, 1)
    assert many.n_files > 3
    assert len(list((tmp_path / "3").glob("model-*.safetensors"))) == many.n_files
    name = "model.layers.2.mlp.gate_proj.weight"
    bits = [dense(open_checkpoint(tmp_path / f"{n}").tensor(name)).tobytes() for n in (1, 2, 3)]
    assert bits[0] == bits[2] != bits[1]
    assert describe(tmp_path / "1").fingerprint == describe(tmp_path / "3").fingerprint


def test_layers_are_cut(tmp_path: Path) -> None:
    assert synthesize("tiny", "q8", tmp_path / "model", layers=1).n_layers == 1
    assert open_checkpoint(tmp_path / "model").shape.n_layers == 1
    assert not any(".layers.1." in name for name in open_checkpoint(tmp_path / "model").names)


def test_experts_are_named_as_their_publishers_name_them(tmp_path: Path) -> None:
    dense_entries = read_entries(_made("tiny-moe", "bf16", tmp_path))
    assert dense_entries["model.layers.0.mlp.experts.3.down_proj.weight"].shape == (64, 64)
    assert dense_entries["model.layers.0.self_attn.q_norm.weight"].shape == (16,)
    stacked = read_entries(_made("tiny-moe", "q4", tmp_path))
    assert stacked["model.layers.2.mlp.switch_mlp.up_proj.weight"].shape == (4, 64, 8)
    assert stacked["model.layers.2.mlp.switch_mlp.up_proj.scales"].shape == (4, 64, 1)
    assert stacked["model.layers.2.mlp.gate.weight"].shape == (4, 16), "routers have 8 bits"
    config = json.loads((tmp_path / "tiny-moe-q4" / "config.json").read_text())
    assert config["quantization"]["model.layers.2.mlp.gate"] == {"group_size": 64, "bits": 8}


def _made(shape: str, quant: str, folder: Path) -> Path:
    synthesize(shape, quant, folder / f"{shape}-{quant}")
    return folder / f"{shape}-{quant}"


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no shape `gpt-5`") as caught:
        synthesize("gpt-5", "q4", tmp_path / "model")
    assert all(shape in caught.value.hint for shape in N_PARAMETERS)
    with pytest.raises(UsageError, match="quant `q5` is not known, expected one of q4, q8, bf16"):
        synthesize("tiny", "q5", tmp_path / "model")
    for layers in (0, 4):
        with pytest.raises(UsageError, match=f"{layers} layers of `tiny`, which has 3"):
            synthesize("tiny", "q4", tmp_path / "model", layers=layers)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(Conflict, match="exists already"):
        synthesize("tiny", "q4", tmp_path / "model")
    (tmp_path / "other.partial").mkdir()
    with pytest.raises(Conflict, match=r"other\.partial exists already"):
        synthesize("tiny", "q4", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other.partial"]


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = synth.shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(synth.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DoesNotFit, match=r"1\.3 GB, the disk of .* has 0\.0 GB free"):
        synthesize("llama-3.2-1b", "q8", tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(fraction: float) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize("tiny", "q4", tmp_path / "model", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GanglineError, match="cannot write"):
        synthesize("tiny", "q4", tmp_path / "file" / "model")
