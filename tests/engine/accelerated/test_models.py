"""Whole small models, and batches, each against a formula in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gangline.engine.operations import Batch, Operations
from gangline.errors import ProtocolError
from tests.engine.accelerated.operands import RNG, agree, lanes_step, normal
from tests.engine.steps import Chain, ints
from tests.make_checkpoint import make_checkpoint


@pytest.mark.parametrize("kind", ["q4", "q8"])
def test_compressed_models_agree_with_reference(ops: Operations, tmp_path: Path, kind: str) -> None:
    """Scales in f16, with which MLX computes in float32."""
    folder = make_checkpoint(tmp_path, kind=kind, group_size=64, hidden=128, ffn=192, tied=False)
    ids = RNG.integers(0, 97, 20).tolist()
    found, expected = (
        Chain(folder, backend=backend).run(ids, [12, *[1] * 8])
        for backend in (ops.name, "reference")
    )
    agree(found, expected, 1e-4 if ops.name == "mlx" else 5e-2)


@pytest.mark.parametrize("kind", ["f32", "bf16", "q4"])
def test_splits_do_not_change_a_bit(ops: Operations, tmp_path: Path, kind: str) -> None:
    """Where the steps are the same: a hop carries what the layers compute, in float32."""
    folder = make_checkpoint(tmp_path, kind=kind, group_size=32)
    ids = RNG.integers(0, 97, 20).tolist()
    whole, *split = (
        Chain(folder, cuts, backend=ops.name).run(ids, [12, *[1] * 8])
        for cuts in ((), (1,), (1, 2), (0, 2))
    )
    assert all((logits == whole).all() for logits in split)


def test_batches_that_do_not_fit_are_refused(ops: Operations) -> None:
    for sequences in (
        [(4, 0, 1)],
        [(-1, 0, 1)],
        [(0, 0, 0)],
        [(0, -1, 1)],
        [(0, 690, 11)],
        [(1, 0, 1), (1, 5, 1)],
    ):
        with pytest.raises(ProtocolError):
            lanes_step(ops, *sequences)
    with pytest.raises(ProtocolError, match="without sequences"):
        ops.batch(Batch.of(ints(), ints(), ints()), 4, 700)


def test_arrays_of_numpy_are_left_alone(ops: Operations) -> None:
    """A frame's buffer may be read-only and used again; a result is nobody else's memory."""
    x = normal(2, 8)
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(2, 8)
    given = ops.from_numpy(frozen)
    first = ops.to_numpy(given)
    first[:] = 0
    assert (ops.to_numpy(given) == x).all() and (frozen == x).all()
