"""The page's files, and nothing else, can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gangline.errors import NotFound
from gangline.serve.static import MEDIA_TYPES, WEB, read_page_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    (web / "parts").mkdir(parents=True)
    (web / "index.html").write_text("<p>é", encoding="utf-8")
    (web / "parts/a.js").write_text("1")
    (web / ".hidden.js").write_text("1")
    (web / "notes.txt").write_text("1")
    (tmp_path / "secret.js").write_text("1")
    return web


def test_types_and_tags(root: Path) -> None:
    page = read_page_file("index.html", root)
    assert page.media_type == "text/html; charset=utf-8"
    assert page.content == "<p>é".encode()
    assert read_page_file("parts/a.js", root).media_type == "text/javascript; charset=utf-8"
    tag = page.etag
    (root / "index.html").write_text("other")
    assert read_page_file("index.html", root).etag != tag


@pytest.mark.parametrize(
    "name",
    ["../secret.js", "parts/../../secret.js", "..\\secret.js", "/etc/hostname.js", "//secret.js",
     ".hidden.js", "parts", "parts/", "", "notes.txt", "none.js", "parts/a.js/", "a\x00.js",
     "parts//a.js", "./index.html", "C:\\x.js", "index.html:x.js", "a" * 5000 + ".js"],
)  # fmt: skip
def test_nothing_else_is_found(root: Path, name: str) -> None:
    with pytest.raises(NotFound):
        read_page_file(name, root)


def test_every_file_of_the_real_page_has_a_type() -> None:
    files = [path for path in WEB.rglob("*") if path.is_file()]
    assert (WEB / "index.html") in files
    assert {path.suffix for path in files} <= set(MEDIA_TYPES)
