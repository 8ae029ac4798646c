"""Clang, the compiler that macOS has, makes kernels of the same bits."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from tests.kernels import exercise


def test_clang_gives_the_same_bits(tmp_path: Path) -> None:
    compiler = shutil.which("clang++")
    if compiler is None or exercise.compiler_here() is None:
        pytest.skip("needs clang++ on x86-64 or 64-bit Arm")
    options = ["-O2", "-Wall", "-Wextra", "-Werror"]
    digests = exercise.run(exercise.build(tmp_path, options, platform.machine(), compiler))
    assert set(digests.values()) == {exercise.DIGEST}, digests
