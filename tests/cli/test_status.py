"""The status report, compared whole: a pure function of the state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gangline.cli.machines import render_machines, short_chip
from gangline.cli.models import render as render_models
from gangline.cli.output import significant, size, table
from gangline.cli.status import problems, render
from gangline.facts import (
    ClusterState,
    Gpu,
    Hardware,
    Interface,
    LeftOut,
    Link,
    ModelFacts,
    ModelId,
    ModelState,
    NodeFacts,
    NodeId,
    Prediction,
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
    basis |= {"id": DEMO, "epoch": 3, "steward": NodeId("n-studio")}
    return ModelFacts(state=state, **(basis | changes))


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


def test_a_failed_model_has_stages_that_stopped_and_promises_nothing() -> None:
    left = LeftOut(NodeId("n-laptop"), "it would slow every token down")
    stages = (Stage(NodeId("n-studio"), "head", Span(0, 61)),)
    facts = {"stages": stages, "left_out": (left,), "prediction": Prediction(20.0, 0.2)}
    failed = model("failed", id=ModelId("my model"), reason="no tokenizer.json", **facts)
    assert render(cluster(STUDIO, models=(failed,))) == [
        "my model: failed, 61 layers on 1 node, 8 lanes of 4096 tokens",
        "",
        "NODE     DEVICE          FREE     LAYERS   BACKEND  LINK  STATE",
        "studio*  Apple M3 Ultra  171 GiB  [0, 61)  -        -     stopped",
        "",
        "# model-failed  my model: no tokenizer.json",
        "`gangline load 'my model'` tries again",
    ]


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


def test_a_long_reason_does_not_widen_the_table_of_models() -> None:
    reason = (
        "/models/odd/config.json: architecture `Foo` is not supported. Supported: " + "Bar, " * 40
    )
    odd = StoredModel(ModelId("odd"), "/models/odd", "g", 1, "Foo", 0, False, reason)
    (row,) = (
        line for line in render_models(cluster(node("a", "A", 1, stored=(odd,)))) if "odd" in line
    )
    assert "unsupported: config.json: architecture `Foo` is not supported." in row
    assert len(row) < 140


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


def test_prediction_stands_beside_measurement() -> None:
    predicted = model(prediction=Prediction(21.04, 0.124))
    assert render(cluster(STUDIO, models=(predicted,)))[1] == (
        "one answer: 21.0 tok/s ± 12 % predicted"
    )
    measured = msgspec.structs.replace(predicted, stats=WorkerStats(decode_tps=19.96))
    assert render(cluster(STUDIO, models=(measured,)))[1] == (
        "one answer: 21.0 tok/s ± 12 % predicted, 20.0 tok/s measured"
    )
    alone = model(stats=WorkerStats(decode_tps=19.96))
    assert render(cluster(STUDIO, models=(alone,)))[1] == "one answer: 20.0 tok/s measured"


def test_hops_through_the_air_and_batteries_are_named() -> None:
    laptop = node("laptop", "Apple M2 Max", 51)
    laptop = msgspec.structs.replace(
        laptop, hardware=msgspec.structs.replace(laptop.hardware, power="battery")
    )
    air = (Link(NodeId("n-laptop"), 4800.0, 0.3, "192.168.1.7", "wifi"),)
    tower = msgspec.structs.replace(TOWER, links=air)
    lines = render(cluster(STUDIO, tower, laptop, models=(model(),)))
    assert lines[-3:-1] == [
        "# link-slow  tower and laptop meet by Wi-Fi; demo would be faster by cable",
        "# on-battery  laptop runs on its battery, which slows most machines down",
    ]


def test_a_node_that_computes_on_a_card_shows_the_card_and_its_free_memory() -> None:
    card = Gpu("NVIDIA GeForce RTX 4090", 24 * GIB, False, 22 * GIB)
    hardware = msgspec.structs.replace(
        node("tower", "Ryzen 9", 60).hardware, gpus=(card,), backend="torch", device=card.name
    )
    lines = render(cluster(STUDIO, node("tower", "", 1, hardware=hardware)))
    assert any(line.split()[:5] == ["tower", "RTX", "4090", "22", "GiB"] for line in lines)


def test_machines() -> None:
    cards = (Gpu("NVIDIA GeForce RTX 4090", 24 * GIB),) * 2
    interfaces = (
        Interface("eth0", "ethernet", 10.0, True, ("10.0.0.2/24",)),
        Interface("wlan0", "wifi", None, False, ("192.168.1.2/24",)),
        Interface("docker0", "virtual", None, False, ("172.17.0.1/16",)),
    )
    hardware = Hardware(
        "Intel(R) Core(TM) i9-13900K", "x86_64", "linux", 32, 64 * GIB, 60 * GIB, "avx2", 61.24e9,
        "2026-11-20", 1.06e12, 4.8e-6, 2.6e9, 16, (), cards, interfaces, 1 << 40, "mains",
    )  # fmt: skip
    link = Link(NodeId("n-studio"), 310.0, 9.4, "10.0.0.1", "ethernet", measured_at="2026-11-21")
    tower = node("tower", "", 1, hardware=hardware, links=(link,))
    assert render_machines(cluster(node("studio", "Apple M3 Ultra", 171), tower)) == [
        "NODE     CHIP                  CORES  MEMORY   GPU                   "
        "NETWORK                       POWER",
        "studio*  Apple M3 Ultra        8      256 GiB  -                     "
        "-                             -",
        "tower    Intel Core i9-13900K  16+16  64 GiB   2 x RTX 4090, 24 GiB  "
        "Ethernet 10 Gb/s RDMA, Wi-Fi  mains",
        "",
        "NODE    READS      PREFILL   LAYER   DISK      MEASURED",
        "studio  -          -         -       -         -",
        "tower   61.2 GB/s  1.1 TOPS  4.8 µs  2.6 GB/s  2026-11-20",
        "",
        "FROM   TO      BY        ROUND TRIP  SPEED     MEASURED",
        "tower  studio  Ethernet  0.31 ms     9.4 Gb/s  2026-11-21",
    ]
