"""A cluster of one node with the demo model, for the commands that talk with a node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, running_cluster

Run = Callable[..., subprocess.CompletedProcess[str]]


def gangline(*arguments: str, **environment: str) -> list[str]:
    """The command line of a command."""
    return [sys.executable, "-m", "gangline", *arguments]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node with the bundled model loaded."""
    with running_cluster(1, tmp_path_factory.mktemp("models")) as cluster:
        cluster.load(model="demo", lanes=2)
        yield cluster


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command to its end, with a home and a temporary folder of its own."""

    def run(
        *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        own = {"GANGLINE_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path), "COLUMNS": "100"}
        return subprocess.run(
            gangline(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | own | environment,
        )

    return run
