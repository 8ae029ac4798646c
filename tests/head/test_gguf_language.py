"""Tokens of a GGUF file are those of the model's tokenizer.json, in every script.

The tokenizers are trained here on the test text itself, with the rules for words that the models'
own tokenizer.json files have; SentencePiece's own answers are recorded
(tools/record_sentencepiece.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter, TokenType
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from gangline.checkpoint.gguf import read_gguf
from gangline.errors import CheckpointError
from gangline.head.gguf_language import GgufLanguage, read_gguf_language
from gangline.head.requests import ChatMessage, Sampling, Submit
from gangline.head.text import Language
from gangline.head.words import PRE
from tests.texts import SCRIPTS, TEXT

FIXTURE = Path(__file__).parents[1] / "fixtures" / "sentencepiece.json"

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*parts, BYTES])


# Rules for words as tokenizer.json has them: gpt2, SmolLM2, Qwen2.5, Llama 3, gpt-oss, DeepSeek V3.
RULES: dict[str, Any] = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "command-r": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "qwen2": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "llama-bpe": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt-4o": split(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "deepseek-v3": split(
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
COMPOSED = ("qwen2", "command-r")
WHOLE_WORDS = ("llama-bpe",)


def train(pre: str) -> Tokenizer:
    """A tokenizer of some hundred tokens over the test text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre in WHOLE_WORDS))
    tokenizer.pre_tokenizer = RULES[pre]
    tokenizer.decoder = decoders.ByteLevel()
    if pre in COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<|begin|>", "<|stop|>")]
    )
    tokenizer.add_tokens([AddedToken("Sled dogs", special=False, normalized=False)])
    return tokenizer


def write(file: Path, kind: str, tokens: Sequence[str], kinds: Sequence[int], **more: Any) -> Path:
    writer = GGUFWriter(file, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(kinds))
    for name, value in more.items():
        if value is not None:
            getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def written(file: Path, tokenizer: Tokenizer, pre: str, **more: Any) -> Path:
    """A GGUF file with a tokenizer's parts, as a converter writes them."""
    whole = json.loads(tokenizer.to_str())
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    special = {token["content"]: token["special"] for token in whole["added_tokens"]}
    by_special = {
        True: TokenType.CONTROL,
        False: TokenType.USER_DEFINED,
        None: TokenType.NORMAL,
    }
    merges = [" ".join(pair) for pair in whole["model"]["merges"]]
    kinds = [by_special[special.get(token)] for token in tokens]
    more = {"tokenizer_pre": pre, "token_merges": merges, **more}
    return write(file, "gpt2", tokens, kinds, **more)


def language(file: Path) -> GgufLanguage:
    return read_gguf_language(read_gguf(file))


@pytest.mark.parametrize("pre", RULES)
def test_tokens_agree_with_tokenizer_json_in_every_script(tmp_path: Path, pre: str) -> None:
    own = train(pre)
    other = language(written(tmp_path / "t.gguf", own, pre)).tokenizer
    for script, text in [*SCRIPTS.items(), ("all", TEXT)]:
        ids = own.encode(text, add_special_tokens=False).ids
        assert other.encode(text, add_special_tokens=False).ids == ids, script
        assert other.decode(ids) == own.decode(ids), script


@pytest.mark.parametrize("pre", PRE)
def test_every_rule_loses_nothing(tmp_path: Path, pre: str) -> None:
    """All patterns compile, and no character falls between the words."""
    tokenizer = language(written(tmp_path / "t.gguf", train("gpt-2"), pre)).tokenizer
    text = SCRIPTS["Latin"] + SCRIPTS["Chinese"] + SCRIPTS["code"] + SCRIPTS["emoji"]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_prompt_begins_as_the_file_says(tmp_path: Path) -> None:
    own = train("llama-bpe")
    begin = own.token_to_id("<|begin|>")
    text = own.encode("Hi", add_special_tokens=False).ids
    for pre, flags, expected in (
        ("llama-bpe", {}, [begin, *text]),
        ("llama-bpe", {"add_bos_token": False}, text),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, [begin, *text, begin + 1]),
    ):
        file = written(
            tmp_path / "t.gguf", own, pre, bos_token_id=begin, eos_token_id=begin + 1, **flags
        )
        assert language(file).tokenizer.encode("Hi").ids == expected


def test_template_and_special_tokens_come_along(tmp_path: Path) -> None:
    own = train("qwen2")
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    file = written(
        tmp_path / "t.gguf",
        own,
        "qwen2",
        chat_template=template,
        bos_token_id=own.token_to_id("<|begin|>"),
        eos_token_id=own.token_to_id("<|stop|>"),
    )
    found = Language(file, 1000, frozenset({3}))
    assert found.end_tokens == {3, own.token_to_id("<|stop|>")}
    assert found.render([ChatMessage("user", "Hi")]) == "<|begin|>Hi<|stop|>"
    ids = found.prompt_ids(Submit(id=1, sampling=Sampling(), messages=(ChatMessage("user", "Hi"),)))
    assert ids == own.encode("<|begin|>Hi<|stop|>", add_special_tokens=False).ids


def sentencepiece(file: Path, prefix: bool = True, **more: Any) -> tuple[Any, Tokenizer]:
    """(texts with their ids, the tokenizer of a GGUF file of the recorded model)."""
    recorded = json.loads(FIXTURE.read_text(encoding="utf-8"))
    model = recorded["with_prefix" if prefix else "without_prefix"]
    more = {"token_scores": model["scores"], "bos_token_id": 1, "add_space_prefix": prefix, **more}
    write(file, "llama", model["pieces"], model["kinds"], **more)
    return zip(recorded["texts"], model["ids"], strict=True), language(file).tokenizer


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokens_are_those_of_sentencepiece(tmp_path: Path, prefix: bool) -> None:
    recorded, tokenizer = sentencepiece(tmp_path / "t.gguf", prefix)
    for text, ids in recorded:
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
        assert tokenizer.decode(ids) == text


def test_sentencepiece_begins_with_its_begin_token(tmp_path: Path) -> None:
    _, tokenizer = sentencepiece(tmp_path / "t.gguf")
    assert tokenizer.encode("").ids == [1]
    _, tokenizer = sentencepiece(tmp_path / "t.gguf", add_bos_token=False)
    assert tokenizer.encode("").ids == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tokenizer_pre": "klingon"}, r"`tokenizer\.ggml\.pre` is 'klingon', expected one of"),
        ({"token_merges": ["onlyone"]}, r"merges` is 'onlyone', expected two tokens"),
        ({"token_merges": None}, r"merges` is 'None', expected the merges of a byte-level"),
        ({"token_merges": ["zz qq"]}, r"cannot be built"),
        ({"eos_token_id": 99_999}, r"eos_token_id` is '99999', expected below"),
        ({"token_types": [1]}, r"token_type` is '1 elements'"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    file = tmp_path / "t.gguf"
    kinds = changes.pop("token_types", [1, 1, 1])
    more = {"tokenizer_pre": "gpt-2", "token_merges": ["a b"], **changes}
    write(file, "gpt2", ["a", "b", "ab"], kinds, **more)
    with pytest.raises(CheckpointError, match=expected) as caught:
        language(file)
    assert str(file) in caught.value.message


def test_an_unknown_kind_of_tokenizer_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.gguf", "bert", ["a"], [1])
    with pytest.raises(CheckpointError, match=r"model` is 'bert', expected gpt2 or llama"):
        language(tmp_path / "t.gguf")
