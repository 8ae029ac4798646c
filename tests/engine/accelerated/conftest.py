"""Both back ends for each test, and the same random numbers whichever ran before."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.engine.accelerated.operands import RNG


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same numbers, whichever ran before."""
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


@pytest.fixture(params=["mlx", "torch"])
def ops(request: pytest.FixtureRequest) -> Iterator[Any]:
    pytest.importorskip(request.param, reason=f"the extra `{request.param}` is not installed")
    module = importlib.import_module(f"gangline.engine.backends.{request.param}")
    return getattr(module, request.param.capitalize())()
