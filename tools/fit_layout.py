"""Which factors are fitted to published rows, and what is believed of each before any row.

A rate is a product of factors: of all engines and machines together, of a class of hardware, an
engine, a generation of chips, a chip. Each has a prior around 1 whose width says how much it may
differ, so that a factor with few rows stays near the average of the others (partial pooling).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.plan import catalog
from gangline.plan.engines import (
    ENGINES,
    ChipFit,
    ClassFit,
    Common,
    EngineFit,
    Fit,
    chip_key,
    class_of,
)
from tools.published import Case


class Prior(NamedTuple):
    """What is believed of a factor before any row: around `mean`, within a factor exp(`width`)."""

    mean: float
    width: float


# Values of all engines and classes together.
COMMON_PRIORS = {
    "bandwidth_share": Prior(0.75, 0.3),
    "operation_us": Prior(4.0, 1.0),
    "compute_share": Prior(0.6, 0.5),
    "cache_share": Prior(0.8, 0.3),
    "expert_share": Prior(0.9, 0.15),
    "dense16_share": Prior(1.05, 0.07),
    "compute_power": Prior(0.85, 0.1),
    "expert_compute": Prior(1.0, 0.3),
    "attention_share": Prior(0.4, 0.5),
    "expert_rows": Prior(16.0, 0.7),
    "compute16_factor": Prior(1.0, 0.2),
    "expert16_factor": Prior(0.8, 0.5),
    "hop_us": Prior(150.0, 1.0),
    "sync_us": Prior(80.0, 1.0),
    "bus_sync_us": Prior(15.0, 0.7),
}
CLASS_WIDTHS = {
    "bandwidth_share": 0.25, "operation_us": 1.2, "compute_share": 0.5, "compute_power": 0.15,
    "expert_compute": 0.35,
}  # fmt: skip
# A kind of another class differs from that, and by less.
PARENTS = {
    "apple-ultra": "apple", "nvidia-workstation": "nvidia", "nvidia-datacenter": "nvidia",
    "amd-datacenter": "amd",
}  # fmt: skip
UNSEEN = {"intel", "amd-datacenter"}  # classes of the catalogue that nobody published
CHILD_SHARE = 0.5  # of the widths
ENGINE_WIDTHS = {
    "bandwidth_factor": 0.12, "operation_factor": 0.4, "compute_factor": 0.3,
    "hop_us": 1.5, "sync_us": 0.8, "bus_sync_us": 0.6,
}  # fmt: skip
CHIP_WIDTHS = {"bandwidth_factor": 0.08, "operation_factor": 0.25, "compute_factor": 0.25}
# Chips of one generation have a clock, caches and a compiler in common.
FAMILY_WIDTHS = {"bandwidth_factor": 0.05, "operation_factor": 0.35, "compute_factor": 0.2}
FAMILIES = re.compile(r"^(m[1-6])\b|^(rtx [2-5])0[5-9]0|^(rx [679])\d{3}")

# Measured here, not fitted: a hop of ours on loopback (docs/log.md), whose round trip is 20 us.
OURS = EngineFit(
    hop_us=90.0,
    sync_us=90.0,
    bus_sync_us=90.0,
    shares=False,
    overlaps_prompt=True,
    skips_unwanted=True,
    prompt_rows=256,
)
# How engines work, from their documentation: mlx-lm and exo read 2048 tokens of a prompt at a time
# (`prefill_step_size`), vLLM as many (`max_num_batched_tokens`).
KNOWN = {
    "ours": OURS,
    "llama.cpp": EngineFit(shares=False),
    "mlx": EngineFit(prompt_rows=2048),
    "exo": EngineFit(prompt_rows=2048),
    "vllm": EngineFit(prompt_rows=2048),
    "distributed-llama": EngineFit(fan_out=True, pipelines=False),
}

Floats = NDArray[np.float64]
Key = tuple[str, str, str]  # group, name, field


def family_of(chip: str) -> str:
    """The generation of a chip, by its key; empty where chips of it are not compared."""
    found = FAMILIES.match(chip)
    return next((part for part in found.groups() if part), "") if found else ""


def _class(case: Case) -> str:
    return class_of(case.machine.chip, case.machine.kind)


class Layout:
    """Which numbers are fitted, and what is believed of each."""

    def __init__(self, cases: Iterable[Case]) -> None:
        cases = list(cases)
        found = {_class(c) for c in cases}
        self.classes = sorted(found | {PARENTS[one] for one in found if one in PARENTS} | UNSEEN)
        self.measured_on = {
            engine: tuple(sorted({_class(c) for c in cases if c.engine == engine}))
            for engine in ENGINES
        }
        self.engines = sorted({c.engine for c in cases} | {"ours"})
        self.chips = sorted({chip_key(c.machine.chip) for c in cases})
        self.families = sorted({family_of(chip) for chip in self.chips} - {""})
        listed = {chip_key(machine.chip) for machine in catalog.machines()}
        relatives = {chip for chip in listed if family_of(chip) in self.families}
        self.known_chips = sorted({*self.chips, *relatives})
        self.keys: list[Key] = []
        means, widths = [], []
        for field, prior in COMMON_PRIORS.items():
            self.keys.append(("common", "", field))
            means.append(math.log(prior.mean))
            widths.append(prior.width)
        for group, names, table in (
            ("class", self.classes, CLASS_WIDTHS),
            ("engine", [one for one in self.engines if one != "ours"], ENGINE_WIDTHS),
            ("family", self.families, FAMILY_WIDTHS),
            ("chip", self.chips, CHIP_WIDTHS),
        ):
            for name in names:
                for field, width in table.items():
                    self.keys.append((group, name, field))
                    means.append(0.0)
                    widths.append(width * (CHILD_SHARE if name in PARENTS else 1.0))
        self.means: Floats = np.array(means, np.float64)
        self.widths: Floats = np.array(widths, np.float64)

    def concerns(self, key: Key, case: Case) -> bool:
        """Whether a factor has a part in what is predicted of a row."""
        group, name, _ = key
        chip = chip_key(case.machine.chip)
        hardware = _class(case)
        return {
            "common": True,
            "class": name in (hardware, PARENTS.get(hardware)),
            "engine": name == case.engine,
            "family": name == family_of(chip),
            "chip": name == chip,
        }[group]

    def fit_of(self, theta: Floats) -> Fit:
        """The coefficients that a vector of logarithms stands for."""
        numbers: list[float] = np.exp(theta).tolist()
        value = dict(zip(self.keys, numbers, strict=True))

        def common(field: str) -> float:
            return value["common", "", field]

        def of_class(name: str, field: str) -> float:
            parent = PARENTS.get(name)
            above = common(field) if parent is None else of_class(parent, field)
            return above * value["class", name, field]

        def of_chip(name: str, field: str) -> float:
            family = value.get(("family", family_of(name), field), 1.0)
            return family * value.get(("chip", name, field), 1.0)

        engines = dict(KNOWN)
        for name in ENGINES:
            if name == "ours":
                continue
            given = {f: value.get(("engine", name, f), 1.0) for f in ENGINE_WIDTHS}
            for field in ("hop_us", "sync_us", "bus_sync_us"):
                given[field] *= common(field)
            engines[name] = msgspec.structs.replace(
                KNOWN[name], **given, measured_on=self.measured_on.get(name, ())
            )
        return Fit(
            Common(**{f: common(f) for f in Common.__struct_fields__}),
            {n: ClassFit(**{f: of_class(n, f) for f in CLASS_WIDTHS}) for n in self.classes},
            engines,
            {n: ChipFit(**{f: of_chip(n, f) for f in CHIP_WIDTHS}) for n in self.known_chips},
            {},
        )
