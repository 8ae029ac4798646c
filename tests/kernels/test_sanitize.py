"""Every kernel under the sanitizers for addresses and undefined behaviour, and for threads."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from tests.kernels import exercise


@pytest.mark.parametrize(
    ("sanitizer", "optimization"), [("address,undefined", "-O0"), ("thread", "-O1")]
)
def test_kernels_and_threads_do_what_the_language_allows(
    tmp_path: Path, sanitizer: str, optimization: str
) -> None:
    compiler = exercise.compiler_here()
    if compiler is None:
        pytest.skip("needs g++ or clang++ on x86-64 or 64-bit Arm")
    options = [optimization, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }")
    works = subprocess.run(
        [compiler, *options, probe, "-o", tmp_path / "probe"], capture_output=True, check=False
    )
    if works.returncode or subprocess.run([tmp_path / "probe"], check=False).returncode:
        pytest.skip(f"{compiler} has no {sanitizer} sanitizer here")
    digests = exercise.run(exercise.build(tmp_path, options, platform.machine(), compiler))
    assert {"tile_model", "scalar"} <= digests.keys()
    assert set(digests.values()) == {exercise.DIGEST}, digests
