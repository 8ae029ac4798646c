"""Building and running exercise.cpp, for this processor or by a cross compiler for Arm.

python -m tests.kernels.exercise    # what `make test-arm` does
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

KERNELS = Path(__file__).parents[2] / "kernels"
PROGRAM = Path(__file__).with_name("exercise.cpp")
FAMILIES = (
    "linear_dense", "linear_packed", "quantize", "norm", "rope", "attend", "mlp", "elementwise",
    "softmax", "delta_rule", "measure", "table",
)  # fmt: skip
COMMON = (
    "operations", "heads", "route", "experts", "delta", "pack", "pool", "dispatch", "amx",
)  # fmt: skip
# Of all results of exercise.cpp: the same on x86-64 and Arm, on every path. It changes when a
# kernel computes something else; then old and new versions of Gangline do not agree either.
DIGEST = "eed5385e53d87977"
FLAGS = ["-std=c++17", "-g1", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mf16c"]
# Paths of each architecture, and the options of their sources. The model of AMX's tiles is a path
# of this program alone.
X86_PATHS = {
    "tile_model": [],
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avxvnni": ["-mavx2", "-mavxvnni", "-mfma", "-mf16c"],
    "avx512": AVX512,
    "zen4": AVX512,
}
ARM_PATHS = {
    "tile_model": [],
    "scalar": [],
    "neon": [],
    "dotprod": ["-march=armv8.2-a+dotprod"],
    "i8mm": ["-march=armv8.2-a+dotprod+i8mm"],
}
X86 = ["-DGANGLINE_X86", "-DGANGLINE_ZEN4", "-DGANGLINE_TILE_MODEL"]
ARM = ["-DGANGLINE_ARM64", "-DGANGLINE_I8MM", "-DGANGLINE_TILE_MODEL"]
CPU_INFO = Path("/proc/cpuinfo")
if CPU_INFO.exists() and "amx_int8" in CPU_INFO.read_text():  # elsewhere it could not run
    X86_PATHS["amx"] = AVX512
    X86.append("-DGANGLINE_AMX")
MACHINES: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "x86_64": (X86, X86_PATHS),
    "aarch64": (ARM, ARM_PATHS),
}
MACHINES |= {"AMD64": MACHINES["x86_64"], "arm64": MACHINES["aarch64"]}
ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_RUN = ("qemu-aarch64-static", "qemu-aarch64")
INSTALL_ARM = "Debian and Ubuntu: apt install g++-aarch64-linux-gnu qemu-user-static"


def compiler_here() -> str | None:
    """A compiler that makes programs of this machine's paths; `None` where there is none."""
    if platform.machine() not in MACHINES or os.name == "nt":
        return None
    return shutil.which("g++") or shutil.which("clang++")


def arm_tools() -> tuple[str, str] | None:
    """The cross compiler and what runs its programs; `None` where one of them is missing."""
    compiler = shutil.which(ARM_COMPILER)
    run = next((found for name in ARM_RUN if (found := shutil.which(name))), None)
    return (compiler, run) if compiler and run else None


def build(folder: Path, options: Sequence[str], machine: str, compiler: str) -> Path:
    """The program with all paths of a machine."""
    definitions, paths = MACHINES[machine]
    command = [compiler, *FLAGS, *options, *definitions]
    objects = build_paths(folder, command, paths)
    sources = [KERNELS / f"{name}.cpp" for name in COMMON]
    program = folder / "exercise"
    subprocess.run([*command, *objects, *sources, PROGRAM, "-o", program], check=True)
    return program


def build_paths(
    folder: Path, command: Sequence[str], paths: Mapping[str, Sequence[str]]
) -> list[Path]:
    """Objects of the kernels; a path is one source that includes the rest."""
    jobs, objects = [], []
    for path, path_options in paths.items():
        source, result = folder / f"{path}.cpp", folder / f"{path}.o"
        source.write_text("".join(f'#include "{KERNELS}/{name}.cpp"\n' for name in FAMILIES))
        own = [*path_options, f"-DGANGLINE_PATH_{path.upper()}"]
        jobs.append(subprocess.Popen([*command, *own, "-c", source, "-o", result]))
        objects.append(result)
    if any(job.wait() for job in jobs):
        raise RuntimeError(f"{command[0]} could not build the kernels")
    return objects


def run(*command: str | Path) -> dict[str, str]:
    """Digest of each path; `AssertionError` where the program fails or threads matter."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    digests: dict[str, str] = {}
    for line in done.stdout.splitlines():
        path, _, digest = line.split()
        assert digests.setdefault(path, digest) == digest, done.stdout
    return digests


def run_arm(folder: Path, compiler: str, emulator: str) -> dict[str, str]:
    """Digests of the paths of 64-bit Arm, in an emulator that has all of its instructions."""
    return run(emulator, "-cpu", "max", build(folder, ["-O1", "-static"], "aarch64", compiler))


def main() -> None:
    tools = arm_tools()
    if tools is None:
        sys.exit(f"error: needs {ARM_COMPILER} and {ARM_RUN[0]}\n\nhint: {INSTALL_ARM}")
    with TemporaryDirectory() as folder:
        digests = run_arm(Path(folder), *tools)
    for path, digest in digests.items():
        print(f"{path:12} {digest} {'as everywhere' if digest == DIGEST else 'DIFFERS'}")
    if set(digests.values()) != {DIGEST}:
        sys.exit(f"error: expected {DIGEST}")


if __name__ == "__main__":
    main()
