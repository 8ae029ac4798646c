"""Asking the operating system: commands with a time limit, and files that may not be there."""

from __future__ import annotations

import subprocess
from pathlib import Path

COMMAND_TIMEOUT_S = 5.0


def run_command(*command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """What a command prints; "" where there is none, or where it hangs."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def read_text(path: Path) -> str:
    """A file's text; "" where it cannot be read: not this kernel, not in this container."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def to_number(text: str) -> int | None:
    """The whole number that a file or a field consists of; None where it is anything else."""
    stripped = text.strip()
    is_number = stripped.isascii() and stripped.isdigit() and len(stripped) <= 18
    return int(stripped) if is_number else None
