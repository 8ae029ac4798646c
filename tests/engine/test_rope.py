"""Rotation angles against formulas of the papers, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gangline.checkpoint.shape import Rope, RopeScaling
from gangline.engine.rope import cos_sin, frequencies

LLAMA3 = RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)


def test_angles_of_plain_rope() -> None:
    table = cos_sin(50, Rope(8, 10000.0))
    assert table.shape == (50, 2, 4) and table.dtype == np.float32
    for position in (0, 1, 49):
        for i in range(4):
            angle = position * 10000.0 ** (-2 * i / 8)
            assert table[position, 0, i] == pytest.approx(math.cos(angle), abs=1e-5)
            assert table[position, 1, i] == pytest.approx(math.sin(angle), abs=1e-5)


def test_linear_scaling_stretches_positions() -> None:
    plain = cos_sin(20, Rope(16, 1e4))
    stretched = cos_sin(40, Rope(16, 1e4, RopeScaling("linear", 2.0)))
    assert (stretched[::2] == plain).all()


def test_dynamic_scaling_begins_beyond_the_original_context() -> None:
    """Numbers of transformers 5.23's `_compute_dynamic_ntk_parameters`."""
    rope = Rope(8, 1e4, RopeScaling("dynamic", 4.0, original_context=64))
    plain = [1.0, 0.1, 0.01, 0.001]
    for context, expected in (
        (32, plain),
        (64, plain),
        (96, [1.0, 0.06933612376451492, 0.0048074983060359955, 0.00033333332976326346]),
        (256, [1.0, 0.04252903535962105, 0.0018087188946083188, 7.69230755395256e-05]),
    ):
        np.testing.assert_allclose(frequencies(rope, context), expected, rtol=2e-7)


def test_llama3_scaling() -> None:
    """As Meta's reference code computes it, frequency by frequency."""
    plain = frequencies(Rope(64, 500000.0), 64)
    found = frequencies(Rope(64, 500000.0, LLAMA3), 64)
    kinds = set()
    for frequency, scaled in zip(plain.astype(np.float64), found, strict=True):
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4.0:
            expected, kind = frequency, "kept"
        elif wavelength > 8192 / 1.0:
            expected, kind = frequency / 32.0, "stretched"
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            expected, kind = (1 - smooth) * frequency / 32.0 + smooth * frequency, "blended"
        kinds.add(kind)
        assert scaled == pytest.approx(expected, rel=1e-5)
    assert kinds == {"kept", "stretched", "blended"}
