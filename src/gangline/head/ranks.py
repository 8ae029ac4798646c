"""Ranked byte pairs (tiktoken's format): a file of tokens by rank, and the merges these imply.

One token a line, `BASE64 RANK`; the rank is the token's id and says when it is merged: tiktoken
joins, again and again, the two neighbours whose bytes together are the token of the lowest rank,
of equals the leftmost (https://github.com/openai/tiktoken, `src/lib.rs`). Knows no model.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

from gangline.errors import CheckpointError

# Kimi's file has 163,584 tokens in 2.8 MB. The limits bound the time and memory that a damaged or
# hostile one takes: merging takes time with the square of a token's length.
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_TOKENS = 2**19
MAX_SQUARES = 2**28  # of all tokens' lengths together


def read_ranks(file: Path) -> list[bytes]:
    """Tokens by rank; `CheckpointError` names the line, or the rank or byte that is missing."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _damaged(f"{file} is larger than {MAX_FILE_BYTES} bytes")
    ranks: dict[bytes, int] = {}
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line:
            continue
        token, rank = _entry(line, f"{file}, line {number}")
        if token in ranks or rank in tokens:
            raise _damaged(f"{file}, line {number}: token or rank {rank} was there before")
        ranks[token], tokens[rank] = rank, token
    _check_complete(file, ranks, tokens)
    return [tokens[rank] for rank in range(len(tokens))]


def merge_points(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """(rank, where its last merge joins two tokens), by rank, of every token that merging reaches.

    Merging takes place inside of a token as if nothing were around it, until a neighbour is joined
    to a part of it. So there is one pair of which a token is ever made: the last that is joined
    when its bytes stand alone. Where that ends in several parts, the token is no neighbours' sum
    anywhere; only a word that is this token gives it.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    points = ((rank, _last_merge(token, ranks)) for rank, token in enumerate(tokens))
    return [(rank, point) for rank, point in points if point]


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> int:
    """Where the two parts meet that merging joins last; 0 where it does not get to the token."""
    length = len(token)
    if length <= 2:
        return length - 1
    never = len(ranks)
    bounds = list(range(length + 1))
    # The rank of part i and the next together.
    joined = [ranks.get(token[at : at + 2], never) for at in range(length - 1)]
    while len(joined) > 1:
        lowest = min(joined)
        if lowest == never:
            return 0
        part = joined.index(lowest)
        del joined[part], bounds[part + 1]
        if part < len(joined):
            joined[part] = ranks.get(token[bounds[part] : bounds[part + 2]], never)
        if part:
            joined[part - 1] = ranks.get(token[bounds[part - 1] : bounds[part + 1]], never)
    return bounds[1]


def _entry(line: bytes, place: str) -> tuple[bytes, int]:
    encoded, _, written = line.partition(b" ")
    try:
        token = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        token = b""
    # Decimal digits only: `int` would take a sign, spaces, underlines and any number of digits.
    rank = int(written) if written.isdigit() and len(written) < 10 else MAX_TOKENS
    if not token or rank >= MAX_TOKENS:
        shown = line[:80].decode("ascii", "backslashreplace")
        raise _damaged(
            f"{place} is `{shown}`; expected a token in base64, a space and a rank "
            f"below {MAX_TOKENS}"
        )
    return token, rank


def _check_complete(file: Path, ranks: Mapping[bytes, int], tokens: Mapping[int, bytes]) -> None:
    for rank in range(len(tokens)):
        if rank not in tokens:
            raise _damaged(f"{file} has {len(tokens)} tokens, but none of rank {rank}")
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise _damaged(f"{file} has {len(tokens)} tokens, but none for byte {byte}")
    if sum(len(token) ** 2 for token in ranks) > MAX_SQUARES:
        raise _damaged(f"{file} has tokens of up to {max(map(len, ranks))} bytes: too many so long")


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, hint="The file is damaged: download it again.")
