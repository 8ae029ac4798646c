"""Describing a model in a process of its own, as a node does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from gangline.checkpoint.contents import read_contents
from gangline.checkpoint.describe import describe_contents
print(describe_contents(read_contents(Path(sys.argv[1]))).n_layers, "numpy" in sys.modules)
"""


def described_apart(path: Path) -> tuple[int, bool]:
    """The number of layers found there, and whether NumPy was loaded for it."""
    command = [sys.executable, "-c", CODE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    layers, numpy = done.stdout.split()
    return int(layers), numpy == "True"
