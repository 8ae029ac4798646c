"""The tokenizer of Kimi K2 and its relatives, whose folders have `tiktoken.model` for it.

Their own code is not run; what it does is written down here, with one exception: it cuts runs of
more than 25,000 characters without (or of nothing but) white space, since tiktoken could not take
longer ones. Facts: `tokenization_kimi.py` in
https://huggingface.co/moonshotai/Kimi-K2-Instruct (Moonlight and Kimi VL call it
`tokenization_moonshot.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models

from gangline.errors import CheckpointError
from gangline.head.ranks import merge_points, read_ranks
from gangline.head.words import KIMI, cut_into_words

RANKS_NAME = "tiktoken.model"
CONFIG_NAME = "tokenizer_config.json"
RESERVED = 256  # ids behind the ranks that are special tokens, named in the config or not
CLASS = "TikTokenTokenizer"
MODULES = frozenset({"tokenization_kimi", "tokenization_moonshot"})


def read_kimi_tokenizer(folder: Path, config: Mapping[str, object]) -> Tokenizer:
    """Build the tokenizer of a folder from its ranks and its tokenizer_config.json.

    `CheckpointError` where a file is damaged, or where the config does not say that it is Kimi's:
    ranks do not tell how text is cut into words, and a wrong guess gives other tokens.
    """
    _check_rule_known(folder, config)
    tokens = read_ranks(folder / RANKS_NAME)
    specials = _special_tokens(folder, config, len(tokens))
    try:
        return _build(tokens, specials)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{folder}: its tokenizer cannot be built: {error}") from error


def _check_rule_known(folder: Path, config: Mapping[str, object]) -> None:
    """The class of the tokenizer and the module of its code, where the config has it."""
    found = [str(config.get("tokenizer_class", "(none)"))[:200]]
    mapped = config.get("auto_map")
    code = mapped.get("AutoTokenizer") if isinstance(mapped, dict) else None
    # "module.Class", with the repository before it ("owner/name--") in a copy; a list of a slow and
    # a fast one.
    names = [name for name in (code if isinstance(code, list) else [code]) if isinstance(name, str)]
    modules = [name[:200].rpartition("--")[2].partition(".")[0] for name in names]
    if found == [CLASS] and set(modules) <= MODULES:
        return
    raise CheckpointError(
        f"{folder / CONFIG_NAME} names the tokenizer {' of '.join(found + modules)}; how that cuts "
        f"text into words, which {RANKS_NAME} does not say, is known of Kimi's {CLASS} only",
        hint="use a copy of the model that has a tokenizer.json",
    )


def _special_tokens(folder: Path, config: Mapping[str, object], first: int) -> list[AddedToken]:
    """The special tokens from id `first` on, whether named or not."""
    file = folder / CONFIG_NAME
    added = config.get("added_tokens_decoder")
    if not isinstance(added, dict):
        raise CheckpointError(
            f"{file} has no `added_tokens_decoder`, which names the special tokens",
            hint="download the file again",
        )
    named: dict[int, AddedToken] = {}
    for key, entry in added.items():
        id = int(key) if key.isdecimal() and len(key) < 10 else -1
        if not first <= id < first + RESERVED:
            raise CheckpointError(
                f"{file} has a special token of id {key[:20]}; those of the {first} tokens in "
                f"{RANKS_NAME} are {first} to {first + RESERVED - 1}",
                hint="one of the files is damaged, or of another model: download both again",
            )
        text = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text:
            raise CheckpointError(f"{file}: `added_tokens_decoder` has no `content` for {id}")
        # Tokens that are not special by their entry, such as those around calls of tools, are text.
        shown = entry.get("special") is False
        named[id] = AddedToken(text, special=not shown, normalized=False)
    every = [
        named.get(id) or AddedToken(f"<|reserved_token_{id}|>", special=True, normalized=False)
        for id in range(first, first + RESERVED)
    ]
    if len({token.content for token in every}) < RESERVED:
        raise CheckpointError(f"{file} has a special token of two ids")
    return every


def _build(tokens: Sequence[bytes], specials: Sequence[AddedToken]) -> Tokenizer:
    characters = _byte_characters()
    names = [token.decode("latin-1").translate(characters) for token in tokens]
    merges = [(names[rank][:point], names[rank][point:]) for rank, point in merge_points(tokens)]
    # A special token would get the id of an ordinary one of the same text, were there one. So they
    # are added while ids have no texts.
    nameless = models.BPE(vocab={f"\0{id}": id for id in range(len(names))}, merges=[])
    tokenizer = Tokenizer(nameless)
    tokenizer.add_tokens(list(specials))
    vocabulary = {name: id for id, name in enumerate(names)}
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=KIMI.whole_words)
    cut_into_words(tokenizer, KIMI)
    return tokenizer


def _byte_characters() -> dict[int, str]:
    """The characters that stand for bytes in byte-level vocabularies (GPT-2's table).

    Visible ones stand for themselves, the others for the characters from 256 on.
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    return table | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
