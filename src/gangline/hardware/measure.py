"""What this machine was measured to do, kept with its date and the build that measured it.

The measuring itself is `gangline.bench.machine`, run as a process of its own: a node's process
never loads the engine nor NumPy. The result is kept in `home/machine.json` under a key of chip,
cores and build, so another chip or build measures anew, and so does an old result.
"""

from __future__ import annotations

import datetime
import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

from gangline import __version__
from gangline.facts import Hardware
from gangline.hardware.facts import machine_facts
from gangline.kept import read_kept, write_kept

TIMEOUT_S = 20.0  # of the process; a frozen machine stays "not measured"
OLD_AFTER_DAYS = 30  # drivers, firmware and what else runs here change


class Measurement(msgspec.Struct, frozen=True):
    """What was measured, as in `Hardware`; None: it could not be."""

    read_bytes_per_s: float | None = None
    vector: str = ""
    measured_at: str | None = None
    operations_per_s: float | None = None
    layer_s: float | None = None
    disk_read_bytes_per_s: float | None = None
    measured_busy: bool = False
    cache_bytes_per_s: float | None = None
    attention_operations_per_s: float | None = None
    step_s: float | None = None


class _Kept(msgspec.Struct, frozen=True):
    key: str
    measurement: Measurement


def measured_hardware(home: Path, threads: int | None = None) -> Hardware:
    """This machine with its measurement, kept or new; a new one blocks for two to four seconds.

    `threads` are those that its workers have; None: one for each core.
    """
    hardware = machine_facts(home)
    path, key = home / "machine.json", measurement_key(hardware, threads)
    measurement = read_cache(path, key)
    if measurement is None or is_old(measurement, today()):
        measurement = run_measurement(home, threads)
        if measurement.measured_at is not None:
            write_cache(path, key, measurement)
    return with_measurement(hardware, measurement)


def with_measurement(hardware: Hardware, measurement: Measurement) -> Hardware:
    """The machine's facts with what was measured of it."""
    return msgspec.structs.replace(hardware, **msgspec.structs.asdict(measurement))


def measurement_key(hardware: Hardware, threads: int | None = None) -> str:
    """What a measurement holds for: another chip, cores, threads or build have their own."""
    used = hardware.cores if threads is None else threads
    return f"{hardware.chip} | {used} of {hardware.cores} cores | {build_name()}"


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
    """This version and this very build of its kernels, found without loading them."""
    spec = importlib.util.find_spec("gangline._kernels")
    if spec is None or spec.origin is None:
        return f"gangline {__version__} without kernels"
    built_ns = Path(spec.origin).stat().st_mtime_ns
    return f"gangline {__version__} with kernels of {built_ns}"


def read_cache(path: Path, key: str) -> Measurement | None:
    """The kept measurement; None where there is none for this key or the file is damaged."""
    kept = read_kept(path, _Kept)
    return kept.measurement if kept is not None and kept.key == key else None


def write_cache(path: Path, key: str, measurement: Measurement) -> None:
    """Keep a measurement; a folder that cannot be written only costs the next start a second."""
    write_kept(path, _Kept(key, measurement))


def measure_command(home: Path, threads: int | None = None) -> list[str]:
    """The process that prints a `Measurement`; it writes its scratch files into `home`."""
    command = [sys.executable, "-P", "-m", "gangline.bench.machine", str(home)]
    return command if threads is None else [*command, str(threads)]


def run_measurement(home: Path, threads: int | None = None) -> Measurement:
    """Measure in a process; a failure is "not measured", never an error of the node."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            measure_command(home, threads),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return msgspec.json.decode(done.stdout, type=Measurement)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return Measurement()
