"""Gangline: one open language model over the machines you already own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gangline.scripting import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def load_model(
    path: Path | str,
    backend: str = "cpu",
    *,
    context: int | None = None,
    threads: int | None = None,
) -> Model:
    """Load a model of a folder or file into this process, for scripts.

    The result has `logits(ids) -> float32 (tokens, vocabulary)` and `generate(ids, …)`, an iterator
    of token ids. `context` is how many tokens a sequence may have (`None`: what the model was made
    for, at most 4096), `threads` how many the back end uses (`None`: one per core). Raises
    `gangline.errors.GanglineError`: the path holds no model, or one that cannot be run.
    """
    from gangline.scripting import load  # NumPy and the engine are loaded when they are needed

    return load(path, backend, context, threads)
