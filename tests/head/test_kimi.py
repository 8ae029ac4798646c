"""Kimi's tokenizer out of `tiktoken.model` gives the tokens that the tiktoken package gives.

Its answers are recorded (tools/conformance_tiktoken.py, which also compares live): for ranks as
they are learned, and for the same in disorder, where words are tokens that no merging reaches.
"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from gangline.errors import CheckpointError
from gangline.head.kimi import read_kimi_tokenizer
from gangline.head.requests import ChatMessage, Sampling, Submit
from gangline.head.text import Language
from tests.make_ranks import BYTES, FIXTURE, SPECIALS, make_ranks
from tests.make_tokenizer import make_tokenizer

RECORD = json.loads(FIXTURE.read_text(encoding="utf-8"))
N_BYTES = len(BYTES)
VOCABULARY = N_BYTES + 256


@pytest.mark.parametrize("case", ["trained", "disordered"])
def test_tokens_are_tiktokens(tmp_path: Path, case: str) -> None:
    tokens = [b64decode(token) for token in RECORD["cases"][case]["tokens"]]
    tokenizer = read_kimi_tokenizer(tmp_path, make_ranks(tmp_path, tokens))
    assert tokenizer.get_vocab_size() == len(tokens) + 256
    for text, ids in zip(RECORD["texts"], RECORD["cases"][case]["ids"], strict=True):
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    # Bytes that are no text, as a model may write them.
    ids = [tokens.index(b"\xe4"), tokens.index(b"A"), tokens.index(b"\xff")]
    assert tokenizer.decode(ids) == "\N{REPLACEMENT CHARACTER}A\N{REPLACEMENT CHARACTER}"


def test_a_folder_with_tiktoken_model_alone_is_a_language(tmp_path: Path) -> None:
    make_ranks(tmp_path, BYTES)
    language = Language(tmp_path, VOCABULARY, frozenset({N_BYTES + 2}))
    ids = {text: N_BYTES + place for place, (text, _) in SPECIALS.items()}
    assert language.end_tokens == {ids["<|im_end|>"], ids["[EOS]"]}
    chat = Submit(0, Sampling(), messages=(ChatMessage("user", "hé"),))
    assert language.prompt_ids(chat) == [
        *(ids["<|im_user|>"], *b"user", ids["<|im_middle|>"], *"hé".encode(), ids["<|im_end|>"]),
        *(ids["<|im_assistant|>"], *b"assistant", ids["<|im_middle|>"]),
    ]
    shown = [104, ids["<|im_end|>"], ids["<|tool_calls_section_begin|>"], N_BYTES + 5, 105]
    assert language.decode(shown) == "h<|tool_calls_section_begin|>i"
    assert language.prompt_ids(Submit(0, Sampling(), prompt="<|reserved_token_261|>")) == [261]


def test_tokenizer_json_comes_first(tmp_path: Path) -> None:
    make_ranks(tmp_path, BYTES)
    make_tokenizer(tmp_path)
    assert len(Language(tmp_path, VOCABULARY, frozenset()).end_tokens) == 1
    (tmp_path / "tiktoken.model").write_text("damaged")
    Language(tmp_path, VOCABULARY, frozenset())


def test_a_special_token_may_have_the_text_of_another(tmp_path: Path) -> None:
    """Both keep their ids; text means the special one."""
    tokens = [*BYTES, b"[E", b"OS", b"[EOS", b"[EOS]"]
    tokenizer = read_kimi_tokenizer(tmp_path, make_ranks(tmp_path, tokens))
    ordinary, special = tokens.index(b"[EOS]"), len(tokens) + 1
    assert tokenizer.encode("[EOS]x[EOS").ids == [special, 120, tokens.index(b"[EOS")]
    assert tokenizer.decode([ordinary, special], skip_special_tokens=False) == "[EOS][EOS]"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tokenizer_class": "QWenTokenizer"}, "names the tokenizer QWenTokenizer of"),
        ({"tokenizer_class": None}, "names the tokenizer None of"),
        ({"auto_map": {"AutoTokenizer": "tokenization_x.TikTokenTokenizer"}}, "tokenization_x"),
        ({"added_tokens_decoder": None}, "no `added_tokens_decoder`"),
        ({"added_tokens_decoder": {"255": {"content": "x"}}}, "special token of id 255; those"),
        ({"added_tokens_decoder": {"512": {"content": "x"}}}, "are 256 to 511"),
        ({"added_tokens_decoder": {"-256": {"content": "x"}}}, "id -256"),
        ({"added_tokens_decoder": {"256": {"content": ""}}}, "no `content` for 256"),
        ({"added_tokens_decoder": {"256": "x"}}, "no `content` for 256"),
        (
            {"added_tokens_decoder": {"256": {"content": "x"}, "257": {"content": "x"}}},
            "special token of two ids",
        ),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    config = {**make_ranks(tmp_path, BYTES), **change}
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json") as raised:
        read_kimi_tokenizer(tmp_path, config)
    assert expected in raised.value.message


@pytest.mark.parametrize(
    "code",
    [
        None,
        "tokenization_kimi.TikTokenTokenizer",
        ["tokenization_moonshot.TikTokenTokenizer", None],
        ["moonshotai/Kimi-K2-Instruct--tokenization_kimi.TikTokenTokenizer", None],
    ],
)
def test_kimis_relatives_are_known(tmp_path: Path, code: object) -> None:
    config = make_ranks(tmp_path, BYTES) | {"auto_map": {"AutoTokenizer": code}}
    assert read_kimi_tokenizer(tmp_path, config).encode("hi").ids == [104, 105]


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    make_ranks(tmp_path, BYTES)
    with pytest.raises(CheckpointError, match=r"tiktoken\.model has 512 tokens, .* are for 500"):
        Language(tmp_path, 500, frozenset())


def test_tokenizers_that_need_code_are_named(tmp_path: Path) -> None:
    (tmp_path / "qwen.tiktoken").touch()
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken alone") as raised:
        Language(tmp_path, VOCABULARY, frozenset())
    assert "has a tokenizer.json" in raised.value.hint
