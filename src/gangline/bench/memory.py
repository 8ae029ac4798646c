"""The most memory that this process ever had resident; `None` where the system does not tell."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def peak_resident_bytes() -> int | None:
    """Linux's VmHWM, which starts anew with the program, unlike `ru_maxrss` there."""
    if sys.platform == "win32":
        return _windows_peak()
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def _windows_peak() -> int | None:
    """https://learn.microsoft.com/windows/win32/api/psapi/nf-psapi-getprocessmemoryinfo."""
    if sys.platform != "win32":
        return None

    class Counters(ctypes.Structure):
        _fields_ = (
            ("cb", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        )

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    known = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return int(counters.peak_working_set) if known else None
