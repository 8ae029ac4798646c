"""Rows of published measurements as cases that the cost model can be asked about.

A row is left out by one of the rules in `reason_to_leave_out`, which look at what the row says,
never at how well it is predicted. `docs/planner.md` lists them.
"""

from __future__ import annotations

import csv
import functools
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gangline.plan import catalog
from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.engines import Engine
from gangline.plan.shape import ModelCost, cost_of_config

HERE = Path(__file__).parent
DATA = HERE / "data" / "published.csv"

# Who wrote the software of a row, as patterns of its name; others are not modelled.
ENGINE_NAMES: tuple[tuple[str, Engine], ...] = (
    (r"^exo", "exo"),
    (r"^mlx", "mlx"),
    (r"^vllm", "vllm"),
    (r"^(distributed-llama|dllama)", "distributed-llama"),
    (r"llama\.cpp", "llama.cpp"),
)

# Patterns of a row's machine and chip -> machine of the catalogue; the first that is found counts.
# Of a machine with several memory sizes the largest stands for all: their speed is the same.
MACHINES: tuple[tuple[str, str], ...] = (
    (r"\bgb10\b|spark|gx10", "dgx-spark"),
    (r"rtx pro 6000", "rtx-pro-6000"),
    (r"6000 ada", "rtx-6000-ada"),
    (r"a100 (80gb )?pcie", "a100-80-pcie"),
    (r"a100", "a100-80-sxm"),
    (r"h100 (80gb )?pcie", "h100-80-pcie"),
    (r"h100", "h100-80-sxm"),
    (r"h200", "h200-141-sxm"),
    (r"b200", "b200-192"),
    (r"mi300x", "mi300x"),
    (r"l40s", "l40s"),
    (r"\ba40\b", "a40"),
    (r"\bt4\b", "t4"),
    (r"a6000", "rtx-a6000"),
    (r"a5000", "rtx-a5000"),
    (r"a4000", "rtx-a4000"),
    (r"a2000", "rtx-a2000"),
    (r"([2345]0[5-9]0)[ -]?(ti)?[ -]?(super)?", "rtx-"),
    (r"r9700", "r9700"),
    (r"w7700", "w7700"),
    (r"9070 ?xt", "rx-9070-xt"),
    (r"7900 ?xtx", "rx-7900-xtx"),
    (r"7900 ?xt", "rx-7900-xt"),
    (r"rx 7600", "rx-7600"),
    (r"6900 ?xt", "rx-6900-xt"),
    (r"6700 ?xt", "rx-6700-xt"),
    (r"a770", "arc-a770"),
    (r"b580", "arc-b580"),
    (r"b60", "arc-pro-b60"),
    (r"b50", "arc-pro-b50"),
    (r"orin", "jetson-agx-orin-64"),
    (r"thor", "jetson-agx-thor"),
    (r"ryzen ai max|395|strix halo|framework desktop", "strix-halo-128"),
    (r"ampereone", "ampereone-a192"),
    (r"altra|thelio astra", "altra-max-m128"),
    (r"n150", "n150"),
    (r"265k|core ultra 7", "core-ultra-265k"),
    (r"ms-r1|orion o6|cix", "ms-r1"),
    (r"rk1|rk3588", "rk3588-32"),
    (r"c3d-highcpu", "gcp-c3d-highcpu-30"),
    (r"500\+", "pi-500-plus"),
    (r"compute blade", "compute-blade"),
    (r"cm5", "cm5"),
    (r"cm4", "cm4"),
    (r"pi 5|bcm2712", "pi-5"),
    (r"pi 4|bcm2711", "pi-4"),
    (r"\bm([1-6])(?: (pro|max|ultra))?\b", "m"),
)
APPLE = re.compile(r"\bM([1-6])(?: (Pro|Max|Ultra))?\b")
CORES = re.compile(r"\((\d+)(?:[- ]core)?[- ]GPU|\((\d+)-core(?: GPU)?\)", re.IGNORECASE)
CPU_ROWS = re.compile(r"\(CPU\)", re.IGNORECASE)

# Patterns of a row's model -> model of the catalogue, or of published_models.toml.
MODELS: tuple[tuple[str, str], ...] = (
    (r"deepseek[ -]r1[ -:]14b", "qwen2.5-14b"),
    (r"r1-distill-llama-70b", "llama-3-70b"),
    (r"deepseek[ -](v3|r1)", "deepseek-v3"),
    (r"llama 1-30b", "llama-1-30b"),
    (r"llama[ -]([23](\.\d)?)[ -:](\d+b)", "llama-"),
    (r"qwen-?2.5(-coder)?-(\d+b)", "qwen2.5-"),
    (r"qwq-32b", "qwen2.5-32b"),
    (r"qwen3.6-35b", "qwen3.5-35b-a3b"),
    (r"qwen3.5-122b", "qwen3.5-122b-a10b"),
    (r"nemotron-3-super", "nemotron-3-super"),
    (r"minimax-m2", "minimax-m2"),
    (r"gemma-3-(\d+b)", "gemma-3-"),
)


LINKS: tuple[tuple[str, str], ...] = (
    (r"tb5-rdma", "tb5-rdma"),
    (r"tb5", "tb5"),
    (r"tb bridge", "tb3"),
    (r"wi-?fi", "wifi6"),
    (r"200gbe", "200gbe-rdma"),
    (r"25gbe-roce", "25gbe-rdma"),
    (r"20gbe", "20gbe-cloud"),
    (r"25gbe", "25gbe"),
    (r"10gbe", "10gbe"),
    (r"2\.5gbe", "2.5gbe"),
    (r"1gbe", "1gbe"),
    (r"pcie x8", "pcie5-x8"),
    (r"pcie", "pcie4-x16"),
    (r"5gbe|not stated", "5gbe"),
)


class Case(NamedTuple):
    """A row that the cost model can be asked about."""

    id: str
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
    chunk: int  # tokens of a prompt that a step takes
    depth: int  # tokens before them
    lanes: int
    dated: bool  # measured with software that has changed since, counts half
    name: str  # of machine and model, for people


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows as they are."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cases_of(rows: list[dict[str, str]]) -> tuple[list[Case], dict[str, list[str]]]:
    """The cases, and the ids of rows that were left out by the reason."""
    cases, left_out = [], {}
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
        (_machine_id(text) is None, "its machine is not in the catalogue"),
        (_config(row["model"]) is None, "no published model has that size"),
        ("speculative" in row["note"].lower(), "speculative decoding changes bytes per token"),
        ("no neural accelerators" in row["note"] and row["metric"] == "prefill_tps",
         "its build left the chip's matrix units idle"),
        (row["software"] == "exo" and row["nodes"] == "2" and "rdma" not in row["network"],
         "does not say how its machines share the model"),
        ("not stated" in row["quant"], "does not say how its weights are quantized"),
        ("end-to-end" in row["context_or_pp"], "counts the prompt's time as decoding"),
    )  # fmt: skip
    return next((reason for applies, reason in checks if applies), None)


def engine_of(software: str) -> Engine | None:
    """Which engine a row is about."""
    name = software.lower()
    return next((engine for pattern, engine in ENGINE_NAMES if re.search(pattern, name)), None)


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
    config = _config(row["model"])
    assert engine is not None and config is not None
    bits = float(row["weight_bits"])
    inside = re.search(r" x(\d+)$", row["chip"])
    n_machines = int(row["nodes"]) * (int(inside[1]) if inside else 1)
    amount, depth = _tokens(row["context_or_pp"], row["metric"])
    lanes = re.search(r"(?:batch=|concurrency )(\d+)", row["context_or_pp"])
    ubatch = re.search(r"ubatch (\d+)", row["note"])
    return Case(
        id=row["id"],
        source=f"{row['id'].split('-')[0]} {re.split(r'[ @]', row['source'])[0]}",
        engine=engine,
        machine=_machine(text, cpu=CPU_ROWS.search(row["software"]) is not None),
        n_machines=n_machines,
        link=_link(row["network"]) if n_machines > 1 else None,
        parallel=_parallel(row, n_machines, config),
        model=cost_of_config(config, bits),
        bits=bits,
        metric=row["metric"],
        value=float(row["value"]),
        rows=amount,
        chunk=int(ubatch[1]) if ubatch else 512,
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


@functools.cache
def _other_models() -> dict[str, dict[str, Any]]:
    entries = tomllib.loads((HERE / "published_models.toml").read_text(encoding="utf-8"))["model"]
    return {entry["id"]: entry["config"] for entry in entries}


def _config(model: str) -> dict[str, Any] | None:
    """The config of a row's model; None where nobody published one."""
    name = model.lower()
    wanted = name.replace(" ", "-")
    for pattern, found in MODELS:
        if match := re.search(pattern, name):
            family = found.endswith("-")  # the size is in the name
            wanted = found + "-".join(_sizes_in(match)) if family else found
            break
    if wanted in _other_models():
        return _other_models()[wanted]
    known = {entry.id: entry.config for entry in catalog.models()}
    near = [one for one in known if one == wanted] or [one for one in known if wanted in one]
    return known[near[0]] if near else None


def _sizes_in(match: re.Match[str]) -> list[str]:
    """Version and size of a model's name: its groups without the parts of a version."""
    return [part for part in match.groups() if part and part[0] not in ".-"]


def _machine_id(text: str) -> str | None:
    """The machine of the catalogue that a row is about; None where there is none."""
    lower = text.lower()
    ids = [machine.id for machine in catalog.machines()]
    for pattern, found in MACHINES:
        match = re.search(pattern, lower)
        if match is None:
            continue
        if found in ("m", "rtx-"):
            found += "-".join(part for part in match.groups() if part)
            cores = CORES.search(text)
            fewer = f"{found}-{cores[1] or cores[2]}-core" if cores else ""
            if fewer and any(one.startswith(fewer) for one in ids):
                found = fewer
        sizes = [one for one in ids if re.fullmatch(re.escape(found) + r"(-\d+)?", one)]
        return sizes[-1] if sizes else None
    return None


def _machine(text: str, cpu: bool) -> MachineType:
    """The machine of a row; where it says that the processor ran it, that is its kind."""
    found = _machine_id(text)
    assert found is not None
    machine = catalog.machine(found)
    if cpu and machine.kind in ("soc", "gpu"):
        machine = msgspec.structs.replace(machine, kind="cpu")
    return machine


def _link(network: str) -> LinkType:
    name = next(link for pattern, link in LINKS if re.search(pattern, network.lower()))
    return catalog.link(name)
