"""Which models a node offers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gangline.errors import CheckpointError, NotFound, UsageError
from gangline.facts import ModelId
from gangline.node import stored as stored_module
from gangline.node.stored import ModelStore, Stored, describe_folder, models_at
from tests.described import describe
from tests.engine.fixtures import read_fixture, write_model
from tests.make_checkpoint import make_checkpoint
from tests.make_gguf import make_gguf

TINY = ModelId("tiny")


def test_folders_of_home_and_of_the_configuration(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "models" / "own")
    store = ModelStore(tmp_path, [str(tiny_model)])
    store.scan()
    offered = {stored.id: stored for stored in store.listing()}
    assert {"own", "tiny"} <= set(offered)
    tiny = offered[TINY]
    assert (tiny.family, tiny.n_layers, tiny.supported) == ("llama", 6, True)
    assert tiny.fingerprint == offered[ModelId("own")].fingerprint, "the same files"


def test_what_it_costs(tiny_model: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, [str(tiny_model)])
    store.scan()
    stored = store.get(TINY)
    assert stored is not None
    assert stored.cost is not None
    assert stored.cost.n_layers == 6
    assert len(set(stored.cost.layer_bytes)) == 1, "the layers are alike"
    assert sum(stored.cost.layer_bytes) + stored.cost.embedding_bytes <= stored.model.size_bytes
    assert stored.cost.output_bytes == 0, "tied"
    assert stored.cost.head_read_bytes == stored.cost.embedding_bytes > 0
    assert stored.cost.max_context == 256


@pytest.mark.parametrize("family", ["gpt_oss", "deepseek_v3", "qwen3_next"])
def test_caches_are_counted_layer_by_layer(family: str, tmp_path: Path) -> None:
    """Windows, latent attention, states: as the engine allots them."""
    config, weights, _ = read_fixture(family)
    folder = write_model(tmp_path / family, config, weights)
    shape, cost = describe(folder).shape, describe_folder(ModelId(family), folder).cost
    assert shape is not None and cost is not None and cost.layers
    expected = zip(shape.cache_bytes_per_token(), shape.state_bytes_per_lane(), strict=True)
    assert [layer.cache_bytes(1000) for layer in cost.layers] == [
        1000 * per_token + per_lane for per_token, per_lane in expected
    ]


def test_new_files_are_seen_at_the_next_scan(tiny_model: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, [])
    store.scan()
    assert store.get(ModelId("late")) is None
    shutil.copytree(tiny_model, tmp_path / "models" / "late")
    store.scan()
    assert store.get(ModelId("late")) is not None


def test_a_named_folder_is_looked_into_at_each_scan(tiny_model: Path, tmp_path: Path) -> None:
    """What is copied into a --models-dir of a running node is offered; what is removed is not."""
    models = tmp_path / "models-dir"
    models.mkdir()
    store = ModelStore(tmp_path / "home", [str(models)])
    store.scan()
    late = shutil.copytree(tiny_model, models / "late")
    assert store.scan()
    assert store.get(ModelId("late")) is not None
    assert not store.scan(), "nothing is new"
    weights = late / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert store.scan()
    damaged = store.get(ModelId("late"))
    assert damaged is not None and "992 more" in damaged.model.reason
    shutil.rmtree(late)
    assert store.scan()
    assert store.get(ModelId("late")) is None


def test_what_did_not_change_is_not_read_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path, [str(tiny_model)])
    store.scan()

    def never(model: ModelId, folder: Path) -> Stored:
        raise AssertionError(f"{folder} did not change")

    monkeypatch.setattr(stored_module, "describe_folder", never)
    assert not store.scan()
    assert store.get(TINY) is not None


def test_models_in_a_folder(tmp_path: Path) -> None:
    names = ["a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf", "in/c.gguf", "in/d.gguf"]
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    for name in names:
        (tmp_path / name).touch()
    first = [tmp_path / name for name in names if "00002-of" not in name]
    assert models_at(tmp_path) == first
    assert models_at(first[0]) == [first[0]]
    (tmp_path / "config.json").touch()
    assert models_at(tmp_path) == [tmp_path], "the folder is a model itself"
    assert models_at(tmp_path / "none") == [tmp_path / "none"], "to be told as missing"


def test_a_broken_folder_is_listed_with_its_reason(tiny_model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "models" / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    store = ModelStore(tmp_path, [str(tmp_path / "nowhere")])
    store.scan()
    reasons = {stored.id: stored.reason for stored in store.listing() if not stored.supported}
    assert set(reasons) == {"broken", "nowhere"}
    assert all(reasons.values())


def test_adding_a_path(tiny_model: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, [])
    assert store.add(tiny_model) == TINY
    assert store.add(tiny_model) == TINY, "again"
    store.scan()
    assert store.get(TINY) is not None, "it stays"
    with pytest.raises(NotFound):
        store.add(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="another model"):
        store.add(shutil.copytree(tiny_model, tmp_path / "elsewhere" / "tiny"))
    (tmp_path / "empty").mkdir()
    with pytest.raises((NotFound, CheckpointError)):
        store.add(tmp_path / "empty")


def test_gguf_files_are_models_by_their_names(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "hf", n_layers=2)
    models = tmp_path / "models"
    (models / "several").mkdir(parents=True)
    for name in ("own.gguf", "several/a-Q8_0.gguf", "several/b.gguf"):
        make_gguf(models / name, folder, "Q8_0")
    (models / "broken.gguf").write_bytes(b"GGUF")
    store = ModelStore(tmp_path, [])
    store.scan()
    offered = {stored.id: stored for stored in store.listing() if stored.id != "demo"}
    assert set(offered) == {"own", "a-Q8_0", "b", "broken"}
    assert [id for id, stored in offered.items() if not stored.supported] == ["broken"]
    assert "4 bytes" in offered[ModelId("broken")].reason
    assert offered[ModelId("own")].fingerprint == offered[ModelId("b")].fingerprint
    assert offered[ModelId("own")].n_layers == 2


def test_a_gguf_file_may_be_added_by_its_path(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "hf", n_layers=2)
    file = make_gguf(tmp_path / "Tiny.Q4_0.gguf", folder, "Q4_0")
    store = ModelStore(tmp_path, [])
    assert store.add(file) == "Tiny.Q4_0"
    stored = store.get(ModelId("Tiny.Q4_0"))
    assert stored is not None and stored.cost is not None
    assert stored.model.path == str(file)
    assert sum(stored.cost.layer_bytes) > 0
    with pytest.raises(NotFound, match="no folder or file"):
        store.add(tmp_path / "none.gguf")
