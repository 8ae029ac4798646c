"""How much of a machine's specification an engine reaches: coefficients fitted to measurements.

`catalog/engines.toml` is written by `tools/fit_engines.py` from published measurements. A share of
a specification is the product of what is known of the class of hardware, of the engine and of the
very chip; each falls back to the average where nobody published. `docs/planner.md` has the model.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
import tomllib
from typing import Literal

import msgspec

from gangline.errors import NotFound
from gangline.plan.catalog import MachineType

Engine = Literal["ours", "llama.cpp", "mlx", "vllm", "exo", "distributed-llama"]
ENGINES: tuple[Engine, ...] = ("ours", "llama.cpp", "mlx", "vllm", "exo", "distributed-llama")

MAX_SHARE = 0.97  # of a memory's specified bandwidth: nothing reads faster than its refresh leaves


class ClassFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a class of hardware reaches, averaged over engines."""

    bandwidth_share: float  # of the specified bandwidth, while weights are read
    operation_us: float  # fixed cost of one kernel
    compute_share: float  # of a chip specified at REFERENCE_TFLOPS, at prefill
    compute_power: float  # speed at prefill grows with specified TFLOPS to this power
    expert_compute: float = 1.0  # arithmetic of experts at prefill, relative to other matrices


class EngineFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine differs from the average, and what it pays to use several machines."""

    bandwidth_factor: float = 1.0
    operation_factor: float = 1.0
    compute_factor: float = 1.0
    hop_us: float = 100.0  # of handing a hidden state on, besides the link itself
    sync_us: float = 100.0  # of an all-reduce over a network, besides the link itself
    bus_sync_us: float = 15.0  # of one between cards of a computer: a kernel, no message
    syncs_per_layer: int = 2
    fan_out: bool = False  # all-reduces go through one root, not directly
    pipelines: bool = True  # can give machines different layers
    shares: bool = True  # can share each matrix among machines
    overlaps_prompt: bool = False  # stages work on different parts of one prompt at a time
    skips_unwanted: bool = False  # the last MLP runs for the prompt's last token alone
    prompt_rows: int = 512  # tokens of a prompt that a step takes, as most engines cut prompts
    measured_on: tuple[str, ...] = ()  # classes of hardware that rows of it were published for


class ChipFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one chip differs from its class."""

    bandwidth_factor: float = 1.0
    operation_factor: float = 1.0
    compute_factor: float = 1.0


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for all of them."""

    cache_share: float  # bandwidth of reading the cache, relative to weights
    expert_share: float  # bandwidth of reading experts, relative to other weights
    dense16_share: float  # bandwidth of 16-bit weights, relative to quantized ones
    attention_share: float  # arithmetic of attention at prefill, relative to matrices
    expert_rows: float  # rows by which each expert's share of a prompt is rounded up
    compute16_factor: float  # arithmetic with 16-bit weights, relative to quantized ones
    expert16_factor: float  # of experts in 16 bits, relative to other 16-bit weights


class ErrorFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Relative errors that four of five published rows stay below, their source left out."""

    decode: float
    prefill: float
    cluster: float  # decode on several machines


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `engines.toml`."""

    common: Common
    classes: dict[str, ClassFit]
    engines: dict[str, EngineFit]
    chips: dict[str, ChipFit]
    errors: dict[str, ErrorFit]


class Rates(msgspec.Struct, frozen=True):
    """What one machine does with one engine; the planner's whole view of its speed."""

    bytes_per_s: float  # of weights that are read once
    cache_bytes_per_s: float
    expert_bytes_per_s: float
    flops_per_s: float  # of matrices at prefill; infinite where nothing is known
    expert_flops_per_s: float
    attention_flops_per_s: float
    operation_s: float
    expert_rows: float = 0.0
    head_s: float = (
        0.0  # of a head's step besides its matrices; part of `hop_us` where not measured
    )


REFERENCE_TFLOPS = 50.0

# Classes by vendor and kind, tried in order; the pattern is searched in the chip's name.
_CLASSES: tuple[tuple[str, str], ...] = (
    (r"apple.*ultra|\bm\d ultra", "apple-ultra"),
    (r"apple|\bm\d( pro| max)?\b|\ba1\d pro", "apple"),
    (r"gb10|spark|jetson|orin|thor", "nvidia-soc"),
    (r"^(nvidia )?([abh]\d{2,3}|l40s?|l4|t4|gh200|gb200)\b", "nvidia-datacenter"),
    (r"rtx a\d{3,4}|rtx pro|6000 ada|quadro", "nvidia-workstation"),
    (r"rtx|gtx|geforce|nvidia", "nvidia"),
    (r"ryzen|strix|8060s", "amd-soc"),
    (r"\bmi\d{3}", "amd-datacenter"),
    (r"radeon|\brx |\bpro w|r9700|amd.*gpu", "amd"),
    (r"\barc\b", "intel"),
    (r"bcm|raspberry|\bpi\b|\bcm[45]\b|rk35|rockchip|jh71|p550|cix|allwinner", "board"),
)


def class_of(chip: str, kind: str) -> str:
    """The class of hardware that a chip belongs to: `apple`, `nvidia`, `cpu`, …"""
    if kind == "cpu":
        return "cpu"
    name = chip.lower()
    for pattern, found in _CLASSES:
        if re.search(pattern, name):
            return found
    return {"gpu": "nvidia", "soc": "cpu", "board": "board"}.get(kind, "cpu")


_MAKERS = re.compile(
    r"\([^)]*\)|\b(apple|nvidia|geforce|amd|radeon|intel|broadcom|host|ai(?= pro r9700))\b|,.*"
    r"|\b\d+ ?gb\b|with .*",
    re.IGNORECASE,
)


def chip_key(chip: str) -> str:
    """`rtx 4090` of "NVIDIA GeForce RTX 4090": how chips are called in `engines.toml`."""
    return " ".join(_MAKERS.sub(" ", chip).lower().split())


@functools.cache
def published_fit() -> Fit:
    """The coefficients that come with this version."""
    file = importlib.resources.files("gangline.plan") / "catalog" / "engines.toml"
    return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Fit)


def bandwidth_gbps(machine: MachineType) -> float:
    """The bandwidth that shares are of: of small boards the measured one, if anybody measured it.

    Their processors reach between a quarter and two thirds of what their memory could give.
    """
    measured = machine.measured_gbps if machine.kind == "board" else 0.0
    return measured or machine.memory_gbps


def tensor_tflops(machine: MachineType) -> float:
    """The arithmetic that shares are of; 0 where nobody published it.

    Of NVIDIA's chips a quarter of the eight-bit rate: it is the rate of the kernels for quantized
    weights, and the same on cards of one chip that are sold with and without full 16-bit rate.
    """
    if machine.int8_tops and class_of(machine.chip, machine.kind).startswith("nvidia"):
        return machine.int8_tops / 4
    return machine.fp16_tflops


def find_engine(name: str) -> Engine:
    """An engine by its name; NotFound lists them."""
    for engine in ENGINES:
        if engine == name.lower():
            return engine
    raise NotFound(f"there is no engine `{name}`", hint=f"use {', '.join(ENGINES)}")


def rates_of(machine: MachineType, engine: Engine, bits: float, fit: Fit | None = None) -> Rates:
    """What `machine` does with `engine` at `bits` per weight, from its specification."""
    fit = fit or published_fit()
    common = fit.common
    of_class = fit.classes[class_of(machine.chip, machine.kind)]
    of_engine = fit.engines[engine]
    of_chip = fit.chips.get(chip_key(machine.chip), ChipFit())
    share = of_class.bandwidth_share * of_engine.bandwidth_factor * of_chip.bandwidth_factor
    dense = bits >= 15
    if dense:
        share *= common.dense16_share
    bytes_per_s = bandwidth_gbps(machine) * 1e9 * min(share, MAX_SHARE)
    flops_per_s = float("inf")
    tflops = tensor_tflops(machine)
    if tflops:
        grown = (tflops / REFERENCE_TFLOPS) ** of_class.compute_power
        flops_per_s = REFERENCE_TFLOPS * 1e12 * grown * of_class.compute_share
        flops_per_s *= of_engine.compute_factor * of_chip.compute_factor
        flops_per_s *= common.compute16_factor if dense else 1.0
    operation_us = of_class.operation_us * of_engine.operation_factor * of_chip.operation_factor
    return Rates(
        bytes_per_s=bytes_per_s,
        cache_bytes_per_s=bytes_per_s * common.cache_share,
        expert_bytes_per_s=bytes_per_s * common.expert_share,
        flops_per_s=flops_per_s,
        expert_flops_per_s=flops_per_s
        * of_class.expert_compute
        * (common.expert16_factor if dense else 1.0),
        attention_flops_per_s=flops_per_s * common.attention_share,
        operation_s=operation_us * 1e-6,
        expert_rows=common.expert_rows,
    )
