"""What this machine can do, measured with our own kernels, once per machine and build.

`python -m gangline.hardware.measure` measures in a process of its own, so that a node's process
never loads the kernels nor NumPy. The result is kept in `home/machine.json` under a key of chip,
cores and build, so another chip or build measures anew.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from gangline import __version__
from gangline.facts import Hardware
from gangline.hardware.facts import count_cores, machine_facts

MEASURE_S = 0.4
BUFFER_BYTES = 256 << 20  # well beyond any last-level cache of the machines we know
TIMEOUT_S = 20.0  # of the subprocess; a frozen machine stays "not measured"


class Measurement(msgspec.Struct, frozen=True):
    """What was measured; None: it could not be."""

    read_bytes_per_s: float | None = None
    vector: str = ""
    measured_at: str | None = None


class _Cache(msgspec.Struct, frozen=True):
    key: str
    measurement: Measurement


def measured_hardware(home: Path) -> Hardware:
    """This machine with its measurement, from the cache or by measuring; blocks up to a second."""
    hardware = machine_facts()
    key = f"{hardware.chip} | {hardware.cores} cores | {build_name()}"
    path = home / "machine.json"
    measurement = read_cache(path, key)
    if measurement is None:
        measurement = run_measurement()
        if measurement.read_bytes_per_s is not None:
            write_cache(path, key, measurement)
    return msgspec.structs.replace(
        hardware,
        vector=measurement.vector,
        read_bytes_per_s=measurement.read_bytes_per_s,
        measured_at=measurement.measured_at,
    )


def build_name() -> str:
    """This version and this very build of its kernels, found without loading them."""
    spec = importlib.util.find_spec("gangline._kernels")
    if spec is None or spec.origin is None:
        return f"gangline {__version__} without kernels"
    built_ns = Path(spec.origin).stat().st_mtime_ns
    return f"gangline {__version__} with kernels of {built_ns}"


def read_cache(path: Path, key: str) -> Measurement | None:
    """The kept measurement; None where there is none for this key or the file is damaged."""
    try:
        cache = msgspec.json.decode(path.read_bytes(), type=_Cache)
    except (OSError, msgspec.DecodeError):
        return None
    return cache.measurement if cache.key == key else None


def write_cache(path: Path, key: str, measurement: Measurement) -> None:
    """Keep a measurement; a folder that cannot be written only costs the next start a second."""
    partial = path.with_name(f"{path.name}.{time.monotonic_ns()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(_Cache(key, measurement))))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)


def run_measurement() -> Measurement:
    """Measure in a subprocess; a failure is "not measured", never an error of the node."""
    command = [sys.executable, "-P", "-m", "gangline.hardware.measure"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
        )
        return msgspec.json.decode(done.stdout, type=Measurement)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return Measurement()


def measure() -> Measurement:
    """Measure here and now; this process loads the kernels, or NumPy where there are none."""
    kernels = _import("gangline._kernels")
    numpy = _import("numpy")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    if kernels is not None:
        speed = float(kernels.read_bandwidth(BUFFER_BYTES, count_cores(), MEASURE_S))
        return Measurement(speed, str(kernels.path()), today)
    if numpy is not None:
        return Measurement(_numpy_bandwidth(numpy), "", today)
    return Measurement()


def _numpy_bandwidth(numpy: Any) -> float:
    """Bytes per second that NumPy's sum reads on one thread: a lower bound of the machine's."""
    block = numpy.ones(BUFFER_BYTES // 8, dtype=numpy.int64)
    best, end = 0.0, time.perf_counter() + MEASURE_S
    while time.perf_counter() < end:
        started = time.perf_counter()
        block.sum()
        best = max(best, BUFFER_BYTES / (time.perf_counter() - started))
    return best


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))
