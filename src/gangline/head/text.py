"""Everything about text: prompts to token ids, token ids back to text as it becomes certain.

Knows the tokenizer and the chat template of one model; no lanes, no sockets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from gangline.checkpoint.contents import gguf_file
from gangline.checkpoint.gguf import read_gguf
from gangline.errors import CheckpointError, UsageError
from gangline.head.gguf_language import read_gguf_language
from gangline.head.requests import ChatMessage, Submit
from gangline.head.template import ChatTemplate

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to
_MAX_HELD_TOKENS = 8  # no character has more bytes than this, each of which may be a token


class Language:
    """A model's tokenizer, chat template and special tokens, read from its folder or GGUF file."""

    def __init__(self, path: Path, vocabulary: int, end_tokens: frozenset[int]) -> None:
        self._path = path
        file = gguf_file(path)
        if file is None:
            origin = path / "tokenizer.json"
            self._tokenizer = _read_tokenizer(origin)
            config = _read_json(path / "tokenizer_config.json")
        else:
            origin, found = file, read_gguf_language(read_gguf(file))
            self._tokenizer, config = found.tokenizer, found.config
            end_tokens = end_tokens | found.end_tokens
        if self._tokenizer.get_vocab_size() > vocabulary:
            raise CheckpointError(
                f"{origin} has {self._tokenizer.get_vocab_size()} tokens, "
                f"the model's weights are for {vocabulary}",
                hint="the files belong to different models; download the model again",
            )
        self._template: ChatTemplate | None = ChatTemplate.read(path, config)
        self.vocabulary = vocabulary
        self.end_tokens = end_tokens | self._named_ends(config)

    def prompt_ids(self, submit: Submit) -> list[int]:
        """Token ids of a request's prompt; raises UsageError where it cannot be one."""
        if submit.messages is not None:
            return self._encode(self.render(submit.messages), special=False)
        if isinstance(submit.prompt, str):
            return self._encode(submit.prompt, special=True)
        ids = list(submit.prompt or ())
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise UsageError(
                    f"prompt holds token {token}; this model's tokens are 0 to "
                    f"{self.vocabulary - 1}",
                    param="prompt",
                )
        return ids

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The conversation as the model was trained to see it, up to the assistant's turn."""
        if self._template is None:
            raise UsageError(
                f"the model in {self._path} has no chat template",
                hint="use /v1/completions with a prompt of your own",
                param="messages",
            )
        return self._template.render(messages)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _encode(self, text: str, special: bool) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"the prompt cannot be tokenized: {error}") from error
        return ids

    def _named_ends(self, config: dict[str, object]) -> frozenset[int]:
        named = config.get("eos_token")
        content = named.get("content") if isinstance(named, dict) else named
        token = self._tokenizer.token_to_id(content) if isinstance(content, str) else None
        return frozenset() if token is None else frozenset({token})


class TextStream:
    """Text of a growing answer, released only as far as no later token can change it.

    Held back are bytes of an unfinished character and whatever might begin a stop string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, stop
        self._tokens: list[int] = []
        self._window = 0  # decoding starts here: enough context for the tokenizer's joins
        self._read = 0  # tokens before this one are in `_text`
        self._text = ""  # decoded, not yet released
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; the text that became certain. Sets `stopped` at a stop string."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._window : self._read])
        after = self._decode(self._tokens[self._window :])
        unfinished = after.endswith(_UNFINISHED)
        if len(after) <= len(before) or (
            unfinished and len(self._tokens) - self._read < _MAX_HELD_TOKENS
        ):
            return ""
        self._window, self._read = self._read, len(self._tokens)
        return self._release(after[len(before) :], final=False)

    def finish(self) -> str:
        """The rest, now that no token follows."""
        if self.stopped:
            return ""
        before = self._decode(self._tokens[self._window : self._read])
        after = self._decode(self._tokens[self._window :])
        return self._release(after[len(before) :], final=True)

    def _release(self, text: str, final: bool) -> str:
        self._text += text
        found = [at for stop in self._stop if (at := self._text.find(stop)) >= 0]
        if found:
            self.stopped = True
            released, self._text = self._text[: min(found)], ""
            return released
        held = 0 if final else max((_overlap(self._text, stop) for stop in self._stop), default=0)
        split = len(self._text) - held
        released, self._text = self._text[:split], self._text[split:]
        return released


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        missing = not path.exists()
        raise CheckpointError(
            f"{path} {'does not exist' if missing else f'cannot be read: {error}'}",
            hint="a model folder needs its tokenizer.json; download the model again",
        ) from error


def _read_json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return data
