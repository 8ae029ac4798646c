"""One cluster of two nodes for all tests of the room; the model is split over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import CONTEXT, MODEL, SINGLE, Cluster, make_model, running_cluster


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `babble` and `single`."""
    folder = tmp_path_factory.mktemp("models")
    for name in (MODEL, SINGLE):
        make_model(folder / name)
    return folder


@pytest.fixture(scope="session")
def cluster(models: Path) -> Iterator[Cluster]:
    """Two nodes; the first one holds the head."""
    with running_cluster(2, models) as cluster:
        cluster.load(model=MODEL, spread=True, context=CONTEXT, lanes=8)
        yield cluster
