"""What this machine is, as its operating system tells; chip, number of cores and memory are here.

Every probe has a pure half that reads text, so that it is tested on any system. Containers are
respected: cores are those this process may use, memory is what its control group allows.
What the machine was *measured* to do is `measure.py`.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import msgspec

from gangline.facts import Hardware
from gangline.hardware.graphics import read_gpus
from gangline.hardware.network import read_interfaces
from gangline.hardware.power import read_power
from gangline.hardware.processor import count_efficiency_cores, read_features
from gangline.hardware.system import read_text, run_command, to_number

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_CGROUP = Path("/sys/fs/cgroup")


class Memory(msgspec.Struct, frozen=True):
    """Memory of this machine, in bytes."""

    total_bytes: int
    free_bytes: int  # what a new process could use, caches of files included


def machine_facts(folder: Path | None = None) -> Hardware:
    """This machine, without anything measured; `folder` says whose disk is looked at.

    Runs the system's own tools: some milliseconds on Linux, a second or two on macOS.
    """
    memory = read_memory()
    cores = count_cores()
    return Hardware(
        chip=read_chip(),
        arch=_ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower()),
        system=platform.system().lower(),
        cores=cores,
        memory_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        efficiency_cores=count_efficiency_cores(_usable_cores(), cores),
        features=read_features(),
        gpus=read_gpus(memory.total_bytes),
        interfaces=read_interfaces(),
        disk_free_bytes=read_disk_free(folder) if folder is not None else None,
        power=read_power(),
    )


def read_disk_free(folder: Path) -> int | None:
    """Bytes free where `folder` is or will be; None where no folder above it can be asked."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:  # it does not exist yet, or may not be asked: its parent is on that disk
            continue
    return None


def count_cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota."""
    usable = _usable_cores()
    cores = len(usable) if usable is not None else os.cpu_count() or 1
    return min(cores, quota_cores(read_text(_CGROUP / "cpu.max")) or cores)


def _usable_cores() -> set[int] | None:
    """The numbers of the cores that this process may use; None: the system has no such limit."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def quota_cores(cpu_max: str) -> int | None:
    """Cores in a control group's `cpu.max` ("quota period" in µs), rounded up; None: no limit."""
    found = re.fullmatch(r"([0-9]{1,18}) ([0-9]{1,18})\s*", cpu_max)
    if found is None or int(found[2]) == 0:
        return None
    return max(1, math.ceil(int(found[1]) / int(found[2])))


def read_chip() -> str:
    """The processor's name as its maker spells it; the architecture where nothing tells."""
    if sys.platform == "darwin":
        found = run_command("sysctl", "-n", "machdep.cpu.brand_string")
    elif sys.platform == "win32":
        found = _windows_chip()
    else:
        board = read_text(Path("/sys/firmware/devicetree/base/model"))
        found = chip_from_cpuinfo(read_text(Path("/proc/cpuinfo"))) or board
    return found.strip("\0 \n") or platform.processor() or platform.machine() or "unknown"


def chip_from_cpuinfo(text: str) -> str:
    """The name in Linux's /proc/cpuinfo; Arm kernels give "Model" or "Hardware", or nothing."""
    fields = dict(re.findall(r"^([^\t:]+?)[ \t]*:[ \t]*(.+)$", text, re.MULTILINE))
    for key in ("model name", "Model", "Hardware"):
        if key in fields:
            return str(fields[key])
    return ""


def read_memory() -> Memory:
    """Memory now; cheap on Linux and Windows, some milliseconds on macOS."""
    if sys.platform == "darwin":
        total = int(run_command("sysctl", "-n", "hw.memsize") or 0)
        return Memory(total, free_from_vm_stat(run_command("vm_stat")))
    if sys.platform == "win32":
        return _windows_memory()
    whole = memory_from_meminfo(read_text(Path("/proc/meminfo")))
    return limit_memory(
        whole,
        read_text(_CGROUP / "memory.max"),
        read_text(_CGROUP / "memory.current"),
        read_text(_CGROUP / "memory.stat"),
    )


def memory_from_meminfo(text: str) -> Memory:
    """Linux's /proc/meminfo; its "kB" are KiB."""
    kib = {
        key: int(value) for key, value in re.findall(r"^(\w+):\s+([0-9]{1,18})", text, re.MULTILINE)
    }
    total = kib.get("MemTotal", 0)
    return Memory(total * 1024, kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024)


def limit_memory(memory: Memory, maximum: str, current: str, stat: str) -> Memory:
    """Bound by a control group (version 2): its files' cache counts as free."""
    maximum_bytes, used_bytes = to_number(maximum), to_number(current)
    if maximum_bytes is None or used_bytes is None:
        return memory
    cached = re.search(r"^inactive_file ([0-9]{1,18})$", stat, re.MULTILINE)
    limit = min(memory.total_bytes, maximum_bytes)
    used = used_bytes - (int(cached[1]) if cached else 0)
    return Memory(limit, max(0, min(memory.free_bytes, limit - used)))


def free_from_vm_stat(text: str) -> int:
    """Bytes that macOS's `vm_stat` shows as free or at once reclaimable."""
    page = re.search(r"page size of ([0-9]{1,9}) bytes", text)
    found = re.findall(r"^Pages ([\w ]+):\s+([0-9]{1,18})\.", text, re.MULTILINE)
    pages = {key: int(n) for key, n in found}
    usable = sum(pages.get(key, 0) for key in ("free", "inactive", "speculative", "purgeable"))
    return usable * (int(page.group(1)) if page else 4096)


def _windows_chip() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    except OSError:
        return ""


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        ("total_physical", ctypes.c_uint64),
        ("available_physical", ctypes.c_uint64),
        ("total_page_file", ctypes.c_uint64),
        ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("available_virtual", ctypes.c_uint64),
        ("available_extended_virtual", ctypes.c_uint64),
    )


def _windows_memory() -> Memory:
    if sys.platform != "win32":
        return Memory(0, 0)
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(0, 0)
    return Memory(status.total_physical, status.available_physical)
