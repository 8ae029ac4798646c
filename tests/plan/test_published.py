"""The rows that the coefficients were fitted to: complete, and each with where it is from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_both_files_have_the_same_columns() -> None:
    assert list(rows("published.csv")[0]) == list(rows("collected.csv")[0])


def test_no_row_is_there_twice() -> None:
    ids = [row["id"] for name in ("published.csv", "collected.csv") for row in rows(name)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("row", rows("collected.csv"), ids=lambda row: row["id"])
def test_a_collected_row_is_complete(row: dict[str, str]) -> None:
    assert row["metric"] in ("decode_tps", "prefill_tps")
    assert 0 < float(row["value"]) < 50_000
    assert 2 < float(row["weight_bits"]) <= 16
    assert "/" in row["source"] or "." in row["source"], "a source can be looked up"
    assert all(row[name] for name in ("machine", "chip", "software", "model", "context_or_pp"))
