"""A model on disk, described as a node describes it."""

from __future__ import annotations

from pathlib import Path

from gangline.checkpoint.contents import read_contents
from gangline.checkpoint.describe import Description, describe_contents


def describe(path: Path) -> Description:
    """Read and describe it; `CheckpointError` or `NotFound` where it cannot be read."""
    return describe_contents(read_contents(path))
