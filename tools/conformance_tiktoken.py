"""Compares the tokenizer of `tiktoken.model` folders with the tiktoken package, or records its ids.

    python -m tools.conformance_tiktoken record    # tests/fixtures/tiktoken.json
    python -m tools.conformance_tiktoken check     # live: every character, thousands of texts

Needs tiktoken. The vocabularies are trained here, on the texts of the tests: one as it comes, and
one with its ranks in disorder, where some tokens are out of merging's reach.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import tiktoken
from tests.make_ranks import FIXTURE, SPECIALS, SPECIALS_TEXT, make_ranks
from tests.make_tokenizer import byte_characters
from tests.texts import SCRIPTS, TEXT
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gangline.head.kimi import read_kimi_tokenizer

# As in Kimi's own tokenization_kimi.py.
PATTERN = "|".join(
    [
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
TRAINED, TEXTS = 1500, 4000
MIXED = "aAbBéÉ's'LL \t\n\r.,!123中文字ñ🛷\u0301\u3000\u00a0"


def train(n_tokens: int) -> list[bytes]:
    """Tokens by rank, learned from the tests' texts word by word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=n_tokens, initial_alphabet=alphabet, min_frequency=1, show_progress=False
        ),
    )
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    vocabulary = tokenizer.get_vocab()
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    return [bytes(byte_of[character] for character in text) for text in texts]


def disordered(tokens: list[bytes]) -> list[bytes]:
    return random.Random(0).sample(tokens, len(tokens))


def encoding(tokens: list[bytes]) -> tiktoken.Encoding:
    ids = {f"<|reserved_token_{len(tokens) + at}|>": len(tokens) + at for at in range(256)}
    for at, (text, _) in SPECIALS.items():
        del ids[f"<|reserved_token_{len(tokens) + at}|>"]
        ids[text] = len(tokens) + at
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding("own", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=ids)


def record() -> None:
    texts = [*SCRIPTS.values(), SPECIALS_TEXT]
    cases = {}
    natural = train(700)
    for name, tokens in (("trained", natural), ("disordered", disordered(natural))):
        theirs = encoding(tokens)
        ids = [theirs.encode(text, allowed_special="all") for text in texts]
        cases[name] = {"tokens": [b64encode(token).decode() for token in tokens], "ids": ids}
    whole = {"tiktoken": tiktoken.__version__, "texts": texts, "cases": cases}
    FIXTURE.write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{FIXTURE}: tiktoken {tiktoken.__version__}")


def texts_to_compare(theirs: tiktoken.Encoding, n_tokens: int) -> Iterator[str]:
    """Every character among others; random characters, bytes and tokens."""
    yield from SCRIPTS.values()
    characters = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))]
    for at in range(0, len(characters), 64):
        yield "".join(f"a{one}{one}1 b{one}中 {one}" for one in characters[at : at + 64])
    draw = random.Random(0)
    for _ in range(TEXTS):
        length = draw.randint(1, 100)
        yield "".join(draw.choices(MIXED, k=length))
        yield draw.randbytes(length).decode("utf-8", "replace")
        yield theirs.decode([draw.randrange(n_tokens + 256) for _ in range(length)])


def check() -> bool:
    """Whether ids agree, and text comes back from them."""
    sound = True
    natural = train(TRAINED)
    for name, tokens in (("trained", natural), ("disordered", disordered(natural))):
        theirs = encoding(tokens)
        with tempfile.TemporaryDirectory() as folder:
            config = make_ranks(Path(folder), tokens)
            ours = read_kimi_tokenizer(Path(folder), config)
        n_texts = n_different = 0
        for text in texts_to_compare(theirs, len(tokens)):
            n_texts += 1
            expected = theirs.encode(text, allowed_special="all")
            found = ours.encode(text).ids
            back = ours.decode(found, skip_special_tokens=False)
            n_different += found != expected or back != theirs.decode(expected)
        print(f"{name:12} {n_texts} texts, {n_different} with other tokens")
        sound &= not n_different
    return sound


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("record", "check"))
    if parser.parse_args().what == "record":
        record()
    elif not check():
        raise SystemExit(1)
