"""Chat templates: Jinja in a sandbox that can neither change nor reach anything.

The environment offers what templates of the Hugging Face format expect: trimmed blocks, loop
controls, `{% generation %}`, `raise_exception`, `strftime_now`, `tojson`, and the names of the
special tokens.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gangline.errors import CheckpointError, UsageError
from gangline.head.requests import ChatMessage

_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


class TemplateRefusal(Exception):
    """What a template raises about the conversation it is given."""


class Generation(Extension):
    """`{% generation %}` marks what an assistant said, for training; here its body is all."""

    tags = {"generation"}  # noqa: RUF012 - a plain set, as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(self, source: str, origin: Path, tokens: dict[str, str]) -> None:
        self._tokens = tokens
        self._origin = origin
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(
                f"the chat template of {origin} cannot be read: {error}",
                hint="use /v1/completions, or repair the template",
            ) from error

    @staticmethod
    def read(folder: Path, config: dict[str, object]) -> ChatTemplate | None:
        """The template of a model: chat_template.jinja, the tokenizer's configuration, or
        chat_template.json, where models that see have had it."""
        tokens = {name: text for name in _TOKEN_NAMES if (text := _content(config.get(name)))}
        file = folder / "chat_template.jinja"
        if file.exists():
            return ChatTemplate(file.read_text(encoding="utf-8"), file, tokens)
        source = config.get("chat_template")
        if isinstance(source, list):  # several, by name
            each = [item for item in source if isinstance(item, dict)]
            source = next((i.get("template") for i in each if i.get("name") == "default"), None)
        origin = folder if folder.is_file() else folder / "tokenizer_config.json"
        if source is None and (older := folder / "chat_template.json").exists():
            source, origin = _older_source(older), older
        if not isinstance(source, str):
            return None
        return ChatTemplate(source, origin, tokens)

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The conversation up to the assistant's turn; raises UsageError where it is refused."""
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                tools=None,  # given, for templates that ask whether they are none
                documents=None,
                **self._tokens,
            )
        except TemplateRefusal as error:
            raise UsageError(
                f"the model's chat template refuses this conversation: {error}", param="messages"
            ) from error
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise UsageError(
                f"the model's chat template ({self._origin}) fails on this conversation: {error}",
                hint="use /v1/completions with a prompt of your own",
                param="messages",
            ) from error


def _older_source(file: Path) -> object:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return found.get("chat_template") if isinstance(found, dict) else None


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter it escapes nothing for HTML; arguments as transformers has them."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _content(token: object) -> str:
    """A special token's text; it may be written as a string or as an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
