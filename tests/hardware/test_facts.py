"""What operating systems tell, read from samples of their own words."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.hardware.facts import (
    Memory,
    chip_from_cpuinfo,
    count_cores,
    free_from_vm_stat,
    limit_memory,
    machine_facts,
    memory_from_meminfo,
    quota_cores,
)

MEMINFO = (
    "MemTotal:       24684084 kB\nMemFree:  100 kB\nMemAvailable:   22684084 kB\nBuffers: 1 kB\n"
)
X86 = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) 8481C\n"
PI = "processor\t: 0\n\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            500000.
Pages inactive:                           20000.
Pages speculative:                         3000.
Pages wired down:                        100000.
Pages purgeable:                            400.
"Translation faults":                 123456789.
"""


def test_this_machine() -> None:
    facts = machine_facts()
    assert facts.chip
    assert facts.arch == facts.arch.lower()
    assert facts.system in ("linux", "darwin", "windows")
    assert 1 <= facts.cores <= (os.cpu_count() or 1)
    assert 0 < facts.free_bytes <= facts.memory_bytes
    assert facts.read_bytes_per_s is None, "it was not measured"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_follow_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("", None), ("1 0", None)],
)
def test_quota(text: str, cores: int | None) -> None:
    assert quota_cores(text) == cores


def test_chip() -> None:
    assert chip_from_cpuinfo(X86) == "Intel(R) Xeon(R) 8481C"
    assert chip_from_cpuinfo(PI) == "Raspberry Pi 5 Model B Rev 1.0"
    assert chip_from_cpuinfo("processor : 0\n") == ""


def test_memory_of_linux() -> None:
    assert memory_from_meminfo(MEMINFO) == Memory(24684084 * 1024, 22684084 * 1024)


def test_a_control_group_limits_memory_and_its_file_cache_is_free() -> None:
    whole = Memory(64 << 30, 60 << 30)
    stat = "anon 1\ninactive_file 1073741824\n"
    limited = limit_memory(whole, str(8 << 30), str(3 << 30), stat)
    assert limited == Memory(8 << 30, 6 << 30)
    assert limit_memory(whole, "max", str(3 << 30), stat) == whole


def test_free_memory_of_macos() -> None:
    assert free_from_vm_stat(VM_STAT) == 33400 * 16384


@given(st.text())
def test_nothing_they_say_raises(text: str) -> None:
    quota_cores(text)
    chip_from_cpuinfo(text)
    memory_from_meminfo(text)
    free_from_vm_stat(text)
    limit_memory(Memory(1, 1), text, text, text)
