"""The OpenAI endpoints: a request becomes a `Submit`, its tokens become an answer.

Any node answers, whichever holds the head. Knows nothing of tokenizers and templates.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gangline.errors import GanglineError, NotFound, Unavailable
from gangline.facts import ModelFacts
from gangline.head.requests import Accepted, Finished, Submit, Tokens
from gangline.serve.answers import (
    CHAT,
    TEXT,
    ModelCard,
    ModelList,
    Shape,
    Timing,
    Usage,
    Writer,
)
from gangline.serve.bodies import read_body
from gangline.serve.failures import failure_body, json_response
from gangline.serve.parameters import (
    DEFAULT_TEXT_TOKENS,
    ChatBody,
    CommonBody,
    TextBody,
    messages_of,
    parse_body,
    prompt_of,
    sampling_of,
)
from gangline.serve.streams import EventStream, run_while_connected

if TYPE_CHECKING:
    from gangline.node.node import Node

Events = AsyncIterator[Accepted | Tokens | Finished]


def openai_routes(node: Node) -> list[Route]:
    """Everything under /v1."""

    async def chat(request: Request) -> Response:
        body = parse_body(await read_body(request), ChatBody)
        submit = Submit(
            0,
            sampling_of(body, None, secrets.randbits(63)),
            messages=messages_of(body),
            logits_digest=bool(body.logits_digest),
        )
        return await answer(node, request, body, submit, CHAT)

    async def text(request: Request) -> Response:
        body = parse_body(await read_body(request), TextBody)
        submit = Submit(
            0,
            sampling_of(body, DEFAULT_TEXT_TOKENS, secrets.randbits(63)),
            prompt=prompt_of(body),
            logits_digest=bool(body.logits_digest),
        )
        return await answer(node, request, body, submit, TEXT)

    async def list_models(request: Request) -> Response:
        running = (model for model in node.state().models if model.state == "ready")
        return json_response(ModelList(tuple(map(card, running))))

    async def one_model(request: Request) -> Response:
        return json_response(card(resolve(node, request.path_params["model"])))

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", text, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", one_model, methods=["GET"]),
    ]


def card(model: ModelFacts) -> ModelCard:
    """A running model as OpenAI lists it."""
    return ModelCard(
        id=model.id, created=model.created, context=model.context, layers=model.n_layers
    )


def resolve(node: Node, name: str) -> ModelFacts:
    """A running model; the error that there is none carries OpenAI's code."""
    try:
        return node.resolve(name)
    except NotFound as error:
        error.code = "model_not_found"
        error.param = "model"
        raise


class Progress:
    """What one answer has brought so far, and when."""

    def __init__(self, model: ModelFacts) -> None:
        self.model = model
        self.started_s = time.monotonic()
        self.first_s: float | None = None
        self.n_prompt = 0
        self.n_tokens = 0
        self.texts: list[str] = []
        self.finished: Finished | None = None

    def apply(self, event: Accepted | Tokens | Finished) -> None:
        """Take in what the head sent."""
        if isinstance(event, Accepted):
            self.n_prompt = len(event.prompt_tokens)
        elif isinstance(event, Tokens):
            if self.first_s is None:
                self.first_s = time.monotonic()
            self.n_tokens += len(event.tokens)
            self.texts.append(event.text)
        else:
            self.n_tokens = event.n_tokens
            self.finished = event

    def usage(self) -> Usage:
        return Usage(self.n_prompt, self.n_tokens, self.n_prompt + self.n_tokens)

    def timing(self) -> Timing:
        rate = ttft_ms = None
        if self.first_s is not None:
            ttft_ms = round((self.first_s - self.started_s) * 1e3, 3)
        done = self.finished
        if done is not None and done.decode_s > 0 and done.n_tokens > 1:
            rate = round((done.n_tokens - 1) / done.decode_s, 1)
        nodes = tuple(stage.node for stage in self.model.stages)
        return Timing(ttft_ms, rate, self.model.epoch, nodes)


async def answer(
    node: Node, request: Request, body: CommonBody, submit: Submit, shape: Shape
) -> Response:
    """Run the request to its end, or up to the first event when it is streamed.

    Errors that come before that have their own HTTP status; later ones are part of the stream.
    """
    progress = Progress(resolve(node, body.model))
    writer = Writer(shape, shape.id_prefix + secrets.token_hex(12), int(time.time()), body.model)
    events = node.generate(body.model, submit)
    if not body.stream:
        whole = await run_while_connected(request.receive, _answer_whole(events, progress, writer))
        return Response(whole, media_type="application/json")
    try:
        progress.apply(await run_while_connected(request.receive, _first(events)))
    except BaseException:
        await events.aclose()
        raise
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    path = request.url.path
    return EventStream(_answer_chunks(events, progress, writer, include_usage, path))


async def _first(events: Events) -> Accepted | Tokens | Finished:
    async for event in events:
        return event
    raise Unavailable("the head ended the answer before it began", hint="try again")


async def _answer_whole(
    events: AsyncGenerator[Accepted | Tokens | Finished, None], progress: Progress, writer: Writer
) -> bytes:
    async with aclosing(events):
        async for event in events:
            progress.apply(event)
    finished = progress.finished
    if finished is None:
        raise Unavailable("the head ended the answer in the middle", hint="try again")
    return writer.whole(
        "".join(progress.texts),
        finished.reason,
        finished.logits_digest,
        progress.usage(),
        progress.timing(),
    )


async def _answer_chunks(
    events: AsyncGenerator[Accepted | Tokens | Finished, None],
    progress: Progress,
    writer: Writer,
    include_usage: bool,
    path: str,
) -> AsyncGenerator[bytes, None]:
    # OpenAI: with include_usage every chunk has `usage`, null in all but the last one.
    usage: UnsetType | None = None if include_usage else UNSET
    async with aclosing(events):
        try:
            opening = writer.opening(usage)
            if opening is not None:
                yield frame(opening)
            async for event in events:
                progress.apply(event)
                if isinstance(event, Tokens) and event.text:
                    yield frame(writer.piece(event.text, usage))
            finished = progress.finished
            if finished is None:
                raise Unavailable("the head ended the answer in the middle", hint="try again")
        except GanglineError as error:
            yield frame(msgspec.json.encode(failure_body(path, error)))
            return
    timing = progress.timing()
    yield frame(writer.closing(finished.reason, finished.logits_digest, usage, timing))
    if include_usage:
        yield frame(writer.totals(progress.usage(), timing))
    yield frame(b"[DONE]")


def frame(data: bytes) -> bytes:
    """One server-sent event; JSON of msgspec has no line breaks."""
    return b"data: " + data + b"\n\n"
