"""A picture in a file: .svg as it is, .png where the extra `plot` is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from gangline.errors import UsageError

ZOOM = 2.0  # pixels of a .png for each of the picture's: sharp in print


def check_picture(path: Path) -> None:
    """Raise UsageError for a picture that cannot be written, before anything is computed."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        _rasterizer(path)
    elif suffix != ".svg":
        raise UsageError(
            f"`{path}` is no picture", hint="use a name ending in .svg or .png", param="plot"
        )


def write_picture(path: Path, svg: str) -> None:
    """Write the picture; UsageError where that cannot be."""
    data = _png(path, svg) if path.suffix.lower() == ".png" else svg.encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", param="plot") from error


def _png(path: Path, svg: str) -> bytes:
    render = _rasterizer(path)
    # A machine without fonts would draw everything but the words, and say nothing.
    probe = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    if render(svg_string=probe.format('<text y="15">0</text>')) == render(
        svg_string=probe.format("")
    ):
        raise UsageError(
            "this machine has no fonts to write a .png with",
            hint=f"install some (fonts-dejavu-core on Debian), or write {path.with_suffix('.svg')}",
            param="plot",
        )
    return render(svg_string=svg, zoom=ZOOM)


class _Rasterizer(Protocol):
    """What is used of `resvg_py.svg_to_bytes`."""

    def __call__(self, *, svg_string: str, zoom: float = ...) -> bytes: ...


def _rasterizer(path: Path) -> _Rasterizer:
    try:
        function: _Rasterizer = importlib.import_module("resvg_py").svg_to_bytes
        return function
    except ImportError as error:
        raise UsageError(
            "a .png needs the extra `plot`, which is not installed",
            hint=f"pip install 'gangline[plot]', or write {path.with_suffix('.svg')}: "
            "every browser shows it",
            param="plot",
        ) from error
