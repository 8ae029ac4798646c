"""A machine is measured anew while nothing works, and the measuring gives way."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from gangline.facts import Gpu, Hardware, WorkerStats
from gangline.hardware.measure import (
    Measurement,
    is_old,
    measurement_key,
    read_cache,
    today,
)
from gangline.node import machinewatch
from gangline.node.machinewatch import MachineWatch, measure_while
from tests.node.cluster import HARDWARE, run
from tests.node.samples import A, B, record_of, report_of, report_with, view_of

RESULT = Measurement(1e10, "avx2", "2026-11-20", 1e11, 1e-5, 2e9)


def replace_measuring(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(
        machinewatch, "measure_command", lambda *asked: [sys.executable, "-c", code]
    )


def test_a_measurement() -> None:
    text = msgspec.json.encode(RESULT).decode()
    command = [sys.executable, "-c", f"print({text!r}, end='')"]
    assert run(measure_while(command, asyncio.Event())) == RESULT


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "print('{}}')"])
def test_a_failure_is_no_measurement(tmp_path: Path, code: str) -> None:
    assert run(measure_while([sys.executable, "-c", code], asyncio.Event())) is None
    assert run(measure_while([str(tmp_path / "none")], asyncio.Event())) is None


def test_an_answer_breaks_it_off() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]

    async def scene() -> Measurement | None:
        busy = asyncio.Event()
        measuring = asyncio.create_task(measure_while(command, busy))
        await asyncio.sleep(0)  # it has begun to start its process
        busy.set()
        return await measuring

    assert run(scene()) is None


def test_what_counts_as_working() -> None:
    ready = record_of(B, state="ready")
    assert not view_of(A, None, report_of(A)).working
    assert not view_of(A, ready, report_of(A), report_with(ready, 0, "ready")).working
    loading = record_of(B)
    assert view_of(A, loading, report_of(A), report_with(loading, 0, "loading")).working
    answering = report_with(ready, 0, "ready")
    (worker,) = answering.facts.workers
    worker = msgspec.structs.replace(worker, stats=WorkerStats(lanes_active=2))
    facts = msgspec.structs.replace(answering.facts, workers=(worker,))
    view = view_of(A, ready, report_of(A), msgspec.structs.replace(answering, facts=facts))
    assert view.answering and view.working


def test_old_measurements() -> None:
    day = today()
    assert is_old(Measurement(), day)
    assert is_old(Measurement(measured_at="2020-01-01"), day)
    assert is_old(Measurement(measured_at="9999-01-01"), day)
    assert is_old(Measurement(measured_at="yesterday"), day)
    assert not is_old(Measurement(measured_at=day.isoformat()), day)
    assert not is_old(Measurement(measured_at=day.isoformat(), measured_busy=True), day)


@pytest.mark.parametrize("doubt", [{"measured_busy": True}, {"measured_at": "2020-01-01"}])
def test_a_doubtful_measurement_is_repeated_once_there_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubt: dict[str, object]
) -> None:
    day = today().isoformat()
    fresh = msgspec.structs.replace(RESULT, measured_at=day)
    text = msgspec.json.encode(fresh).decode()
    replace_measuring(monkeypatch, f"print({text!r}, end='')")
    monkeypatch.setattr(machinewatch, "AGE_EVERY_S", 0.01)
    hardware = msgspec.structs.replace(HARDWARE, **({"measured_at": day} | doubt))

    async def scene() -> Hardware:
        changed = asyncio.Event()
        watch = MachineWatch(tmp_path, hardware, changed.set, fixed=False)
        await changed.wait()
        await watch.close()
        return watch.hardware

    found = run(scene())
    assert (found.operations_per_s, found.measured_busy) == (1e11, False)
    assert read_cache(tmp_path / "machine.json", measurement_key(found)) == fresh


def test_a_cards_free_memory_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps: 10 MiB less are not worth telling."""
    gib = 1 << 30
    card = Gpu("RTX 4090", 24 * gib, False, 20 * gib)
    free = iter([20 * gib - (10 << 20), 15 * gib])

    def read_gpus(memory_bytes: int) -> tuple[Gpu, ...]:
        return (msgspec.structs.replace(card, free_bytes=next(free, 15 * gib)),)

    monkeypatch.setattr(machinewatch, "read_gpus", read_gpus)
    monkeypatch.setattr(machinewatch, "GRAPHICS_EVERY_S", 0.01)
    hardware = msgspec.structs.replace(HARDWARE, gpus=(card,))

    async def scene() -> Hardware:
        changed = asyncio.Event()
        watch = MachineWatch(tmp_path, hardware, changed.set, fixed=True)
        await changed.wait()
        await watch.close()
        return watch.hardware

    assert run(scene()).gpus[0].free_bytes == 15 * gib
