"""Rows of published measurements as cases that the cost model can be asked about.

A row is left out by one of the rules in `reason_to_leave_out`, which look at what the row says,
never at how well it is predicted. `docs/planner.md` lists them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.engines import Engine
from gangline.plan.shape import ModelCost, cost_of_config
from tools.published_names import (
    APPLE,
    CPU_ROWS,
    config_of,
    engine_of,
    link_of,
    machine_id,
    machine_of,
)

HERE = Path(__file__).parent
DATA = (HERE / "data" / "published.csv", HERE / "data" / "collected.csv")

# Bug reports: "run at 1/2 the expected speed using RDMA", beside the speed of MLX on the same
# machines; a container whose attention fell back to another kernel, slower on two cards than one.
FAULTS = (
    ("github.com/exo-explore/exo/issues/2070", "exo tensor"),
    ("github.com/vllm-project/vllm/issues/22331", "vLLM"),
)

# One machine, one model: GGUF 2.6 times slower than MLX; MLX decodes fewer bytes per second the
# larger the model (128 to 83 GB/s); a prompt with MLX takes 1.5 times as long as with llama.cpp.
CONTRADICTS_ITSELF = "github.com/enescingoz/mac-llm-bench"


class Case(NamedTuple):
    """A row that the cost model can be asked about."""

    id: str
    file: str  # in which the row stands
    source: str  # rows of one source are left out of a fit together
    engine: Engine
    machine: MachineType
    n_machines: int
    link: LinkType | None
    parallel: str  # "single", "pipeline", "tensor"
    model: ModelCost
    bits: float
    metric: str  # "decode_tps" or "prefill_tps"
    value: float
    rows: int  # tokens of a prompt; of a decode: generated
    chunk: int  # tokens of a prompt that a step takes; 0: as the engine does by default
    depth: int  # tokens before them
    lanes: int
    dated: bool  # measured with software that has changed since, counts half
    name: str  # of machine and model, for people


def read_rows(paths: Iterable[Path]) -> list[dict[str, str]]:
    """The rows of files as they are, each with the name of its file as `file`."""
    rows = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows += [row | {"file": path.name} for row in csv.DictReader(file)]
    return rows


def cases_of(rows: list[dict[str, str]]) -> tuple[list[Case], dict[str, list[str]]]:
    """The cases, and the ids of rows that were left out by the reason."""
    cases: list[Case] = []
    left_out: dict[str, list[str]] = {}
    for row in rows:
        reason = reason_to_leave_out(row)
        if reason is None:
            case = _case(row)
            if _too_large(case):
                reason = "the weights do not fit into the machines' memory: part runs elsewhere"
            else:
                cases.append(case)
        if reason is not None:
            left_out.setdefault(reason, []).append(row["id"])
    return cases, left_out


def reason_to_leave_out(row: dict[str, str]) -> str | None:
    """Why a row says nothing about the cost model; None where it does."""
    text = f"{row['machine']} {row['chip']}"
    checks = (
        (row["metric"] not in ("decode_tps", "prefill_tps"), "measures something else"),
        (engine_of(row["software"]) is None, "its software is not one of the engines"),
        (_several_kinds(row), "mixes kinds of machines, or does not say which ran it"),
        (re.search(r"\bpi (5|cm4|cm5).*\((amd|nvidia|intel)", text.lower()) is not None,
         "a card behind the single PCIe lane of a small board measures that lane"),
        (machine_id(text) is None, "its machine is not in the catalogue"),
        (config_of(row["model"]) is None, "no published model has that size"),
        ("speculative" in row["note"].lower(), "speculative decoding changes bytes per token"),
        ("no neural accelerators" in row["note"] and row["metric"] == "prefill_tps",
         "its build left the chip's matrix units idle"),
        (row["software"] == "exo" and row["nodes"] == "2" and "rdma" not in row["network"],
         "does not say how its machines share the model"),
        ("not stated" in row["quant"], "does not say how its weights are quantized"),
        ("end-to-end" in row["context_or_pp"], "counts the prompt's time as decoding"),
        (any(row["source"].startswith(at) and how in row["software"] for at, how in FAULTS),
         "its source reports it as a fault of the engine"),
        (row["source"] == CONTRADICTS_ITSELF, "its source contradicts itself by more than twice"),
    )  # fmt: skip
    return next((reason for applies, reason in checks if applies), None)


def _several_kinds(row: dict[str, str]) -> bool:
    """Whether unlike machines work together; where they share matrices the slower sets the pace."""
    text = f"{row['machine']} {row['chip']}"
    lower = text.lower()
    apples = {match.group(0) for match in APPLE.finditer(text)}
    paced = "tensor" in row["software"] and row["nodes"] == "2"
    return (len(apples) > 1 and not paced) or any(w in lower for w in ("kirin", "intel i7"))


def _too_large(case: Case) -> bool:
    return case.model.weight_bytes > case.n_machines * case.machine.memory_gb * 2**30


def _case(row: dict[str, str]) -> Case:
    text = f"{row['machine']} {row['chip']}"
    engine = engine_of(row["software"])
    config = config_of(row["model"])
    assert engine is not None and config is not None
    bits = float(row["weight_bits"])
    inside = re.search(r" x(\d+)$", row["chip"])
    n_machines = int(row["nodes"]) * (int(inside[1]) if inside else 1)
    amount, depth = _tokens(row["context_or_pp"], row["metric"])
    lanes = re.search(r"(?:batch=|concurrency )(\d+)", row["context_or_pp"])
    ubatch = re.search(r"ubatch (\d+)", row["note"])
    return Case(
        id=row["id"],
        file=row["file"],
        source=f"{row['id'].split('-')[0]} {re.split(r'[ @]', row['source'])[0]}",
        engine=engine,
        machine=machine_of(text, cpu=CPU_ROWS.search(row["software"]) is not None),
        n_machines=n_machines,
        link=link_of(row["network"]) if n_machines > 1 else None,
        parallel=_parallel(row, n_machines, config),
        model=cost_of_config(config, bits),
        bits=bits,
        metric=row["metric"],
        value=float(row["value"]),
        rows=amount,
        chunk=int(ubatch[1]) if ubatch else 0,
        depth=depth,
        lanes=int(lanes[1]) if lanes else 1,
        dated=_is_dated(row),
        name=f"{n_machines}x {row['chip'][:28]}, {row['model'][:24]} {row['quant'][:8]}",
    )


OLLAMA_ISSUES = 30  # issues and requests before this one report runs of Ollama


def _is_dated(row: dict[str, str]) -> bool:
    """Rows of geerlingguy/ai-benchmarks from before it changed from Ollama to llama.cpp."""
    if "older rows are Ollama" not in row["note"]:
        return False
    number = re.search(r"(?:issues|pull)/(\d+)", row["note"])
    return number is None or int(number[1]) < OLLAMA_ISSUES


def _parallel(row: dict[str, str], n_machines: int, config: dict[str, Any]) -> str:
    """How a row's machines share the model; heads that do not divide by them cannot be shared."""
    if n_machines == 1:
        return "single"
    words = f"{row['software']} {row['network']} {row['note']}".lower()
    shares = any(word in words for word in ("tensor", "tp2", "dllama", "distributed"))
    shares = shares or (row["software"].startswith("exo") and "rdma" in row["network"])
    return "tensor" if shares and config["num_attention_heads"] % n_machines == 0 else "pipeline"


def _tokens(text: str, metric: str) -> tuple[int, int]:
    """(tokens of the prompt or generated, tokens before them) of "pp2048 @d32768", "10K", …"""
    deep = re.search(r"@ ?d(\d+)", text)
    depth = int(deep[1]) if deep else 0
    wanted = re.search(r"(?:pp|tg)(\d+)", text)
    thousands = re.search(r"(\d+)K\b", text)
    if metric == "prefill_tps":
        return (int(wanted[1]) if wanted else int(thousands[1]) * 1000 if thousands else 512), depth
    if thousands:
        return 64, int(thousands[1]) * 1000
    if both := re.search(r"pp(\d+) tg(\d+)", text):
        return int(both[2]), int(both[1])
    return (int(wanted[1]) if wanted else 64), depth
