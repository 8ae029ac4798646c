"""What the machines, models, engines and links of published rows are called in the catalogue."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gangline.plan import catalog
from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.engines import Engine

HERE = Path(__file__).parent

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
    (r"qwen3.6-35b", "qwen3.6-35b-a3b"),
    (r"qwen3.5-122b", "qwen3.5-122b-a10b"),
    (r"nemotron-3-super", "nemotron-3-super"),
    (r"minimax-m2.5", "minimax-m2.5"),
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
    (r"nvlink3", "nvlink3"),
    (r"pcie x8", "pcie5-x8"),
    (r"pcie 3", "pcie3-x16"),
    (r"pcie", "pcie4-x16"),
    (r"5gbe|not stated", "5gbe"),
)


def engine_of(software: str) -> Engine | None:
    """Which engine a row is about."""
    name = software.lower()
    return next((engine for pattern, engine in ENGINE_NAMES if re.search(pattern, name)), None)


@functools.cache
def _other_models() -> dict[str, dict[str, Any]]:
    entries = tomllib.loads((HERE / "published_models.toml").read_text(encoding="utf-8"))["model"]
    return {entry["id"]: entry["config"] for entry in entries}


def config_of(model: str) -> dict[str, Any] | None:
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


def machine_id(text: str) -> str | None:
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


def machine_of(text: str, cpu: bool) -> MachineType:
    """The machine of a row; where it says that the processor ran it, that is its kind."""
    found = machine_id(text)
    assert found is not None
    machine = catalog.machine(found)
    if cpu and machine.kind in ("soc", "gpu"):
        machine = msgspec.structs.replace(machine, kind="cpu")
    return machine


def link_of(network: str) -> LinkType:
    name = next(link for pattern, link in LINKS if re.search(pattern, network.lower()))
    return catalog.link(name)
