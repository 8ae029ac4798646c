"""Kernel tests run once per vector path that this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

_kernels = pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")


@pytest.fixture(autouse=True)
def restore_path_and_threads() -> Iterator[None]:
    path, threads = _kernels.path(), _kernels.threads()
    yield
    _kernels.use_path(path)
    _kernels.set_threads(threads)


@pytest.fixture(params=_kernels.paths())
def path(request: pytest.FixtureRequest) -> str:
    _kernels.use_path(request.param)
    return str(request.param)
