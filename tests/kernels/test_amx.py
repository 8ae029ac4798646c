"""Where tiles turn out to be illegal, that is noticed and the process lives on.

What tiles compute is tested with a model of them, a path of exercise.cpp (test_sanitize.py).
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import exercise


def test_illegal_tiles_are_noticed(tmp_path: Path) -> None:
    compiler = exercise.compiler_here()
    if compiler is None or sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("needs g++ or clang++ on Linux and x86-64")
    command = [compiler, *exercise.FLAGS, "-O0", "-DGANGLINE_X86", "-DGANGLINE_AMX"]
    paths = dict.fromkeys(("avx512", "amx"), exercise.AVX512)
    objects = exercise.build_paths(tmp_path, command, paths)
    source, program = Path(__file__).with_name("illegal_tiles.cpp"), tmp_path / "illegal_tiles"
    subprocess.run([*command, source, *objects, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "illegal, own handler called 1 time\n")
