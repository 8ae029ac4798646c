"""A short run of the fuzzer; `python -m tests.fuzz_http --count 10000` is the long one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import MODEL, Cluster, running_cluster
from tests.fuzz_http import fuzz, unchanged

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def node(models: Path) -> Iterator[Cluster]:
    """A node of its own, whose answers are short."""
    with running_cluster(1, models) as cluster:
        cluster.load(model=MODEL, context=128, lanes=4)
        yield cluster


def test_malformed_requests_do_no_harm(node: Cluster) -> None:
    with unchanged(node):
        seen = fuzz(node.urls[0], 1500)
    # Both kinds came through: requests that were refused, and some that were answered.
    assert seen[200] > 10
    assert seen[400] > 200
    assert seen[404] > 10
