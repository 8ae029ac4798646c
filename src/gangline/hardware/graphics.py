"""Graphics processors and the memory that models can have of them; parsers of what systems say.

NVIDIA's answer comes from `nvidia-smi`, AMD's from the kernel's files, Apple's from
`system_profiler`; others are not known yet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from gangline.facts import Gpu
from gangline.hardware.system import read_text, run_command, to_number

_CARDS = Path("/sys/class/drm")
_AMD = "0x1002"  # AMD's number among vendors of PCI devices
_CARVED_OUT_BYTES = 2 << 30  # below this, a Radeon's own memory is a corner of the machine's
_PROFILER_TIMEOUT_S = 10.0
_NVIDIA_QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def read_gpus(memory_bytes: int) -> tuple[Gpu, ...]:
    """All of them; `memory_bytes` is the machine's memory, which some share."""
    if sys.platform == "darwin":
        profile = run_command(
            "system_profiler", "-json", "SPDisplaysDataType", timeout_s=_PROFILER_TIMEOUT_S
        )
        limit = to_number(run_command("sysctl", "-n", "iogpu.wired_limit_mb"))
        return gpus_from_profiler(profile, memory_bytes, limit or 0)
    nvidia = gpus_from_nvidia(run_command("nvidia-smi", *_NVIDIA_QUERY), memory_bytes)
    return nvidia + tuple(
        gpu for card in sorted(_CARDS.glob("card[0-9]*")) if (gpu := read_amd_card(card / "device"))
    )


def gpus_from_nvidia(text: str, memory_bytes: int) -> tuple[Gpu, ...]:
    """Lines of "name, MiB, free MiB"; no number of MiB: it shares the machine's memory."""
    gpus = []
    for line in text.splitlines():
        name, *numbers = (part.strip() for part in line.rsplit(",", 2))
        if len(numbers) != 2 or not name:
            continue
        total, free = (to_number(number) for number in numbers)
        if total is None:
            gpus.append(Gpu(name, memory_bytes, True))
        else:
            gpus.append(Gpu(name, total << 20, False, None if free is None else free << 20))
    return tuple(gpus)


def read_amd_card(device: Path) -> Gpu | None:
    """An AMD card by its folder in the kernel's device tree; None for anything else."""
    if read_text(device / "vendor").strip() != _AMD:
        return None
    return gpu_from_amdgpu(
        read_text(device / "product_name"),
        read_text(device / "mem_info_vram_total"),
        read_text(device / "mem_info_gtt_total"),
        read_text(device / "mem_info_vram_used"),
    )


def gpu_from_amdgpu(name: str, vram: str, gtt: str, used: str = "") -> Gpu | None:
    """From the files of the amdgpu driver, in bytes; None without a memory.

    A processor's graphics have a corner of the machine's memory as their own and reach as much of
    the rest as GTT says.
    """
    own = to_number(vram) or 0
    reach = to_number(gtt) or 0
    title = name.strip() or "AMD Radeon"
    if own >= _CARVED_OUT_BYTES:
        taken = to_number(used)
        return Gpu(title, own, False, None if taken is None else max(0, own - taken))
    return Gpu(title, reach, True) if reach else None


def gpus_from_profiler(text: str, memory_bytes: int, limit_mib: int) -> tuple[Gpu, ...]:
    """From macOS's `system_profiler -json SPDisplaysDataType`.

    macOS lets graphics wire two thirds of a memory below 36 GiB and three quarters of a larger
    one; `limit_mib` of `iogpu.wired_limit_mb` replaces that where it is not 0.
    """
    share = memory_bytes * 3 // 4 if memory_bytes >= 36 << 30 else memory_bytes * 2 // 3
    reach = limit_mib << 20 if limit_mib else share
    gpus = []
    for card in _cards(text):
        if card.sppci_model.startswith("Apple"):  # no back end of ours runs on Intel Macs' graphics
            cores = f" ({card.sppci_cores}-core GPU)" if card.sppci_cores else ""
            gpus.append(Gpu(card.sppci_model + cores, reach, True))
    return tuple(gpus)


class _Card(msgspec.Struct):
    sppci_model: str = ""
    sppci_cores: str = ""


def _cards(text: str) -> list[_Card]:
    try:
        profile = msgspec.json.decode(text.encode("utf-8", "replace"), type=dict[str, list[_Card]])
    except msgspec.DecodeError:
        return []
    return profile.get("SPDisplaysDataType", [])
