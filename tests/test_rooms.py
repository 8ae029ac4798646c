"""Which room may import which: imports point downwards only, and heavy things stay where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "gangline"

# room -> rooms it may import, besides itself and the package's root modules
ALLOWED: dict[str, set[str]] = {
    "cli": {"serve", "node", "plan", "hardware", "bench"},
    "serve": {"node", "head", "plan"},
    "node": {"head", "stage", "plan", "hardware", "checkpoint"},
    "head": {"stage", "engine", "checkpoint"},
    "stage": {"engine", "checkpoint"},
    "engine": {"checkpoint"},
    "checkpoint": set(),
    "plan": set(),
    "hardware": set(),
    "bench": {"stage", "engine", "checkpoint", "hardware"},
}

# What a node process must never load: language, arrays and other people's engines.
HEAVY = {"numpy", "tokenizers", "jinja2", "torch", "mlx"}


def gangline_imports(path: Path) -> set[str]:
    """Rooms that a module imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("gangline.")]
    return {part[1] for part in parts} & set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_downwards(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        above = gangline_imports(path) - ALLOWED[room] - {room}
        assert not above, f"{path.relative_to(PACKAGE)} imports {sorted(above)}"


def test_every_room_has_a_rule() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(ALLOWED)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("gangline", HEAVY | {"zenoh", "msgspec", "starlette"}),
        ("gangline.cli.main", HEAVY | {"zenoh", "starlette", "uvicorn"}),
        ("gangline.node.node", HEAVY | {"starlette"}),
        ("gangline.serve.app", HEAVY),
        ("gangline.stage.__main__", {"tokenizers", "jinja2", "torch", "mlx", "zenoh"}),
        ("gangline.head.__main__", {"torch", "mlx", "zenoh", "starlette"}),
    ],
)
def test_nothing_heavy_comes_along(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not forbidden & set(loaded)
