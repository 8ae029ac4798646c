"""A conversation over POST /v1/chat/completions, streamed; used by `chat` and `demo`."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import msgspec

from gangline.cli.client import Client, failure_of_event
from gangline.cli.output import counted, rate, significant
from gangline.errors import ProtocolError


class Line(msgspec.Struct, frozen=True):
    """A message of the conversation, as the API takes it."""

    role: str
    content: str


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling options of a chat; what is `None` is left to the node."""

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class Speed(msgspec.Struct, frozen=True):
    """How fast an answer was: to its first token as seen here, then as the node measured it."""

    ttft_s: float
    tokens_per_s: float | None
    n_tokens: int

    def __str__(self) -> str:
        parts = [f"{significant(self.ttft_s * 1e3)} ms to the first token"]
        if self.tokens_per_s is not None:
            parts.append(f"{rate(self.tokens_per_s)} tok/s")
        return ", ".join([*parts, counted(self.n_tokens, "token")])


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Timing(msgspec.Struct):
    tokens_per_s: float | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    gangline: _Timing | None = None


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


def running_models(client: Client) -> list[str]:
    """Ids of the models that answer now."""
    return [card.id for card in client.get("/v1/models", _Cards).data]


def request_body(
    model: str, lines: Sequence[Line], wanted: Wanted, **more: object
) -> dict[str, Any]:
    """The body of a chat request."""
    options = msgspec.to_builtins(wanted)
    return {"model": model, "messages": msgspec.to_builtins(list(lines)), **options, **more}


def stream_answer(
    client: Client, model: str, lines: Sequence[Line], wanted: Wanted
) -> Generator[str | Speed, None, None]:
    """Pieces of the answer's text, then its speed; closing the iterator frees the lane."""
    body = request_body(model, lines, wanted, stream=True, stream_options={"include_usage": True})
    started_s = time.monotonic()
    first_s: float | None = None
    path = "/v1/chat/completions"
    with closing(client.events("POST", path, body, timeout_s=None)) as events:
        for event in events:
            if event.data == "[DONE]":
                return
            failure = failure_of_event(event.data)
            if failure is not None:
                raise failure
            chunk = msgspec.json.decode(event.data, type=_Chunk)
            for choice in chunk.choices:
                if choice.delta.content:
                    first_s = first_s or time.monotonic()
                    yield choice.delta.content
            if chunk.usage is not None:
                rate = chunk.gangline.tokens_per_s if chunk.gangline else None
                ttft_s = (first_s or time.monotonic()) - started_s
                yield Speed(ttft_s, rate, chunk.usage.completion_tokens)
    raise ProtocolError("the answer broke off", hint="`gangline status` shows the nodes")
