"""The definition of every operation, in plain NumPy: read this to know what a back end must do.

Slow, and exact to float32 only; runs wherever Python runs. Knows no model and no file. `backend.py`
has the operations; those that take more than a few lines are in a module of their subject.
"""

from gangline.engine.backends.reference.backend import Reference
from gangline.engine.backends.reference.weights import (
    BITS,
    cannot_run_bits,
    dense,
    quantize_rows,
    unpack,
)

__all__ = ["BITS", "Reference", "cannot_run_bits", "dense", "quantize_rows", "unpack"]
