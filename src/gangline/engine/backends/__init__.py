"""Back ends by name. They are imported when they are opened, so that none is needed by all."""

from __future__ import annotations

import importlib.util

from gangline.engine.operations import Operations
from gangline.errors import Unavailable, UsageError

NAMES = ("auto", "cpu", "reference")


def open_backend(name: str = "auto", threads: int | None = None) -> Operations:
    """The operations of back end `name`; "auto" is the best one that is installed here.

    `threads` counts the calling thread; `None` leaves them as they are (one per core at first).
    """
    if name == "auto":
        name = "cpu" if importlib.util.find_spec("gangline._kernels") else "reference"
    if name == "reference":
        from gangline.engine.backends.reference import Reference

        return Reference()
    if name == "cpu":
        try:
            from gangline.engine.backends.cpu import Cpu
        except ImportError as error:
            raise Unavailable(
                f"the cpu back end cannot be loaded: {error}",
                hint="Install gangline with its kernels, or use the back end `reference`.",
            ) from error
        return Cpu(threads)
    raise UsageError(
        f"back end `{name}` is not known, expected one of {', '.join(NAMES)}", param="backend"
    )
