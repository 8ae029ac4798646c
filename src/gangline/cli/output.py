"""What the commands print: aligned columns, units, errors. Data on stdout, the rest on stderr."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TextIO

from gangline.errors import GanglineError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def note(text: str) -> None:
    """A line of progress or advice, on stderr."""
    with contextlib.suppress(OSError):  # the terminal is gone: the work goes on without it
        print(text, file=sys.stderr, flush=True)


def error_text(error: GanglineError) -> str:
    """An error in the house's form."""
    return f"error: {error.message}" + (f"\n\nhint: {error.hint}" if error.hint else "")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream as it is written."""
    return stream.isatty()


def dim(text: str, stream: TextIO) -> str:
    """Less prominent, where the stream can show that and the user did not forbid it."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[2m{text}\x1b[0m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart, `-` for nothing."""
    cells = [list(header), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def size(n_bytes: int) -> str:
    """`171 GiB`, `2.2 GiB`, `11 MiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if n_bytes >= unit:
            return f"{significant(n_bytes / unit)} {name}"
    return f"{n_bytes} B"


def significant(value: float) -> str:
    """About two significant digits, never an exponent: `171`, `9.4`, `0.31`, `0.031`."""
    if value >= 9.95:
        return f"{value:.0f}"
    if value >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def rate(value: float) -> str:
    """A speed: `410`, `21.4`, `0.3`."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def command(*words: str) -> str:
    """A command to type, as `gangline load 'my model'`: names as a shell takes them."""
    return f"`{shlex.join(('gangline', *words))}`"


def counted(n: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
