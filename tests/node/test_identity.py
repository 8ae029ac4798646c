"""A node keeps its id, and nobody else uses it meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gangline.errors import Conflict, GanglineError
from gangline.node.identity import Identity


def test_the_id_is_made_once(tmp_path: Path) -> None:
    first = Identity.open(tmp_path / "new" / "home")
    first.release()
    second = Identity.open(tmp_path / "new" / "home")
    second.release()
    assert first.id == second.id
    assert len(first.id) == len("n-") + 8
    assert [path.name for path in (tmp_path / "new" / "home").iterdir()] == ["node.json"]


def test_a_later_process_reports_newer_facts_without_a_clock(tmp_path: Path) -> None:
    """A board that forgot the time would else be taken for its own past by the others."""
    (tmp_path / "node.json").write_text('{"id": "n-01234567"}\n')  # as earlier versions wrote it
    last = time.time_ns() // 1_000_000  # where their sequences began
    for _ in range(3):
        identity = Identity.open(tmp_path)
        identity.release()
        assert identity.id == "n-01234567"
        assert identity.first_sequence > last
        last = identity.first_sequence + 1_000_000_000  # reports


def test_two_homes_have_two_ids(tmp_path: Path) -> None:
    one, other = Identity.open(tmp_path / "a"), Identity.open(tmp_path / "b")
    assert one.id != other.id
    one.release()
    other.release()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = Identity.open(tmp_path)
    with pytest.raises(Conflict) as caught:
        Identity.open(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "GANGLINE_HOME" in caught.value.hint
    first.release()
    Identity.open(tmp_path).release()


@pytest.mark.parametrize("content", ["{", '{"id": 7}', '{"id": "../../etc"}', "[]", "\0"])
def test_a_damaged_file_says_so_and_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(content)
    with pytest.raises(GanglineError) as caught:
        Identity.open(tmp_path)
    assert str(path) in caught.value.message
    assert "delete the file" in caught.value.hint
    assert path.read_text() == content


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(GanglineError) as caught:
        Identity.open(tmp_path / "file" / "home")
    assert "cannot be opened" in caught.value.message
