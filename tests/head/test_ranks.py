"""Merges follow from ranks as tiktoken defines them; of damaged files, errors say where."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.errors import CheckpointError
from gangline.head import ranks
from gangline.head.ranks import merge_points, read_ranks
from tests.make_ranks import BYTES, ranks_file


def merged(text: bytes, rank_of: Callable[[bytes, bytes], int | None]) -> list[bytes]:
    """Join the neighbours of the lowest rank, of equals the leftmost, until none has one."""
    parts = [text[at : at + 1] for at in range(len(text))]
    while True:
        ranks_found = [(rank_of(*pair), at) for at, pair in enumerate(pairwise(parts))]
        joinable = [(rank, at) for rank, at in ranks_found if rank is not None]
        if not joinable:
            return parts
        at = min(joinable)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


words = st.lists(st.sampled_from(b"ab"), min_size=2, max_size=7).map(bytes)


@settings(max_examples=300, deadline=None)
@given(
    longer=st.lists(words, unique=True, max_size=12),
    text=st.lists(st.sampled_from(b"ab"), max_size=24).map(bytes),
)
def test_pairs_merge_as_ranks_do(longer: list[bytes], text: bytes) -> None:
    """Ranks in any order; many splits of a token, overlaps, tokens out of reach."""
    tokens = [*BYTES, *longer]
    ids = {token: rank for rank, token in enumerate(tokens)}
    points = merge_points(tokens)
    pairs = {(tokens[rank][:point], tokens[rank][point:]): rank for rank, point in points}
    by_ranks = merged(text, lambda left, right: ids.get(left + right))
    assert merged(text, lambda left, right: pairs.get((left, right))) == by_ranks


def test_one_pair_per_token_that_merging_reaches() -> None:
    tokens = [*BYTES, b"ab", b"abc", b"bcd", b"abcd", b"xyz"]
    # "bcd" would need "bc" or "cd"; "abcd" is "abc" and "d", for "ab" is joined first.
    assert merge_points(tokens) == [(256, 1), (257, 2), (259, 3)]


def test_a_file_in_any_order_with_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "tiktoken.model"
    tokens = [*reversed(BYTES), b"the", b" \xff"]
    lines = ranks_file(tokens).splitlines()
    file.write_bytes(b"\r\n\n".join(reversed(lines)))
    assert read_ranks(file) == tokens


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"dGhl", "line 257 is `dGhl`; expected a token in base64, a space and a rank"),
        (b"dGhl 2x", "line 257"),
        (b"dGhl -1", "line 257"),
        (b"dGhl 256 1", "line 257"),
        (b"dGh 256", "line 257"),
        (b"d*hl 256", "line 257"),
        (b" 256", "line 257"),
        (b"dGhl 99999999999999999999", "a rank below 524288"),
        (b"dGhl 524288", "a rank below 524288"),
        (b"\xff\xfe 256", "line 257"),
        (b"dGhl 255", "line 257: token or rank 255 was there before"),
        (b"AA== 256", "line 257: token or rank 256 was there before"),
        (b"dGhl 257", "has 257 tokens, but none of rank 256"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    file = tmp_path / "tiktoken.model"
    file.write_bytes(ranks_file(BYTES) + line + b"\n")
    with pytest.raises(CheckpointError, match=r"tiktoken\.model.*") as raised:
        read_ranks(file)
    assert expected in raised.value.message and "download it again" in raised.value.hint


def test_files_that_lack_or_exceed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiktoken.model"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_ranks(file)
    for content, expected in (
        (b"", "0 tokens, but none for byte 0"),
        (ranks_file(BYTES[:-1]), "255 tokens, but none for byte 255"),
        (ranks_file([*BYTES, b"x" * 20_000]), "tokens of up to 20000 bytes"),
    ):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=expected):
            read_ranks(file)
    monkeypatch.setattr(ranks, "MAX_FILE_BYTES", 1000)
    with pytest.raises(CheckpointError, match="larger than 1000 bytes"):
        read_ranks(file)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 3000), junk=st.binary(max_size=40))
def test_damage_is_our_error_or_sound(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.model"
    content = ranks_file([*BYTES, b"th", b"the"])
    file.write_bytes(content[:at] + junk + content[at + len(junk) :])
    try:
        tokens = read_ranks(file)
    except CheckpointError as error:
        assert "damaged.model" in error.message
    else:
        assert len(set(tokens)) == len(tokens) and set(BYTES) <= set(tokens)
        merge_points(tokens)
