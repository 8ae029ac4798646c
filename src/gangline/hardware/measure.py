"""What this machine was measured to do, kept with its date and the build that measured it.

The measuring itself is `gangline.bench.machine`, run as a process of its own: a node's process
never loads the engine nor NumPy. The result is kept in `home/machine.json` under a key of chip,
cores, threads and build, so another chip or build measures anew, and so does an old result; nodes
with other threads in turn (`up`, then `demo`) find their own.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

from gangline import __version__
from gangline.facts import Hardware
from gangline.hardware.facts import count_cores, machine_facts
from gangline.kept import read_kept, write_kept

TIMEOUT_S = 20.0  # of the process; a frozen machine stays "not measured"
GPU_TIMEOUT_S = 90.0  # its driver is loaded, and its kernels are compiled, the first time
OLD_AFTER_DAYS = 30  # drivers, firmware and what else runs here change
KEEP = 8  # keys of a machine; the oldest make room


class Measurement(msgspec.Struct, frozen=True):
    """What was measured, as in `Hardware`; None: it could not be."""

    read_bytes_per_s: float | None = None
    vector: str = ""
    measured_at: str | None = None
    operations_per_s: float | None = None
    layer_s: float | None = None
    disk_read_bytes_per_s: float | None = None
    measured_busy: bool = False
    backend: str = ""
    device: str = ""
    cache_bytes_per_s: float | None = None
    attention_operations_per_s: float | None = None
    step_s: float | None = None


class _Kept(msgspec.Struct, frozen=True):
    measurements: dict[str, Measurement]  # by key, the newest last


def measured_hardware(home: Path, threads: int | None = None, backend: str = "auto") -> Hardware:
    """This machine with its measurement, kept or new; a new one blocks for two to four seconds.

    `threads` are those that its workers have; None: one for each core. `backend` is theirs, too.
    """
    hardware = machine_facts(home)
    path, key = home / "machine.json", measurement_key(hardware, threads, backend)
    measurement = read_cache(path, key)
    if measurement is None or is_old(measurement, today()):
        measurement = run_measurement(home, threads, backend, timeout_s(hardware))
        if measurement.measured_at is not None:
            write_cache(path, key, measurement)
    return with_measurement(hardware, measurement)


def with_measurement(hardware: Hardware, measurement: Measurement) -> Hardware:
    """The machine's facts with what was measured of it."""
    return msgspec.structs.replace(hardware, **msgspec.structs.asdict(measurement))


def measurement_key(hardware: Hardware, threads: int | None = None, backend: str = "auto") -> str:
    """What a measurement holds for: other chips, cores, threads or builds have their own."""
    used = hardware.cores if threads is None else threads
    chips = " + ".join([hardware.chip, *(gpu.name for gpu in hardware.gpus)])
    return f"{chips} | {used} of {hardware.cores} cores | {backend} | {build_name()}"


def timeout_s(hardware: Hardware) -> float:
    """How long a measurement may take here."""
    return GPU_TIMEOUT_S if hardware.gpus else TIMEOUT_S


def today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def is_old(measurement: Measurement, day: datetime.date) -> bool:
    """Whether it is to be done again; one from the future is as untrustworthy as an old one.

    One of a busy machine is not old: a start would only find the machine as busy again. A running
    node repeats it when there is quiet.
    """
    if measurement.measured_at is None:
        return True
    try:
        measured = datetime.date.fromisoformat(measurement.measured_at)
    except ValueError:
        return True
    return not 0 <= (day - measured).days < OLD_AFTER_DAYS


def build_name() -> str:
    """This version, this very build of its kernels and the extras, found without loading them."""
    spec = importlib.util.find_spec("gangline._kernels")
    if spec is None or spec.origin is None:
        kernels = "without kernels"
    else:
        kernels = f"with kernels of {Path(spec.origin).stat().st_mtime_ns}"
    return " ".join([f"gangline {__version__} {kernels}", *_extras()])


def _extras() -> list[str]:
    """`torch 2.13.0`: back ends that are installed besides ours."""
    found = []
    for name in ("mlx", "torch", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is an extra
            found.append(f"{name} {importlib.metadata.version(name)}")
    return found


def read_cache(path: Path, key: str) -> Measurement | None:
    """The kept measurement; None where there is none for this key or the file is damaged."""
    return _read(path).get(key)


def write_cache(path: Path, key: str, measurement: Measurement) -> None:
    """Keep a measurement; a folder that cannot be written only costs the next start a second."""
    others = {one: known for one, known in _read(path).items() if one != key}
    newest = list((others | {key: measurement}).items())[-KEEP:]
    write_kept(path, _Kept(dict(newest)))


def _read(path: Path) -> dict[str, Measurement]:
    kept = read_kept(path, _Kept)
    return kept.measurements if kept is not None else {}


def measure_command(home: Path, threads: int | None = None, backend: str = "auto") -> list[str]:
    """The process that prints a `Measurement`; it writes its scratch files into `home`."""
    asked = [str(home), str(threads or count_cores()), backend]
    return [sys.executable, "-P", "-m", "gangline.bench.machine", *asked]


def run_measurement(home: Path, threads: int | None, backend: str, timeout_s: float) -> Measurement:
    """Measure in a process; a failure is "not measured", never an error of the node."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            measure_command(home, threads, backend),
            capture_output=True,
            timeout=timeout_s,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return msgspec.json.decode(done.stdout, type=Measurement)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return Measurement()
