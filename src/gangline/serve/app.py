"""The web application of a node: its routes, and what becomes of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from gangline.errors import GanglineError, NotFound, UsageError
from gangline.node.config import is_loopback
from gangline.serve.cluster import cluster_routes
from gangline.serve.failures import BodyTooLarge, BodyTooSlow, WrongMethod, failure_response
from gangline.serve.guard import Guard
from gangline.serve.openai import openai_routes
from gangline.serve.static import static_routes
from gangline.serve.streams import ClientGone

if TYPE_CHECKING:
    from gangline.node.node import Node


def make_app(node: Node) -> Starlette:
    """Everything that this node answers over HTTP."""
    handlers: dict[type[Exception], ExceptionHandler] = {
        GanglineError: _failed,
        HTTPException: _refused,
        ClientGone: _gone,
        Exception: _broken,
    }
    app = Starlette(
        routes=[*openai_routes(node), *cluster_routes(node), *static_routes()],
        middleware=[Middleware(Guard, loopback_only=is_loopback(node.config.listen))],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    return app


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, GanglineError), "registered for this class"
    # The rest of an unread body would keep the connection busy for as long as the client likes.
    unread = isinstance(error, BodyTooLarge | BodyTooSlow)
    return failure_response(request.url.path, error, {"Connection": "close"} if unread else None)


async def _refused(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException), "registered for this class"
    method, path = request.method, request.url.path
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return failure_response(path, NotFound(f"there is no {path} here"))
    if error.status_code == 405:
        hint = f"use {headers['Allow']}" if "Allow" in headers else ""
        return failure_response(path, WrongMethod(f"{path} takes no {method}", hint=hint), headers)
    return failure_response(path, UsageError(error.detail))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it: the server drops it


async def _broken(request: Request, error: Exception) -> Response:
    """Our own mistake: the server logs the traceback, the client gets no inner details."""
    problem = GanglineError("the node failed to answer", hint="its log says why")
    return failure_response(request.url.path, problem)
