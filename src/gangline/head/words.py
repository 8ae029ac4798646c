"""How text is cut into words before byte pairs are merged: the rules of known tokenizers.

The patterns are those of the models' tokenizer.json or of their own tokenizer's code; which of them
a GGUF file means by a name is llama.cpp's choice (https://github.com/ggml-org/llama.cpp,
`src/llama-vocab.cpp`). Knows no vocabulary.
"""

from __future__ import annotations

import msgspec
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|" + _TAIL
_MARKED_WORDS = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+%s|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*%s|"
)
_SLASHED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NOT_HAN = r"&&[^\p{Han}]"
_KIMI = (
    r"[\p{Han}]+|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}{_NOT_HAN}]*[{_LOWER}{_NOT_HAN}]+{_CONTRACTION}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}{_NOT_HAN}]+[{_LOWER}{_NOT_HAN}]*{_CONTRACTION}?|"
    r"\p{N}{1,3}|" + _TAIL
)
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"


class Words(msgspec.Struct, frozen=True):
    """How text is cut before merging: by one pattern after the other."""

    patterns: tuple[str, ...]
    whole_words: bool = False  # a word that is a token needs no merges
    begins: bool = False  # a prompt begins with the begin token, unless the file says otherwise
    composed: bool = False  # characters are composed first (NFC)


# Kimi K2, Kimi Linear, Kimi VL and Moonlight: `pat_str` of the tokenization_kimi.py (earlier
# tokenization_moonshot.py) in their folders. tiktoken, which runs it, takes a word that is a token.
KIMI = Words((_KIMI,), whole_words=True)

_LLAMA3 = Words((_WORDS % "{1,3}",), whole_words=True, begins=True)
_DIGITS_APART = Words((r"\p{N}", _GPT2))
_PLAIN = Words((_GPT2,))
_O200K = Words(
    (_CASED % (f"{_CONTRACTION}?", f"{_CONTRACTION}?") + r"\p{N}{1,3}|" + _SLASHED_TAIL,)
)
_BY_DEEPSEEK3 = Words((r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3))

# `tokenizer.ggml.pre` → the rule.
PRE = {
    "default": Words((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "midm-2.0": _LLAMA3,
    "pixtral": _LLAMA3,
    "smaug-bpe": Words(_LLAMA3.patterns),
    "dbrx": Words(_LLAMA3.patterns),
    "glm4": Words(_LLAMA3.patterns),
    "chatglm-bpe": Words(_LLAMA3.patterns),
    "qwen2": Words((_WORDS % "",), composed=True),
    "qwen35": Words((_MARKED_WORDS,)),
    "deepseek-r1-qwen": Words((_WORDS % "",)),
    "kormo": Words((_WORDS % "",)),
    "gpt-2": _PLAIN,
    "phi-2": _PLAIN,
    "mpt": _PLAIN,
    "olmo": _PLAIN,
    "a.x-4.0": _PLAIN,
    "gigachat": _PLAIN,
    "mellum": _PLAIN,
    "trillion": _PLAIN,
    "smollm": _DIGITS_APART,
    "starcoder": _DIGITS_APART,
    "refact": _DIGITS_APART,
    "minerva-7b": _DIGITS_APART,
    "command-r": Words(_DIGITS_APART.patterns, composed=True),
    "gpt-4o": _O200K,
    "llama4": _O200K,
    "tekken": Words((_CASED % ("", "") + r"\p{N}|" + _SLASHED_TAIL,), True, True),
    "deepseek-coder": Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}")),
    "deepseek-v3": _BY_DEEPSEEK3,
    "kimi-k2": KIMI,
}


def cut_into_words(tokenizer: Tokenizer, words: Words) -> None:
    """Have a byte-level tokenizer cut text by a rule, and put bytes together again."""
    if words.composed:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in words.patterns]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
