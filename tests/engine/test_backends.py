"""Which back end a name means, and what is said where it is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gangline.engine import backends
from gangline.engine.backends import choose_backend, open_backend
from gangline.errors import Unavailable, UsageError
from gangline.facts import BACKENDS

EVERYTHING = {"cpu", "mlx", "torch"}


@pytest.mark.parametrize(
    ("installed", "apple", "gpu", "chosen"),
    [
        (EVERYTHING, True, False, "mlx"),
        (EVERYTHING, True, True, "mlx"),
        (EVERYTHING, False, True, "torch"),
        (EVERYTHING, False, False, "cpu"),
        ({"cpu", "torch"}, True, False, "cpu"),
        ({"cpu", "mlx"}, False, True, "cpu"),
        ({"cpu"}, True, True, "cpu"),
        ({"torch"}, False, True, "torch"),
        ({"mlx"}, False, False, "reference"),
        (set(), False, False, "reference"),
    ],
)
def test_auto(installed: set[str], apple: bool, gpu: bool, chosen: str) -> None:
    assert choose_backend(installed.__contains__, apple, lambda: gpu) == chosen


def test_torch_is_asked_only_where_it_is_installed() -> None:
    def ask() -> bool:
        raise AssertionError("it was asked")

    assert choose_backend({"cpu"}.__contains__, False, ask) == "cpu"
    assert choose_backend(EVERYTHING.__contains__, True, ask) == "mlx"


def test_torch_is_not_imported_where_nothing_looks_like_a_gpu() -> None:
    code = (
        "import sys; from gangline.engine import backends; backends._GPU_DEVICES = ();"
        "print(backends.open_backend('auto', 1).name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert done.stdout.split() == ["cpu", "False"]


def test_names() -> None:
    assert open_backend("reference").name == "reference"
    with pytest.raises(UsageError, match="`tpu` is not known, expected one of auto, cpu, mlx"):
        open_backend("tpu")


@pytest.mark.parametrize("name", ["mlx", "torch"])
def test_an_extra_by_name(name: str) -> None:
    pytest.importorskip(name, reason=f"the extra `{name}` is not installed")
    assert name in BACKENDS
    assert open_backend(name, 1).name == name


@pytest.mark.parametrize("name", ["mlx", "torch"])
def test_an_extra_that_is_missing_or_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_is_installed", lambda name: False)
    with pytest.raises(Unavailable, match=rf"pip install 'gangline\[{name}\]'"):
        open_backend(name)

    def broken(name: str, threads: int | None) -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(backends, "_is_installed", lambda name: True)
    monkeypatch.setattr(backends, "_open_extra", broken)
    with pytest.raises(Unavailable, match=f"`{name}` cannot be loaded: libcudart") as caught:
        open_backend(name)
    assert "pip install" in caught.value.hint
