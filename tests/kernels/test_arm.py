"""The kernels of 64-bit Arm, cross-compiled and run in an emulator, give the bits of x86-64."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import exercise


def test_arm_gives_the_same_bits(tmp_path: Path) -> None:
    tools = exercise.arm_tools()
    if tools is None:
        pytest.skip(f"needs {exercise.ARM_COMPILER} and qemu-user: {exercise.INSTALL_ARM}")
    assert exercise.run_arm(tmp_path, *tools) == dict.fromkeys(exercise.ARM_PATHS, exercise.DIGEST)
