"""The status report, compared whole: a pure function of the state."""

from __future__ import annotations

from typing import Any

import pytest

from gangline.cli.models import render as render_models
from gangline.cli.output import significant, size, table
from gangline.cli.status import problems, render, short_chip
from gangline.facts import (
    ClusterState,
    Hardware,
    LeftOut,
    Link,
    ModelFacts,
    ModelId,
    ModelState,
    NodeFacts,
    NodeId,
    Span,
    Stage,
    StoredModel,
    WorkerFacts,
    WorkerStats,
)

GIB = 1 << 30
DEMO = ModelId("demo")
STORED = StoredModel(DEMO, "/models/demo", "f", 11 << 20, "llama", 61)


def node(name: str, chip: str, free_gib: float, **changes: Any) -> NodeFacts:
    hardware = Hardware(chip, "arm64", "darwin", 8, 256 * GIB, int(free_gib * GIB))
    basis: dict[str, Any] = {"api": "http://x:1", "pid": 1, "hardware": hardware}
    return NodeFacts(id=NodeId(f"n-{name}"), name=name, **(basis | {"stored": (STORED,)} | changes))


def worker(span: Span, **changes: Any) -> WorkerFacts:
    basis: dict[str, Any] = {"role": "head" if span.start == 0 else "stage", "state": "ready"}
    return WorkerFacts("w-1", 2, DEMO, 3, span=span, **(basis | changes))


SPANS = (Span(0, 44), Span(44, 54), Span(54, 61))


def model(state: ModelState = "ready", **changes: Any) -> ModelFacts:
    stages = tuple(
        Stage(NodeId(f"n-{name}"), "stage" if index else "head", SPANS[index])
        for index, name in enumerate(("studio", "tower", "laptop"))
    )
    basis: dict[str, Any] = {"stages": stages, "context": 4096, "lanes": 8, "n_layers": 61}
    return ModelFacts(DEMO, state, 3, NodeId("n-studio"), **(basis | changes))


def cluster(*nodes: NodeFacts, models: tuple[ModelFacts, ...] = ()) -> ClusterState:
    return ClusterState("gangline", NodeId("n-studio"), nodes, models)


STUDIO = node(
    "studio",
    "Apple M3 Ultra",
    171,
    links=(Link(NodeId("n-tower"), 310.0, 9.4), Link(NodeId("n-laptop"), 900.0, None)),
    workers=(
        worker(SPANS[0], backend="mlx", stats=WorkerStats(lanes_active=1, tokens_per_s=21.4)),
    ),
)
TOWER = node(
    "tower",
    "AMD Ryzen 9 7950X 16-Core Processor",
    22.4,
    links=(Link(NodeId("n-laptop"), 4800.0, 0.3),),
    workers=(worker(SPANS[1], backend="torch"),),
)
LAPTOP = node("laptop", "Intel(R) Core(TM) i7-1185G7 CPU @ 3.00GHz", 5.06)


def test_a_model_over_three_nodes() -> None:
    laptop = node("laptop", "Apple M2 Max", 51, workers=(worker(SPANS[2], state="loading",
                  backend="auto", progress=0.42),))  # fmt: skip
    assert render(cluster(STUDIO, TOWER, laptop, models=(model(),))) == [
        "demo: ready, 61 layers on 3 nodes, 8 lanes of 4096 tokens",
        "",
        "NODE     DEVICE             FREE     LAYERS    BACKEND  LINK               STATE",
        "studio*  Apple M3 Ultra     171 GiB  [0, 44)   mlx      -                  "
        "serving, 21.4 tok/s",
        "tower    AMD Ryzen 9 7950X  22 GiB   [44, 54)  torch    0.31 ms  9.4 Gb/s  ready",
        "laptop   Apple M2 Max       51 GiB   [54, 61)  -        4.8 ms   0.3 Gb/s  loading, 42%",
        "",
        "`gangline chat demo` talks with it",
    ]


def test_nothing_loaded() -> None:
    assert render(cluster(STUDIO, LAPTOP)) == [
        "NODE     DEVICE                FREE     LAYERS  BACKEND  LINK     STATE",
        "studio*  Apple M3 Ultra        171 GiB  -       -        -        idle",
        "laptop   Intel Core i7-1185G7  5.1 GiB  -       -        0.90 ms  idle",
        "",
        "`gangline load demo` loads a model",
    ]


def test_a_lost_node_and_a_failed_model() -> None:
    failed = model("failed", reason="node `tower` is lost")
    tower = node("tower", "AMD", 22, alive=False)
    state = cluster(STUDIO, tower, models=(failed,))
    assert render(state) == [
        "demo: failed, 61 layers on 3 nodes, 8 lanes of 4096 tokens",
        "",
        "NODE      DEVICE          FREE     LAYERS    BACKEND  LINK               STATE",
        "studio*   Apple M3 Ultra  171 GiB  [0, 44)   mlx      -                  "
        "serving, 21.4 tok/s",
        "tower     AMD             22 GiB   [44, 54)  -        0.31 ms  9.4 Gb/s  lost",
        "n-laptop  -               -        [54, 61)  -        -                  lost",
        "",
        "# node-lost  tower does not answer",
        "# model-failed  demo: node `tower` is lost",
        "`gangline load demo` tries again",
    ]
    assert len(problems(state)) == 2


def test_two_models_have_a_section_each() -> None:
    alone = (Stage(NodeId("n-tower"), "head", Span(0, 8)),)
    other = ModelFacts(ModelId("other"), "loading", 1, NodeId("n-tower"), alone, progress=0.5)
    whole = model(stages=(Stage(NodeId("n-studio"), "head", SPANS[0]),))
    lines = render(cluster(STUDIO, TOWER, LAPTOP, models=(whole, other)))
    titles = [line for line in lines if ": " in line or line == "no model"]
    assert titles == [
        "demo: ready, 61 layers on 1 node, 8 lanes of 4096 tokens",
        "other: loading, 50%, 0 layers on 1 node",
        "no model",
    ]
    assert sum(line.startswith("laptop") for line in lines) == 1


def test_left_out_nodes_are_explained_and_no_fault() -> None:
    left = LeftOut(NodeId("n-laptop"), "it would slow every token down")
    state = cluster(STUDIO, TOWER, LAPTOP, models=(model(left_out=(left,)),))
    assert "# left-out  laptop has no part of demo: it would slow every token down" in render(state)
    assert problems(state) == []


def test_models() -> None:
    odd = StoredModel(
        ModelId("odd"), "/o", "g", 3 * GIB, "MambaForCausalLM", 4, False, "no such family"
    )
    studio = node("studio", "Apple M3 Ultra", 171, stored=(STORED, odd))
    assert render_models(cluster(studio, LAPTOP, models=(model("loading"),))) == [
        "MODEL  FAMILY            LAYERS  SIZE     STORED ON  STATE",
        "demo   llama             61      11 MiB   2 nodes    loading",
        "odd    MambaForCausalLM  4       3.0 GiB  studio     unsupported: no such family",
        "",
        "`gangline status --watch` shows how it goes on",
    ]
    assert render_models(cluster(studio))[-1] == "`gangline load demo` loads a model"


@pytest.mark.parametrize(
    ("value", "text"),
    [(171.2, "171"), (22.4, "22"), (9.96, "10"), (9.94, "9.9"), (1, "1.0"), (0.996, "1.0"),
     (0.31, "0.31"), (0.0997, "0.10"), (0.031, "0.031"), (0, "0.000")],
)  # fmt: skip
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1 << 10, 11 << 20, 9 * GIB + GIB // 2)] == [
        "0 B", "1023 B", "1.0 KiB", "11 MiB", "9.5 GiB",
    ]  # fmt: skip


def test_tables_show_nothing_as_a_dash() -> None:
    assert table(("A", "LONG"), [("", "x"), ("bbb", "")]) == ["A    LONG", "-    x", "bbb  -"]


@pytest.mark.parametrize(
    ("chip", "short"),
    [
        ("Apple M3 Ultra", "Apple M3 Ultra"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "Intel Xeon Platinum 848…"),
        ("AMD EPYC 9R14 96-Core Processor", "AMD EPYC 9R14"),
        ("AMD Ryzen AI Max+ 395 w/ Radeon 8060S", "AMD Ryzen AI Max+ 395 w…"),
        ("", ""),
    ],
)
def test_short_chips(chip: str, short: str) -> None:
    assert short_chip(chip) == short
