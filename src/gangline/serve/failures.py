"""Errors as HTTP responses: OpenAI's shape on `/v1`, ours elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from gangline.errors import GanglineError, UsageError


class BodyTooLarge(UsageError):
    code = "body_too_large"
    http_status = 413


class BodyTooSlow(UsageError):
    code = "body_too_slow"
    http_status = 408


class Refused(UsageError):
    """A browser asks on behalf of another site."""

    code = "refused"
    http_status = 403


class WrongMethod(UsageError):
    code = "method_not_allowed"
    http_status = 405


def failure_body(path: str, error: GanglineError) -> dict[str, Any]:
    """The `error` object for a request to `path`; on /v1 the hint is part of the message."""
    if not path.startswith("/v1/"):
        return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}


def failure_response(
    path: str, error: GanglineError, headers: dict[str, str] | None = None
) -> Response:
    """The whole response to a request that failed before its first byte was sent."""
    return json_response(failure_body(path, error), error.http_status, headers)


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Anything msgspec can encode, never cached."""
    return Response(
        msgspec.json.encode(value),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )
