"""`gangline chat`: one answer, or a conversation with history."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from gangline.cli.client import Client
from gangline.cli.common import client_of
from gangline.cli.options import add_json, add_url, positive
from gangline.cli.output import command, dim, error_text, is_terminal, note
from gangline.cli.talk import (
    Line,
    Speed,
    Wanted,
    request_body,
    running_models,
    stream_answer,
)
from gangline.errors import GanglineError, NotFound, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline chat`."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: the one that runs")
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="ask once and end; `-` reads standard input"
    )
    parser.add_argument("--system", metavar="TEXT", help="instructions before the conversation")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 (the likeliest) to 2")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="at most this many tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="draws the same answer again")
    add_url(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Answer a prompt, or talk until the user has enough."""
    client = client_of(options)
    model, prompt = choose(options.model, options.prompt, running_models(client))
    wanted = Wanted(options.temperature, options.max_tokens, options.seed)
    talk = Conversation(client, model, wanted, options.system)
    if prompt is None:
        if options.json:
            raise UsageError("--json needs a PROMPT", hint='`gangline chat --json demo "Hello"`')
        return converse(talk)
    text = sys.stdin.read() if prompt == "-" else prompt
    if options.json:
        body = request_body(model, [*talk.lines, Line("user", text)], wanted)
        print(client.request("POST", "/v1/chat/completions", body, None).decode())
        return 0
    talk.say(text)
    return 0


def choose(first: str | None, second: str | None, running: Sequence[str]) -> tuple[str, str | None]:
    """Which model is meant, and the prompt: a lone argument may be either of the two."""
    if not running:
        raise NotFound(
            "no model is running", hint="`gangline models` lists what `gangline load` can start"
        )
    if first is not None and first in running:
        return first, second
    if first is not None and (second is not None or not (" " in first or first == "-")):
        raise NotFound(f"model `{first}` is not running", hint=f"these are: {', '.join(running)}")
    if len(running) == 1:
        return running[0], first
    raise UsageError(
        f"{len(running)} models are running: {', '.join(running)}",
        hint=f"name one: {command('chat', running[0])}",
    )


class Conversation:
    """The messages so far; each question is sent with all of them."""

    def __init__(self, client: Client, model: str, wanted: Wanted, system: str | None) -> None:
        self.client = client
        self.model = model
        self.wanted = wanted
        self.lines: list[Line] = [Line("system", system)] if system else []

    def say(self, text: str) -> None:
        """Ask, and print the answer as it comes; Ctrl-C keeps what was said so far."""
        self.lines.append(Line("user", text))
        said: list[str] = []
        try:
            pieces = stream_answer(self.client, self.model, self.lines, self.wanted)
            with closing(pieces):
                for piece in pieces:
                    if isinstance(piece, Speed):
                        self._end(piece)
                    else:
                        said.append(piece)
                        sys.stdout.write(piece)
                        sys.stdout.flush()
        except GanglineError:
            if said:
                print()
            self.lines.pop()  # the question was not answered: it may be asked again
            raise
        except KeyboardInterrupt:
            self.lines.append(Line("assistant", "".join(said)))
            raise
        self.lines.append(Line("assistant", "".join(said)))

    def _end(self, speed: Speed) -> None:
        print(flush=True)
        if is_terminal(sys.stdout):
            print(dim(str(speed), sys.stdout), flush=True)

    def clear(self) -> None:
        """Forget everything but the instructions."""
        self.lines = [line for line in self.lines if line.role == "system"]

    def instruct(self, text: str) -> None:
        """Other instructions; empty: none."""
        others = [line for line in self.lines if line.role != "system"]
        self.lines = [Line("system", text), *others] if text else others

    def save(self, name: str) -> None:
        """Write the messages as JSON, in the form that the API takes."""
        content = msgspec.json.format(msgspec.json.encode(self.lines)) + b"\n"
        try:
            Path(name).expanduser().write_bytes(content)
        except (OSError, RuntimeError, ValueError) as error:
            raise GanglineError(f"cannot write `{name}`: {error}") from None


def converse(talk: Conversation) -> int:
    """Read lines until the end of input or /quit; works with a pipe as well."""
    interactive = is_terminal(sys.stdin)
    if interactive:
        _enable_line_editing()
        note(dim(f"{talk.model}; /help lists what else can be typed", sys.stderr))
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            if interactive:
                print()
            return 0
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(/quit or Ctrl-D ends)")
            continue
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                if not obey(talk, line):
                    return 0
            else:
                talk.say(line)
        except GanglineError as error:
            note(error_text(error))
            if not interactive:
                return error.exit_code
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(stopped)")


def obey(talk: Conversation, line: str) -> bool:
    """Carry out a line such as `/save talk.json`; False ends the conversation."""
    name, _, rest = line.partition(" ")
    if name == "/quit":
        return False
    order = _ORDERS.get(name)
    if order is None:
        raise UsageError(f"there is no {name}", hint="/help lists what there is")
    order[1](talk, rest.strip())
    return True


def _help(talk: Conversation, rest: str) -> None:
    rows = {name: text for name, (text, _) in _ORDERS.items()} | {"/quit": "End; so does Ctrl-D"}
    for name, text in rows.items():
        print(f"{name:<8}{text}")


def _clear(talk: Conversation, rest: str) -> None:
    talk.clear()


def _system(talk: Conversation, rest: str) -> None:
    talk.instruct(rest)


def _save(talk: Conversation, rest: str) -> None:
    if not rest:
        raise UsageError("/save needs the name of a file", hint="/save talk.json")
    talk.save(rest)


def _model(talk: Conversation, rest: str) -> None:
    running = running_models(talk.client)
    if rest:
        if rest not in running:
            raise NotFound(f"model `{rest}` is not running", hint=f"running: {', '.join(running)}")
        talk.model = rest
    for name in running:
        print(f"{name}*" if name == talk.model else name)


_ORDERS: dict[str, tuple[str, Callable[[Conversation, str], None]]] = {
    "/help": ("Show this list", _help),
    "/clear": ("Forget the conversation, keep the instructions", _clear),
    "/system": ("Set the instructions: /system TEXT; none without TEXT", _system),
    "/save": ("Write the conversation as JSON: /save FILE", _save),
    "/model": ("Show the models that run, or change: /model NAME", _model),
}


def _enable_line_editing() -> None:
    try:
        importlib.import_module("readline")  # `input` uses it from now on
    except ImportError:
        return  # Windows has its own line editing
