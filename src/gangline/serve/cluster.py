"""The cluster API: the state once and as events, plans, loading and unloading."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gangline.errors import UsageError
from gangline.facts import LoadRequest, ModelFacts, ModelId
from gangline.serve.bodies import decode_json, read_body
from gangline.serve.failures import json_response
from gangline.serve.streams import EventStream, with_heartbeat

if TYPE_CHECKING:
    from gangline.node.node import Node

HEARTBEAT_S = 15.0  # proxies and browsers drop connections that are silent for longer

_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_PLAN_PARAMETERS = ("model", "nodes", "context", "lanes", "spread", "backend", "prompt")


def cluster_routes(node: Node) -> list[Route]:
    """Everything under /cluster, and /healthz."""

    async def state(request: Request) -> Response:
        return json_response(node.state())

    async def events(request: Request) -> Response:
        return EventStream(state_events(node, HEARTBEAT_S))

    async def stored(request: Request) -> Response:
        return json_response(node.models())

    async def load(request: Request) -> Response:
        wanted = decode_json(await read_body(request), LoadRequest)
        return json_response(await node.load(wanted), 202)

    async def unload(request: Request) -> Response:
        await node.unload(ModelId(request.path_params["model"]))
        return Response(status_code=204)

    async def plan(request: Request) -> Response:
        query = request.query_params.multi_items()
        prompt = _count(dict(query), "prompt")
        wanted = plan_request(query)
        return json_response(await node.plan(wanted, prompt))

    async def health(request: Request) -> Response:
        reasons = ill(node.state().models)
        body = {"status": "unhealthy", "reasons": reasons} if reasons else {"status": "ok"}
        return json_response(body, 503 if reasons else 200)

    return [
        Route("/cluster/state", state, methods=["GET"]),
        Route("/cluster/events", events, methods=["GET"]),
        Route("/cluster/models", stored, methods=["GET"]),
        Route("/cluster/models", load, methods=["POST"]),
        Route("/cluster/models/{model:path}", unload, methods=["DELETE"]),
        Route("/cluster/plan", plan, methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
    ]


async def state_events(node: Node, heartbeat_s: float) -> AsyncGenerator[bytes, None]:
    """Server-sent events: the state now and after each change, a comment when all is quiet."""
    async with (
        aclosing(node.changes()) as changes,
        aclosing(with_heartbeat(changes, heartbeat_s)) as states,
    ):
        async for state in states:
            if state is None:
                yield b": nothing new\n\n"
            else:
                yield b"event: state\ndata: " + msgspec.json.encode(state) + b"\n\n"


def plan_request(query: list[tuple[str, str]]) -> LoadRequest:
    """`?model=demo&nodes=a,b&spread=1` as the load that it asks about."""
    values = dict(query)
    for name in values:
        if name not in _PLAN_PARAMETERS:
            raise UsageError(
                f"the parameter `{name}` is not known here",
                hint=f"use {', '.join(_PLAN_PARAMETERS)}",
                param=name,
            )
    if not values.get("model"):
        raise UsageError(
            "`model` is missing", hint="ask for /cluster/plan?model=demo", param="model"
        )
    spread = values.get("spread", "0").lower()
    if spread not in _FLAGS:
        raise UsageError(f"`spread` is `{spread}`", hint="use 0 or 1", param="spread")
    nodes = tuple(name for name in values.get("nodes", "").split(",") if name)
    return LoadRequest(
        model=values["model"],
        nodes=nodes or None,
        context=_count(values, "context"),
        lanes=_count(values, "lanes"),
        spread=_FLAGS[spread],
        backend=values.get("backend"),
    )


def _count(values: dict[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) == 0:
        raise UsageError(f"`{name}` is `{text}`", hint="use a positive number", param=name)
    return int(text)


def ill(models: tuple[ModelFacts, ...]) -> list[str]:
    """Why the node cannot answer with every model that it has; nothing loaded is healthy."""
    return [
        f"model `{model.id}` is {model.state}" + (f": {model.reason}" if model.reason else "")
        for model in models
        if model.state in ("failed", "recovering")
    ]
