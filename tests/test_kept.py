"""What is kept between runs: read as it was written, and never an error where it cannot be."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gangline.kept import read_kept, write_kept


class Kept(msgspec.Struct):
    answer: int


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.json"
    write_kept(path, Kept(42))
    assert read_kept(path, Kept) == Kept(42)
    assert list(path.parent.iterdir()) == [path], "no partial file stays"


def test_a_damaged_file_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text('{"answer": "for')
    assert read_kept(path, Kept) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    write_kept(file / "kept.json", Kept(42))
    assert read_kept(file / "kept.json", Kept) is None
