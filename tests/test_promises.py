"""The six promises, each on a real cluster of processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gangline.cli.common import unload
from tests.cluster import Cluster, running_cluster

pytestmark = pytest.mark.cluster

PROMPTS = [
    "What is 17 + 25?",
    "what's 90 minus 33",
    "8 + 8",
    "Take 9 from 30.",
    "Add 45 and 54.",
    "Spell gangline.",
    "Spell rope.",
    "Reverse stone.",
    "Reverse the word sled.",
    "What is the capital of France?",
    "What colour is the sky?",
    "How many days are in a week?",
    "What is Gangline?",
    "Who are you?",
    "What happens if a machine dies?",
    "Hello!",
    "Tell me a joke.",
    "Tell me a long story.",
    "Count from 1 to 30.",
    "Ich verstehe nur Bahnhof: äöü €😀",
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Eight nodes, nothing loaded."""
    with running_cluster(8, tmp_path_factory.mktemp("models")) as cluster:
        yield cluster


def load_on(cluster: Cluster, n_nodes: int) -> None:
    """The demo model over the first `n_nodes` nodes."""
    names = [child.name for child in cluster.children.all[:n_nodes]]
    model = cluster.load(model="demo", nodes=tuple(names), spread=True)
    assert len(model.stages) == n_nodes


def test_splitting_never_changes_the_answer(cluster: Cluster) -> None:
    """Promise 2: the text of 20 prompts and every logit, on 1, 2, 3 and 8 nodes.

    The digest covers the float32 bits of the logits of every generated token. All prompts are
    answered together, so batches differ from run to run as well.
    """
    outcomes = {}
    for n_nodes in (1, 2, 3, 8):
        load_on(cluster, n_nodes)
        choices = cluster.complete_all("demo", PROMPTS, logits_digest=True)
        assert all(len(choice["logits_digest"]) == 64 for choice in choices)
        outcomes[n_nodes] = [(c["message"]["content"], c["logits_digest"]) for c in choices]
        unload(cluster.client, "demo")
    assert outcomes[2] == outcomes[1]
    assert outcomes[3] == outcomes[1]
    assert outcomes[8] == outcomes[1]
    assert len({digest for _, digest in outcomes[1]}) == len(PROMPTS)


def test_a_seed_gives_the_same_answer_however_it_is_split(cluster: Cluster) -> None:
    """Promise 2 for sampled text: the draw depends on seed and position alone."""
    texts = []
    for n_nodes in (1, 3):
        load_on(cluster, n_nodes)
        options = {"temperature": 0.8, "top_p": 0.95, "seed": 11}
        choice = cluster.complete(cluster.urls[-1], "demo", "Tell me a story.", **options)
        texts.append(choice["message"]["content"])
        unload(cluster.client, "demo")
    assert texts[0] == texts[1]


def test_more_machines_are_left_out_where_they_would_slow_the_answer_down(
    cluster: Cluster,
) -> None:
    """Promise 1 at its simplest: one machine holds the model, so the plan uses one and says so."""
    model = cluster.load(model="demo")
    assert len(model.stages) == 1
    assert len(model.left_out) == 7
    assert all(out.why for out in model.left_out)
    unload(cluster.client, "demo")
