"""The kernels from outside: what they read, which path they took, and the time spent in them.

Everything here answers `None` or "" for a back end that is not made of `gangline._kernels`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gangline.engine.operations import Operations

_BUFFER_BYTES = 256 << 20  # well beyond any last-level cache of the machines we know
_MEASURE_S = 0.3
_CALIBRATIONS = 2000


def read_bandwidth(operations: Operations, threads: int) -> float | None:
    """Bytes per second that `threads` threads read from a plain buffer."""
    if operations.name != "cpu":
        return None
    from gangline import _kernels

    return _kernels.read_bandwidth(_BUFFER_BYTES, threads, _MEASURE_S)


def vector_path(operations: Operations) -> str:
    """The kernels' vector path in use."""
    if operations.name != "cpu":
        return ""
    from gangline import _kernels

    return _kernels.path()


def device_name(operations: Operations) -> str:
    """The graphics processor that these run on; "" for the processor."""
    if operations.name == "mlx":
        import mlx.core as mx

        return "Metal" if mx.metal.is_available() else ""
    if operations.name == "torch":
        from gangline.engine.backends.torch import device_title

        return device_title()
    return ""


class KernelWatch:
    """Counts calls of the kernels and the seconds in them, while it is entered.

    The module's functions are replaced by wrapped ones; methods of its classes are not watched.
    """

    def __init__(self) -> None:
        self.inside_s = 0.0
        self.n_calls = 0
        self.cost_s = 0.0  # of watching one call, outside of the time that is counted as inside
        self._originals: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> KernelWatch:
        from gangline import _kernels

        self.cost_s = self._measure_cost()
        for name, value in vars(_kernels).items():
            if callable(value) and not isinstance(value, type) and not name.startswith("_"):
                self._originals[name] = value
        for name, function in self._originals.items():
            setattr(_kernels, name, self._watched(function))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from gangline import _kernels

        for name, function in self._originals.items():
            setattr(_kernels, name, function)

    def clear(self) -> None:
        """Forget what was counted."""
        self.inside_s, self.n_calls = 0.0, 0

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter

        def watched(*arguments: Any) -> Any:
            began_s = clock()
            result = function(*arguments)
            self.inside_s += clock() - began_s
            self.n_calls += 1
            return result

        return watched

    def _measure_cost(self) -> float:
        """Seconds of one watched call of a function that does nothing, less a plain call's."""

        def nothing(*arguments: Any) -> None:
            return None

        watched = self._watched(nothing)
        seconds = []
        for function in (nothing, watched):
            began_s = time.perf_counter()
            for _ in range(_CALIBRATIONS):
                function(1, 2, 3, 4, 5, 6)
            seconds.append(time.perf_counter() - began_s)
        cost_s = max(0.0, (seconds[1] - seconds[0] - self.inside_s) / _CALIBRATIONS)
        self.clear()
        return cost_s
