"""Streaming text: the pieces add up to the whole, and nothing shown is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gangline.head.text import TextStream


def decode(ids: Sequence[int]) -> str:
    """A byte-level tokenizer of the simplest kind: a token is a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


def stream(text: bytes, stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    one = TextStream(decode, stop)
    pieces = []
    for token in text:
        pieces.append(one.push(token))
        if one.stopped:
            return pieces, one
    pieces.append(one.finish())
    return pieces, one


def test_a_character_is_shown_when_it_is_whole() -> None:
    pieces, _ = stream("aé€😀".encode())
    assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_broken_bytes_do_not_hold_the_answer_back() -> None:
    pieces, _ = stream(b"ok" + b"\xf0" * 40 + b"end")
    assert "".join(pieces).startswith("ok") and "".join(pieces).endswith("end")
    assert max(len(piece) for piece in pieces) <= 9


def test_stop_is_cut_and_its_beginning_held_back() -> None:
    pieces, one = stream(b"one STOP two", ["STOP"])
    assert "".join(pieces) == "one "
    assert one.stopped and one.finish() == ""


def test_what_only_looked_like_a_stop_is_shown() -> None:
    pieces, one = stream(b"a STO", ["STOP"])
    assert pieces[:-1] == ["a", " ", "", "", ""] and pieces[-1] == "STO"
    assert not one.stopped


def test_the_earliest_stop_wins() -> None:
    pieces, _ = stream(b"xxabcyy", ["bc", "abc"])
    assert "".join(pieces) == "xx"


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_pieces_are_the_text_up_to_the_first_stop(text: str, stop: list[str]) -> None:
    pieces, one = stream(text.encode("utf-8", "replace"), stop)
    text = text.encode("utf-8", "replace").decode()
    found = [text.find(each) for each in stop if each in text]
    shown = "".join(pieces)
    assert one.stopped == bool(found)
    if not found:
        assert shown == text
    else:
        # A stop string is seen when its last character is there; the shortest prefix decides.
        ends = [text.find(each) + len(each) for each in stop if each in text]
        first = min(ends)
        cuts = [text.find(each) for each in stop if each in text[:first]]
        assert shown == text[: min(cuts)]
