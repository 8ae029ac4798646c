"""Rows of the last layer that nobody wants are left out; what is left does not change."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import F32, Batch
from gangline.facts import Span
from tests.engine.fixtures import NAMES, read_case
from tests.engine.steps import ints
from tests.make_checkpoint import make_checkpoint

BACKENDS = {"reference": "numpy", "cpu": "gangline._kernels", "mlx": "mlx", "torch": "torch"}


def open_whole(folder: Path, backend: str) -> Decoder:
    checkpoint = open_checkpoint(folder)
    span = Span(0, checkpoint.shape.n_layers)
    return Decoder(checkpoint, open_backend(backend, 1), span, head=True, context=48, lanes=3)


def same(backend: str, found: F32, expected: F32) -> bool:
    if backend == "cpu":  # promise 2
        return found.shape == expected.shape and bool((found == expected).all())
    return np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(initial=0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_wanted_rows_are_those_of_all(tmp_path: Path, name: str, backend: str) -> None:
    """Prompts and decoding in one step, some of which want logits; then on with what is cached."""
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{BACKENDS[backend]} is not installed")
    folder = read_case(name, tmp_path, in_f32=backend in ("mlx", "torch")).folder
    vocab = open_checkpoint(folder).shape.vocab
    random = np.random.default_rng(1)
    steps = [
        (Batch.of(ints(2, 0), ints(0, 0), ints(9, 5)), ints()),
        (Batch.of(ints(0, 1, 2), ints(5, 0, 9), ints(1, 20, 3)), ints(0, 23)),
        (Batch.of(ints(0, 1, 2), ints(6, 20, 12), ints(1, 1, 1)), ints(0, 1, 2)),
        (Batch.of(ints(0, 1, 2), ints(7, 21, 13), ints(1, 1, 1)), ints(2)),
    ]
    all_rows, some_rows = open_whole(folder, backend), open_whole(folder, backend)
    for batch, wanted in steps:
        ids = random.integers(0, vocab, int(batch.counts.sum())).astype(np.int32)
        expected = all_rows.forward(all_rows.embed(ids), batch)[wanted]
        found = some_rows.forward(some_rows.embed(ids), batch, wanted)
        assert found.flags.c_contiguous
        assert same(backend, found, expected), wanted
        if len(wanted):
            assert same(backend, some_rows.logits(found), all_rows.logits(expected)), wanted


def test_a_head_without_layers_passes_the_wanted_rows_on(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    head = Decoder(
        open_checkpoint(folder), open_backend("cpu", 1), Span(0, 0), head=True, context=8, lanes=1
    )
    batch = Batch.of(ints(0), ints(0), ints(3))
    x = head.embed(ints(1, 2, 3))
    assert (head.forward(x.copy(), batch, ints(2)) == x[2:]).all()
    assert head.forward(x.copy(), batch, ints()).shape == (0, x.shape[1])
