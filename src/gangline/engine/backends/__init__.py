"""Back ends by name. They are imported when they are opened, so that none is needed by all.

Which one "auto" means is decided in the worker that runs it: a node imports no array library.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from gangline.engine.operations import Operations
from gangline.errors import Unavailable
from gangline.facts import check_backend

# Linux shows a GPU's driver as one of these: NVIDIA's, AMD's, WSL's, and what any GPU has.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/dri")


def open_backend(name: str = "auto", threads: int | None = None) -> Operations:
    """The operations of back end `name`; "auto" is the best one that is installed here.

    `threads` counts the calling thread; `None` leaves them as they are (one per core at first).
    `UsageError` for a name that there is not, `Unavailable` for one that is not installed.
    """
    check_backend(name)
    if name == "auto":
        name = choose_backend(
            installed=_is_installed,
            apple_silicon=sys.platform == "darwin" and platform.machine() == "arm64",
            torch_has_gpu=_torch_has_gpu,
        )
    if name == "reference":
        from gangline.engine.backends.reference import Reference

        return Reference()
    if name == "cpu":
        return _open_cpu(threads)
    if not _is_installed(name):
        raise Unavailable(
            f"the back end `{name}` is not installed here: `pip install 'gangline[{name}]'`",
            hint="Install it on every machine that is to use it, or leave the back end to `auto`.",
        )
    try:
        return _open_extra(name, threads)
    except (ImportError, OSError) as error:  # a library of the driver is missing, say
        raise Unavailable(
            f"the back end `{name}` cannot be loaded: {error}",
            hint=f"`pip install --force-reinstall 'gangline[{name}]'` installs it anew.",
        ) from error


def choose_backend(
    installed: Callable[[str], bool], apple_silicon: bool, torch_has_gpu: Callable[[], bool]
) -> str:
    """What "auto" means: MLX on Apple silicon, torch where it finds a GPU, else cpu.

    `torch_has_gpu` takes seconds and is asked only where torch is installed.
    """
    if apple_silicon and installed("mlx"):
        return "mlx"
    if installed("torch") and torch_has_gpu():
        return "torch"
    return "cpu" if installed("cpu") else "reference"


def _is_installed(name: str) -> bool:
    module = {"cpu": "gangline._kernels", "mlx": "mlx.core"}.get(name, name)
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False


def _torch_has_gpu() -> bool:
    """Whether torch finds a GPU; it is imported only where there may be one."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in _GPU_DEVICES):
        return False
    try:
        import torch
    except (ImportError, OSError):  # installed, but nothing that could be loaded
        return False
    return bool(torch.cuda.is_available() or torch.xpu.is_available())


def _open_cpu(threads: int | None) -> Operations:
    try:
        from gangline.engine.backends.cpu import Cpu
    except ImportError as error:
        raise Unavailable(
            f"the cpu back end cannot be loaded: {error}",
            hint="Install gangline with its kernels, or use the back end `reference`.",
        ) from error
    return Cpu(threads)


def _open_extra(name: str, threads: int | None) -> Operations:
    if name == "mlx":
        from gangline.engine.backends.mlx import Mlx

        return Mlx()
    from gangline.engine.backends.torch import Torch

    return Torch(threads)
