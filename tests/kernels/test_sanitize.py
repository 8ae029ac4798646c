"""Every kernel under the sanitizers for addresses and undefined behaviour, and for threads."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
PROGRAM = Path(__file__).with_name("exercise.cpp")
FAMILIES = (
    "linear_dense", "linear_packed", "quantize", "norm", "rope", "attend", "mlp", "elementwise",
    "softmax", "measure", "table",
)  # fmt: skip
OPERATIONS = ("operations", "heads", "route", "experts", "pack", "pool", "dispatch")
# Of all results of exercise.cpp: the same on x86-64 and Arm, on every path. It changes when a
# kernel computes something else; then old and new versions of Gangline do not agree either.
DIGEST = "3f7da9693fd89c84"
COMMON = ["-std=c++17", "-g1", "-pthread", "-ffp-contract=off", "-fno-math-errno", "-w"]
X86_PATHS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avxvnni": ["-mavx2", "-mavxvnni", "-mfma", "-mf16c"],
    "avx512": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mavx512vnni",
        "-mfma",
        "-mf16c",
    ],
}
ARM_PATHS = {"scalar": [], "neon": [], "dotprod": ["-march=armv8.2-a+dotprod"]}
PATHS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "x86_64": ("GANGLINE_X86", X86_PATHS),
    "AMD64": ("GANGLINE_X86", X86_PATHS),
    "aarch64": ("GANGLINE_ARM64", ARM_PATHS),
    "arm64": ("GANGLINE_ARM64", ARM_PATHS),
}


def build(folder: Path, flags: list[str], machine: str, compiler: str) -> Path:
    """The program with all paths of this machine; a path is one source that includes the rest."""
    architecture, paths = PATHS[machine]
    command = [compiler, *COMMON, *flags, f"-D{architecture}"]
    jobs, objects = [], []
    for path, path_flags in paths.items():
        source, result = folder / f"{path}.cpp", folder / f"{path}.o"
        source.write_text("".join(f'#include "{KERNELS}/{name}.cpp"\n' for name in FAMILIES))
        options = [*path_flags, f"-DGANGLINE_PATH_{path.upper()}"]
        jobs.append(subprocess.Popen([*command, *options, "-c", source, "-o", result]))
        objects.append(result)
    sources = [KERNELS / f"{name}.cpp" for name in OPERATIONS]
    assert all(job.wait() == 0 for job in jobs)
    program = folder / "exercise"
    subprocess.run([*command, *objects, *sources, PROGRAM, "-o", program], check=True)
    return program


@pytest.mark.parametrize(
    ("sanitizer", "optimization"), [("address,undefined", "-O0"), ("thread", "-O1")]
)
def test_kernels_and_threads_do_what_the_language_allows(
    tmp_path: Path, sanitizer: str, optimization: str
) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    machine = platform.machine()
    if compiler is None or machine not in PATHS or os.name == "nt":
        pytest.skip("needs g++ or clang++ on x86-64 or 64-bit Arm")
    flags = [optimization, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }")
    works = subprocess.run(
        [compiler, *flags, probe, "-o", tmp_path / "probe"], capture_output=True, check=False
    )
    if works.returncode or subprocess.run([tmp_path / "probe"], check=False).returncode:
        pytest.skip(f"{compiler} has no {sanitizer} sanitizer here")
    program = build(tmp_path, flags, machine, compiler)
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[-1] for line in done.stdout.splitlines()} == {DIGEST}
