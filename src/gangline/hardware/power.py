"""Whether this machine runs on mains or on its battery; parsers of what systems say."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from gangline.facts import PowerSource
from gangline.hardware.system import read_text, run_command

_SUPPLIES = Path("/sys/class/power_supply")


def read_power() -> PowerSource | None:
    """None where the system does not tell: most machines without a battery."""
    if sys.platform == "darwin":
        return power_from_pmset(run_command("pmset", "-g", "batt"))
    if sys.platform == "win32":
        return _windows_power()
    return power_from_supplies(read_text(path) for path in sorted(_SUPPLIES.glob("*/uevent")))


def power_from_pmset(text: str) -> PowerSource | None:
    """From macOS's `pmset -g batt`."""
    found = re.search(r"drawing from '(AC|Battery|UPS) Power'", text)
    if found is None:
        return None
    return "mains" if found[1] == "AC" else "battery"


def power_from_supplies(uevents: Iterable[str]) -> PowerSource | None:
    """From the `uevent` files of Linux's power supplies; those of mice and pens do not count."""
    source: PowerSource | None = None
    for text in uevents:
        fields = dict(re.findall(r"^POWER_SUPPLY_(\w+)=(.*)$", text, re.MULTILINE))
        if fields.get("SCOPE") == "Device":
            continue
        if fields.get("TYPE") in ("Mains", "USB") and fields.get("ONLINE") == "1":
            return "mains"
        if fields.get("TYPE") == "Battery":
            source = "battery" if fields.get("STATUS") == "Discharging" else source or "mains"
    return source


class _PowerStatus(ctypes.Structure):
    """SYSTEM_POWER_STATUS of the Windows API."""

    _fields_ = (
        ("on_mains", ctypes.c_uint8),
        ("battery_flag", ctypes.c_uint8),
        ("battery_percent", ctypes.c_uint8),
        ("saver", ctypes.c_uint8),
        ("lifetime_s", ctypes.c_uint32),
        ("full_lifetime_s", ctypes.c_uint32),
    )


def _windows_power() -> PowerSource | None:
    if sys.platform != "win32":
        return None
    status = _PowerStatus()
    if not ctypes.windll.kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return None
    return {0: "battery", 1: "mains"}.get(status.on_mains)
