"""Measuring once, keeping the result, and living without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gangline.facts import Gpu
from gangline.hardware import measure
from gangline.hardware.facts import machine_facts
from gangline.hardware.measure import Measurement, measured_hardware, read_cache, write_cache


def test_the_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured_hardware(tmp_path)
    assert first.read_bytes_per_s is not None
    assert 1e8 < first.read_bytes_per_s < 1e13, "bytes per second of some real memory"
    assert first.measured_at is not None

    def never(home: Path, threads: int | None) -> Measurement:
        raise AssertionError("it is in the cache")

    monkeypatch.setattr(measure, "run_measurement", never)
    second = measured_hardware(tmp_path)
    assert second.read_bytes_per_s == first.read_bytes_per_s
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]


def test_an_old_measurement_is_done_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = measure.measurement_key(machine_facts())
    write_cache(tmp_path / "machine.json", key, Measurement(1e9, "avx2", "2020-01-01"))
    new = Measurement(2e9, "avx2", measure.today().isoformat(), 3e9, 1e-5, 4e9)
    monkeypatch.setattr(measure, "run_measurement", lambda *asked: new)
    found = measured_hardware(tmp_path)
    assert (found.read_bytes_per_s, found.operations_per_s) == (2e9, 3e9)
    assert (found.layer_s, found.disk_read_bytes_per_s) == (1e-5, 4e9)
    assert read_cache(tmp_path / "machine.json", key) == new


def test_another_chip_or_a_damaged_cache_measures_anew(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    write_cache(path, "this chip", Measurement(1e9, "avx2", "2026-11-20"))
    assert read_cache(path, "this chip") == Measurement(1e9, "avx2", "2026-11-20")
    assert read_cache(path, "another chip") is None
    path.write_text('{"measurements": {"this chip": {')
    assert read_cache(path, "this chip") is None


def test_a_measurement_is_of_one_back_end_and_these_chips() -> None:
    hardware = machine_facts()
    card = msgspec.structs.replace(hardware, gpus=(Gpu("RTX 4090", 24 << 30),))
    keys = [
        measure.measurement_key(hardware),
        measure.measurement_key(hardware, 1),
        measure.measurement_key(hardware, None, "cpu"),
        measure.measurement_key(card),
    ]
    assert len(set(keys)) == len(keys)
    assert measure.timeout_s(card) > measure.timeout_s(msgspec.structs.replace(card, gpus=()))
    assert measure.measure_command(Path("x"), 2, "torch")[-3:] == ["x", "2", "torch"]


def test_a_failed_measurement_is_not_measured_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    assert measured_hardware(tmp_path).read_bytes_per_s is None
    assert not (tmp_path / "machine.json").exists()


def test_the_asking_process_stays_light() -> None:
    code = (
        "import sys, gangline.hardware.measure as m; m.machine_facts();"
        "sys.exit(bool({'numpy', 'gangline._kernels'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_number_of_threads_keeps_its_own(tmp_path: Path) -> None:
    """`up` and `demo` in turn do not measure anew."""
    path = tmp_path / "machine.json"
    kept = {f"{n} threads": Measurement(n * 1e9, "avx2", "2026-11-20") for n in (1, 2)}
    for key, measurement in kept.items():
        write_cache(path, key, measurement)
    assert {key: read_cache(path, key) for key in kept} == kept
    for n in range(measure.KEEP):
        write_cache(path, f"key {n}", Measurement())
    assert read_cache(path, "1 threads") is None, "the oldest make room"
    assert read_cache(path, "key 0") == Measurement()
