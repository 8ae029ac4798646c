"""Where Gangline keeps its data; knows names of folders only."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """`GANGLINE_HOME`, or the platform's data folder; the folder need not exist yet."""
    chosen = os.environ.get("GANGLINE_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "gangline"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData/Local"))) / "gangline"
    return Path(os.environ.get("XDG_DATA_HOME", str(Path.home() / ".local/share"))) / "gangline"


def demo_model() -> Path:
    """The folder of the model that comes with the package."""
    return Path(__file__).parent / "demo_model"
