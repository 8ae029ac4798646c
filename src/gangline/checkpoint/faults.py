"""What is said of files and fields that are not as they should be."""

from __future__ import annotations

from pathlib import Path

from gangline.errors import CheckpointError

REDOWNLOAD = "The file is damaged or incomplete: download or copy it again."


def damaged(file: Path, what: str) -> CheckpointError:
    """A file contradicts itself."""
    return CheckpointError(f"{file}: {what}", hint=REDOWNLOAD)


def bad_field(file: Path, name: str, value: object, expected: str) -> CheckpointError:
    """A field has a value that cannot be."""
    return CheckpointError(
        f"{file}: `{name}` is {str(value)[:200]!r}, expected {expected}",
        hint="The file is damaged, or made for something that this version cannot run.",
    )
