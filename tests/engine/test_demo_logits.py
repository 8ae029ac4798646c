"""The demo model's logits are those of Hugging Face transformers in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.shape import CacheDtype
from gangline.paths import demo_model
from tests.engine.steps import Chain

FIXTURE = Path(__file__).parents[1] / "fixtures" / "demo_logits.npz"  # tools/record_demo_logits.py


@pytest.mark.parametrize(
    ("backend", "cache_dtype", "bound"),
    [("cpu", "f32", 1e-4), ("reference", "f32", 1e-4), ("cpu", "f16", 1e-2)],
)
def test_logits_agree_with_transformers(
    backend: str, cache_dtype: CacheDtype, bound: float
) -> None:
    folder = demo_model()
    context = open_checkpoint(folder).shape.context
    with np.load(FIXTURE) as file:
        recorded = dict(file)
    prompts = sorted({name.split(".")[0] for name in recorded}, key=int)
    assert len(prompts) >= 3
    chain = Chain(folder, (3, 6), backend=backend, context=context, cache_dtype=cache_dtype)
    for prompt in prompts:
        ids, positions, expected = (
            recorded[f"{prompt}.{part}"] for part in ("ids", "positions", "logits")
        )
        if backend == "reference" and len(ids) > 120:
            continue  # slow, and the same code as for short ones
        found = chain.run(ids.tolist())[positions]
        assert np.abs(found - expected).max() <= bound * np.abs(expected).max(), prompt
        if cache_dtype == "f32":
            assert (found.argmax(-1) == expected.argmax(-1)).all(), prompt
