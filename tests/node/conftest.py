"""A small model for clusters of real and doubled workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_checkpoint import make_checkpoint
from tests.make_tokenizer import make_tokenizer

VOCABULARY = 258  # bytes and two special tokens


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder named `tiny`: six layers, random weights, a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_checkpoint(folder, n_layers=6, vocab=VOCABULARY, context=256)
    return make_tokenizer(folder)
