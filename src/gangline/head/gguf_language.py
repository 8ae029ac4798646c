"""The tokenizer and the chat template of a GGUF file, as Hugging Face's libraries mean them.

A file may carry the model's tokenizer.json itself. Otherwise there are two kinds: byte-level BPE
("gpt2"), cut into words by the rule that the file names (`words.py`), and SentencePiece's BPE by
scores ("llama"). What else a file leaves out because llama.cpp knows it
(https://github.com/ggml-org/llama.cpp, `src/llama-vocab.cpp`) stands here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)

from gangline.checkpoint.gguf import Array, Gguf
from gangline.errors import CheckpointError
from gangline.head.words import PRE, cut_into_words

MAX_TOKENS = 2**21
SPACE = "▁"  # SentencePiece's

# Kinds of tokens: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

# Control tokens that end a turn, by their text: a file names one of them only.
END_TEXTS = frozenset(
    {
        "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>",
        "<end_of_turn>", "<|end|>", "<|return|>", "<|call|>", "<|END_OF_TURN_TOKEN|>",
        "<｜end▁of▁sentence｜>", "<|user|>", "<|observation|>", "[EOT]",
    }
)  # fmt: skip
# Where a model has the second, the first only ends one part of its turn.
NOT_AN_END_BESIDE = {"<|end|>": "<|return|>", "<|user|>": "<|im_end|>"}


class GgufLanguage(msgspec.Struct, frozen=True):
    """`config` is as in tokenizer_config.json: special tokens and chat template."""

    tokenizer: Tokenizer
    config: dict[str, object]
    end_tokens: frozenset[int]


class _Vocabulary(msgspec.Struct, frozen=True):
    tokens: list[str]
    kinds: list[int]

    def of_kind(self, *kinds: int) -> list[str]:
        wanted = zip(self.tokens, self.kinds, strict=True)
        return [token for token, kind in wanted if kind in kinds]


def read_gguf_language(gguf: Gguf) -> GgufLanguage:
    """Build the tokenizer of a file; `CheckpointError` where it has none that is known."""
    vocabulary = _read_vocabulary(gguf)
    config, ends = _config(gguf, vocabulary), _end_tokens(vocabulary)
    whole = gguf.get("tokenizer.huggingface.json", str)
    if whole is not None:
        return GgufLanguage(_from_json(gguf, whole), config, ends)
    kind = gguf.get("tokenizer.ggml.model", str)
    if kind == "gpt2":
        tokenizer, begins = _byte_level(gguf, vocabulary)
    elif kind == "llama":
        tokenizer, begins = _sentencepiece(gguf, vocabulary), True
    else:
        raise gguf.bad("tokenizer.ggml.model", kind, "gpt2 or llama")
    controls = vocabulary.of_kind(CONTROL, UNKNOWN)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in controls]
    )
    own = vocabulary.of_kind(USER_DEFINED)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in own])
    _add_ends(gguf, vocabulary, tokenizer, begins)
    return GgufLanguage(tokenizer, config, ends)


def _from_json(gguf: Gguf, text: str) -> Tokenizer:
    """A file may carry the model's own tokenizer.json."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(
            f"{gguf.file}: `tokenizer.huggingface.json` cannot be read: {error}",
            hint="The file is damaged: download or convert it again.",
        ) from error


def _read_vocabulary(gguf: Gguf) -> _Vocabulary:
    tokens = _array(gguf, "tokens")
    if tokens is None:
        raise CheckpointError(
            f"{gguf.file} holds no tokenizer (`tokenizer.ggml.tokens`)",
            hint="Use a file that was converted with its vocabulary.",
        )
    kinds = _array(gguf, "token_type") or [NORMAL] * len(tokens)
    if len(kinds) != len(tokens) or not all(type(token) is str for token in tokens):
        raise gguf.bad("tokenizer.ggml.token_type", f"{len(kinds)} elements", f"{len(tokens)}")
    return _Vocabulary(tokens, kinds)


def _array(gguf: Gguf, name: str) -> list[Any] | None:
    key = f"tokenizer.ggml.{name}"
    array = gguf.get(key, Array)
    if array is None:
        return None
    if array.count > MAX_TOKENS:
        raise gguf.bad(key, f"{array.count} elements", f"up to {MAX_TOKENS}")
    values: list[Any] = array.values()
    return values


def _byte_level(gguf: Gguf, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    name = gguf.get("tokenizer.ggml.pre", str, "default")
    words = PRE.get(name)
    if words is None:
        raise gguf.bad("tokenizer.ggml.pre", name, f"one of {', '.join(PRE)}")
    listed = _array(gguf, "merges")
    if listed is None:
        raise gguf.bad("tokenizer.ggml.merges", None, "the merges of a byte-level tokenizer")
    merges = [_pair(gguf, merge) for merge in listed]
    ids = _first_of_each(vocabulary.tokens)
    tokenizer = _bpe(gguf, vocab=ids, merges=merges, ignore_merges=words.whole_words)
    cut_into_words(tokenizer, words)
    return tokenizer, words.begins


def _bpe(gguf: Gguf, **parts: Any) -> Tokenizer:
    try:
        return Tokenizer(models.BPE(**parts))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(
            f"{gguf.file}: its tokenizer cannot be built: {error}",
            hint="The file is damaged: download or convert it again.",
        ) from error


def _pair(gguf: Gguf, merge: object) -> tuple[str, str]:
    """Two tokens with a space between; a token may begin with one itself."""
    left, _, right = merge[1:].partition(" ") if isinstance(merge, str) and merge else ("", "", "")
    if not right:
        raise gguf.bad("tokenizer.ggml.merges", merge, "two tokens with a space between")
    assert isinstance(merge, str)
    return merge[0] + left, right


def _sentencepiece(gguf: Gguf, vocabulary: _Vocabulary) -> Tokenizer:
    scores = _array(gguf, "scores")
    if scores is None or len(scores) != len(vocabulary.tokens):
        raise gguf.bad("tokenizer.ggml.scores", scores and len(scores), "one for each token")
    ids = _first_of_each(vocabulary.tokens)
    unknown = next(iter(vocabulary.of_kind(UNKNOWN)), None)
    tokenizer = _bpe(
        gguf,
        vocab=ids,
        merges=_merges_by_score(vocabulary, scores, ids),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=len(set(vocabulary.of_kind(BYTE))) == 256,
    )
    spaces: list[Any] = [normalizers.Replace(" ", SPACE)]
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if gguf.get("tokenizer.ggml.add_space_prefix", bool, True):
        spaces.insert(0, normalizers.Prepend(SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def _merges_by_score(
    vocabulary: _Vocabulary, scores: list[float], ids: dict[str, int]
) -> list[tuple[str, str]]:
    """SentencePiece joins the two neighbours that make the token of the highest score."""
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    for token, kind, score in zip(vocabulary.tokens, vocabulary.kinds, scores, strict=True):
        if kind != NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                found.append((-score, ids[left], ids[right], (left, right)))
    found.sort(key=lambda merge: merge[:3])
    return [merge[3] for merge in found]


def _first_of_each(tokens: list[str]) -> dict[str, int]:
    """Ids by text; of equal texts the first counts."""
    return {token: id for id, token in reversed(list(enumerate(tokens)))}


def _add_ends(gguf: Gguf, vocabulary: _Vocabulary, tokenizer: Tokenizer, begins: bool) -> None:
    """Have a plain prompt begin (and end) with the tokens that the file wants there."""
    used = {}
    for name, by_default in (("bos", begins), ("eos", False)):
        token = _special(gguf, vocabulary, name)
        if token is not None and gguf.get(f"tokenizer.ggml.add_{name}_token", bool, by_default):
            used[name] = token
    texts = {name: [text] for name, (_, text) in used.items()}
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*texts.get("bos", []), "$A", *texts.get("eos", [])],
            special_tokens=[(text, id) for id, text in used.values()],
        )


def _special(gguf: Gguf, vocabulary: _Vocabulary, name: str) -> tuple[int, str] | None:
    """Id and text of the begin or the end token."""
    key = f"tokenizer.ggml.{name}_token_id"
    id = gguf.get(key, int)
    if id is None:
        return None
    if not 0 <= id < len(vocabulary.tokens):
        raise gguf.bad(key, id, f"below {len(vocabulary.tokens)}")
    return id, vocabulary.tokens[id]


def _config(gguf: Gguf, vocabulary: _Vocabulary) -> dict[str, object]:
    config: dict[str, object] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = _special(gguf, vocabulary, key)
        if token is not None:
            config[f"{name}_token"] = token[1]
    template = gguf.get("tokenizer.chat_template", str)
    return config | ({"chat_template": template} if template else {})


def _end_tokens(vocabulary: _Vocabulary) -> frozenset[int]:
    ids = {
        token: id
        for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind == CONTROL and token in END_TEXTS
    }
    return frozenset(id for token, id in ids.items() if NOT_AN_END_BESIDE.get(token) not in ids)
