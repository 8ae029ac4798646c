"""The demo model as GGUF files: found, loaded over two nodes by path and name; it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gangline.cli.common import unload
from gangline.paths import demo_model
from tests.cluster import Cluster, running_cluster
from tests.make_gguf import make_gguf

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("Q8_0", "Q4_0"):
        make_gguf(folder / f"demo-{kind}.gguf", demo_model(), kind)
    return folder


@pytest.fixture(scope="module")
def cluster(models: Path) -> Iterator[Cluster]:
    with running_cluster(2, models) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_gguf_file_alone_is_enough(cluster: Cluster, models: Path, kind: str) -> None:
    stored = {model.id: model for model in cluster.state().nodes[0].stored}
    assert stored[f"demo-{kind}"].supported, stored[f"demo-{kind}"].reason
    named = f"demo-{kind}" if kind == "Q8_0" else str(models / f"demo-{kind}.gguf")
    loaded = cluster.load(model=named, spread=True)
    assert loaded.id == f"demo-{kind}" and len(loaded.stages) == 2
    choice = cluster.complete(cluster.urls[1], loaded.id, "What is the capital of France?")
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    unload(cluster.client, loaded.id)
