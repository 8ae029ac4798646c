"""Reads request bodies: bounded in size, time and depth, with errors that name the place.

The content type is not looked at: what parses as JSON is taken as JSON.
"""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from gangline.errors import UsageError
from gangline.serve.failures import BodyTooLarge, BodyTooSlow
from gangline.serve.streams import ClientGone

MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_BODY_S = 60.0

T = TypeVar("T")

# msgspec ends its messages with the path: "Expected `str`, got `int` - at `$.messages[0].role`"
_WITH_PATH = re.compile(r"(?P<what>.*) - at `(?P<key>key in )?\$\.?(?P<path>.*?)`", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"object contains unknown field `(?P<name>.*)`", re.DOTALL)


async def read_body(request: Request) -> bytes:
    """The whole body, at most `MAX_BODY_BYTES`, within `MAX_BODY_S`."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(MAX_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise BodyTooLarge(
                        f"the request body is larger than {MAX_BODY_BYTES} bytes",
                        hint="send a shorter conversation",
                    )
                parts.append(part)
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise BodyTooSlow(
            f"the request body did not arrive within {MAX_BODY_S:.0f} s",
            hint="send the request again",
        ) from None
    return b"".join(parts)


def decode_json(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The body, or a part of it, as a `kind`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except msgspec.DecodeError as error:
        raise UsageError(
            f"the body is not JSON: {lower_first(str(error))}",
            hint="send one JSON object, encoded as UTF-8",
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the body is not UTF-8: {error.reason} in a string",
            hint="send one JSON object, encoded as UTF-8",
        ) from None
    except RecursionError:
        raise UsageError(
            "the body is nested too deeply", hint="send one flat JSON object"
        ) from None


def invalid(message: str) -> UsageError:
    """msgspec's "… - at `$.a[0].b`" as an error about the parameter `a[0].b`."""
    found = _WITH_PATH.fullmatch(message)
    path = found["path"] if found else ""
    what = lower_first(found["what"] if found else message)
    unknown = _UNKNOWN_FIELD.fullmatch(what)
    param = ".".join(part for part in (path, unknown["name"] if unknown else "") if part)
    if unknown:
        return UsageError(f"`{param}` is not known here", hint="leave it out", param=param)
    if not param:
        return UsageError(f"the body is wrong: {what}", hint="send one JSON object")
    return UsageError(f"`{param}` is wrong: {what}", param=param)


def lower_first(text: str) -> str:
    """A message of a library as the end of a sentence; `JSON is …` stays as it is."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
