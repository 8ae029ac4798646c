"""Which kinds of cores a processor has, and its vector units; parsers of what systems say."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gangline.hardware.system import read_text, run_command, to_number

_CPUS = Path("/sys/devices/system/cpu")
_INTEL_SLOW_CPUS = Path("/sys/devices/cpu_atom/cpus")  # hybrid processors of Intel
_SLOW_BELOW = 0.6  # of the fastest core's capacity: A55 beside A76 has 0.4, A720 its siblings 0.9

# Ours for what decides how fast matrices multiply, by the names of /proc/cpuinfo and of sysctl.
_LINUX_FEATURES = {
    "avx2": "avx2", "avx_vnni": "avx-vnni", "avx512f": "avx512", "avx512_vnni": "avx512-vnni",
    "avx512_bf16": "avx512-bf16", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16",
    "asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve",
    "sve2": "sve2", "sme": "sme",
}  # fmt: skip
_MACOS_FEATURES = {
    "AdvSIMD": "neon", "arm.FEAT_DotProd": "dotprod", "arm.FEAT_I8MM": "i8mm",
    "arm.FEAT_BF16": "bf16", "arm.FEAT_SME": "sme", "avx2_0": "avx2", "avx512f": "avx512",
}  # fmt: skip


def count_efficiency_cores(usable: Iterable[int] | None, cores: int) -> int:
    """How many of this process's `cores` are of the slower kind; `usable` are their numbers."""
    if sys.platform == "darwin":
        return efficiency_from_sysctl(run_command("sysctl", "hw"), cores)
    numbers = set(usable) if usable is not None else set(range(cores))
    atoms = cpus_of_list(read_text(_INTEL_SLOW_CPUS))
    if not atoms:
        files = _CPUS.glob("cpu[0-9]*/cpu_capacity")
        capacities = {int(path.parent.name[3:]): to_number(read_text(path)) for path in files}
        atoms = slow_cpus({cpu: c for cpu, c in capacities.items() if c is not None})
    return min(len(atoms & numbers), cores)


def cpus_of_list(text: str) -> set[int]:
    """The numbers of a kernel's list such as "0-3,8"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if found is not None:
            cpus |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    return cpus


def slow_cpus(capacities: Mapping[int, int]) -> set[int]:
    """The processors that are much slower than the fastest, by Linux's `cpu_capacity`."""
    fastest = max(capacities.values(), default=0)
    return {cpu for cpu, capacity in capacities.items() if capacity < _SLOW_BELOW * fastest}


def efficiency_from_sysctl(text: str, cores: int) -> int:
    """Efficiency cores in macOS's `sysctl hw`: those of the second performance level."""
    values = dict(re.findall(r"^hw\.([\w.]+): ([0-9]{1,9})$", text, re.MULTILINE))
    return min(int(values.get("perflevel1.logicalcpu", 0)), cores)


def read_features() -> tuple[str, ...]:
    """The vector units of this processor; empty where the system does not tell."""
    if sys.platform == "darwin":
        return features_from_sysctl(run_command("sysctl", "hw.optional"))
    return features_from_cpuinfo(read_text(Path("/proc/cpuinfo")))


def features_from_cpuinfo(text: str) -> tuple[str, ...]:
    """In the first processor of Linux's /proc/cpuinfo: "flags" on x86, "Features" on Arm."""
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    words = set(found[1].split()) if found is not None else set()
    return tuple(name for word, name in _LINUX_FEATURES.items() if word in words)


def features_from_sysctl(text: str) -> tuple[str, ...]:
    """In macOS's `sysctl hw.optional`."""
    present = set(re.findall(r"^hw\.optional\.([\w.]+): 1$", text, re.MULTILINE))
    return tuple(name for key, name in _MACOS_FEATURES.items() if key in present)
