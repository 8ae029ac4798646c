"""The measurement of a machine: every figure plausible, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gangline.bench import machine
from gangline.bench.layout import parts_of
from gangline.bench.machine import is_disturbed, matrix_elements, measure, read_disk
from gangline.bench.shapes import SHAPES
from gangline.engine.backends import open_backend
from gangline.errors import GanglineError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROUNDS", 1)
    monkeypatch.setattr(machine, "DISK_BYTES", 2 << 20)


def test_everything_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    found = measure(tmp_path, 1)
    assert found.vector and found.measured_at
    assert (found.backend, found.device) == ("cpu", "")
    assert found.read_bytes_per_s is not None and 1e8 < found.read_bytes_per_s < 1e13
    assert found.operations_per_s is not None and 1e8 < found.operations_per_s < 1e16
    assert found.layer_s is not None and 1e-7 < found.layer_s < 1
    assert list(tmp_path.iterdir()) == []


def test_a_back_end_without_our_kernels_is_measured_while_it_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    monkeypatch.setattr(machine, "read_bandwidth", lambda operations, threads: None)
    monkeypatch.setattr(machine, "DEEP_LAYERS", 2)
    found = measure(tmp_path, 1)
    assert found.read_bytes_per_s is not None and 1e8 < found.read_bytes_per_s < 1e13
    monkeypatch.setattr(machine, "open_backend", lambda name, threads: open_backend("reference"))
    assert measure(tmp_path, 1).read_bytes_per_s is None, "memory is not what makes it slow"


def test_it_is_measured_with_the_back_end_that_is_named(tmp_path: Path) -> None:
    assert measure(tmp_path, 1, "reference").backend == "reference"


def test_unequal_passes_tell_of_other_work() -> None:
    assert not is_disturbed([1.0, 1.05, 1.1, 1.2, 1.9])
    assert is_disturbed([1.0, 1.4, 1.5, 2.0])
    assert not is_disturbed([1.0]) and not is_disturbed([])


def test_what_fails_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise GanglineError("the disk is full")

    monkeypatch.setattr(machine, "write_checkpoint", full)
    found = measure(tmp_path, 1)
    assert found.operations_per_s is found.layer_s is None
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
