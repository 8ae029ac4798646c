"""Real nodes whose workers run on another back end than the cpu's, end to end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from gangline.cli.common import unload
from gangline.cli.main import main
from gangline.errors import UsageError
from tests.cluster import Cluster, running_cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=["mlx", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"the extra `{name}` is not installed")
    return name


@pytest.fixture(scope="module")
def cluster(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that were started with `--backend`."""
    models: Path = tmp_path_factory.mktemp("models")
    with running_cluster(2, models, "--backend", backend) as cluster:
        yield cluster


def backends_of(cluster: Cluster) -> list[str]:
    return [worker.backend for node in cluster.state().nodes for worker in node.workers]


def test_the_demo_model_answers(cluster: Cluster, backend: str) -> None:
    """Split over both nodes, several lanes at a time."""
    cluster.load(model="demo", spread=True)
    questions = ["What is 17 + 25?", "8 + 8", "What is 90 minus 33?", "Spell rope."]
    answers = [c["message"]["content"] for c in cluster.complete_all("demo", questions)]
    assert ["42" in answers[0], "16" in answers[1], "57" in answers[2]] == [True] * 3
    assert len(set(answers)) == len(questions)
    assert backends_of(cluster) == [backend, backend]
    with redirect_stdout(io.StringIO()) as shown:
        assert main(["status", "--url", cluster.urls[0]]) == 0
    rows = [line.split() for line in shown.getvalue().splitlines() if "GiB" in line]
    assert len(rows) == 2 and all(backend in row for row in rows)
    unload(cluster.client, "demo")


def test_a_load_may_name_another(cluster: Cluster) -> None:
    cluster.load(model="demo", backend="cpu")
    assert backends_of(cluster) == ["cpu"]
    unload(cluster.client, "demo")
    with pytest.raises(UsageError, match="back end `tpu` is not known, expected one of auto"):
        cluster.load(model="demo", backend="tpu")
