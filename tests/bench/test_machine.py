"""The measurement of a machine: every figure plausible, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gangline.bench import machine, stack
from gangline.bench.layout import parts_of
from gangline.bench.machine import is_disturbed, measure, read_disk
from gangline.bench.shapes import SHAPES
from gangline.bench.stack import Stack, matrix_elements
from gangline.engine.backends import open_backend
from gangline.errors import GanglineError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROUNDS", 1)
    monkeypatch.setattr(machine, "MAX_COPIES", 1)
    monkeypatch.setattr(machine, "_DEEP", machine._WIDE)
    monkeypatch.setattr(machine, "DISK_BYTES", 2 << 20)


def test_everything_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    found = measure(tmp_path, 1)
    assert found.vector and found.measured_at
    assert (found.backend, found.device) == ("cpu", "")
    assert found.read_bytes_per_s is not None and 1e8 < found.read_bytes_per_s < 1e13
    assert found.operations_per_s is not None and 1e8 < found.operations_per_s < 1e16
    assert found.layer_s is not None and 1e-7 < found.layer_s < 1
    assert found.step_s is not None and 0 <= found.step_s < 1
    for speed in (found.cache_bytes_per_s, found.attention_operations_per_s):
        assert speed is None or speed > 1e7, "None where one pair of passes was all noise"
    assert list(tmp_path.iterdir()) == []


def test_the_slow_definition_of_operations_is_not_limited_by_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "open_backend", lambda name, threads: open_backend("reference"))
    monkeypatch.setattr(machine, "_WIDE", machine._THIN)
    found = measure(tmp_path, 1)
    assert found.read_bytes_per_s is found.step_s is None
    assert found.operations_per_s is not None and found.layer_s is not None


def test_copies_are_as_many_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = open_backend("reference")
    few = Stack(operations, tmp_path, machine._THIN, context=8, copies=3)
    assert few.n_layers == 3 * 16
    assert few.n_elements == 48 * matrix_elements(machine._THIN)
    monkeypatch.setattr(stack, "FREE_SHARE", 0.0)
    assert Stack(operations, tmp_path, machine._THIN, context=8, copies=3).n_layers == 16
    monkeypatch.undo()
    monkeypatch.setattr(stack, "LOAD_S", 0.0)
    assert Stack(operations, tmp_path, machine._THIN, context=8, copies=3).n_layers == 16
    assert list(tmp_path.iterdir()) == []


def test_steps_over_a_hop_are_timed_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "PAUSE_S", 0.001)
    few = Stack(open_backend("reference"), tmp_path, machine._THIN, context=8)
    steps_s = few.steps_s()
    assert all(0 < next(steps_s) < 60 for _ in range(3))
    steps_s.close()
    assert few.pass_s() > 0


def test_it_is_measured_with_the_back_end_that_is_named(tmp_path: Path) -> None:
    assert measure(tmp_path, 1, "reference").backend == "reference"


def test_unequal_passes_tell_of_other_work() -> None:
    assert not is_disturbed([1.0, 1.05, 1.1, 1.2, 1.9])
    assert is_disturbed([1.0, 1.4, 1.5, 2.0])
    assert not is_disturbed([1.0]) and not is_disturbed([])


def test_what_fails_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise GanglineError("the disk is full")

    monkeypatch.setattr(stack, "write_checkpoint", full)
    found = measure(tmp_path, 1)
    assert found.operations_per_s is found.layer_s is found.read_bytes_per_s is None
    assert found.measured_at
    assert measure(tmp_path / "nowhere", 1).disk_read_bytes_per_s is None


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be told to forget")
def test_a_disk(tmp_path: Path) -> None:
    speed = read_disk(tmp_path)
    assert speed is not None and 1e5 < speed < 1e12
    assert list(tmp_path.iterdir()) == []


def test_elements_are_those_of_the_layers_matrices() -> None:
    sizes = machine._WIDE
    config = SHAPES["llama-3.1-8b"].config | sizes
    matrices = [
        part.shape[0] * part.shape[1]
        for part in parts_of(config, None)
        if len(part.shape) == 2 and ".layers.0." in part.name
    ]
    assert matrix_elements(sizes) == sum(matrices)


def test_the_process_prints_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gangline.bench.machine", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["measured_at"]
