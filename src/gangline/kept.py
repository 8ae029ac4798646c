"""Small results that outlive a process: one struct as JSON in a file of `GANGLINE_HOME`.

What is kept only saves measuring it again, so that a damaged file reads as none and a folder that
cannot be written is no error.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def read_kept(path: Path, kind: type[T]) -> T | None:
    """The struct in a file; None where there is no file, or none of this kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def write_kept(path: Path, value: msgspec.Struct) -> None:
    """Replace the file as a whole, so that no reader ever sees a part of it."""
    partial = path.with_name(f"{path.name}.{time.monotonic_ns()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(value)))
        partial.replace(path)
    except OSError:  # what is not kept is worked out again
        with contextlib.suppress(OSError):  # it was not made, or is as far out of reach
            partial.unlink()
