"""A small HTTP client for a node's API, over the standard library's `http.client`.

Every failure is a `GanglineError`: the node's own, or one that says that no node answers.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from gangline.errors import (
    ErrorBody,
    GanglineError,
    ProtocolError,
    Unavailable,
    UsageError,
    error_from_body,
)
from gangline.node.config import DEFAULT_PORT

DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
CONNECT_S = 10.0  # also the time for an answer that needs no model
EVENTS_S = 45.0  # a stream of events is never silent for longer than its heartbeat of 15 s

T = TypeVar("T")


class Event(NamedTuple):
    """A server-sent event."""

    kind: str  # "message" where the server names none
    data: str


class _Failure(msgspec.Struct, frozen=True):
    message: str
    code: str | None = None
    hint: str = ""
    param: str | None = None


class _FailureBody(msgspec.Struct, frozen=True):
    error: _Failure


def default_url() -> str:
    """`GANGLINE_URL`, or the address of a node on this machine."""
    return os.environ.get("GANGLINE_URL") or DEFAULT_URL


class Client:
    """Talks to the node at one address; a connection for each request."""

    def __init__(self, url: str) -> None:
        named = "//" in url
        parts = urlsplit(url if named else f"//{url}", scheme="http")
        try:
            # `--url studio` means the node there, as `--peer studio` does; a URL has its own port.
            self._port = parts.port if named or parts.port is not None else DEFAULT_PORT
        except ValueError:
            raise UsageError(f"`{url}` has no valid port", hint=f"write {DEFAULT_URL}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"`{url}` is no address of a node", hint=f"write {DEFAULT_URL}")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._prefix = parts.path.rstrip("/")
        place = parts.netloc if named or parts.port is not None else f"{parts.netloc}:{self._port}"
        self.url = f"{parts.scheme}://{place}{self._prefix}"

    def get(self, path: str, kind: type[T], timeout_s: float = CONNECT_S) -> T:
        """The body of a GET as a `kind`."""
        return self._decode(self.request("GET", path, None, timeout_s), kind)

    def post(self, path: str, body: object, kind: type[T], timeout_s: float | None) -> T:
        """Send `body` as JSON; the answer as a `kind`."""
        return self._decode(self.request("POST", path, body, timeout_s), kind)

    def request(
        self, method: str, path: str, body: object = None, timeout_s: float | None = CONNECT_S
    ) -> bytes:
        """The whole body of an answer."""
        with self._respond(method, path, body, timeout_s) as response:
            return response.read()

    def events(
        self, method: str, path: str, body: object = None, timeout_s: float | None = EVENTS_S
    ) -> Generator[Event, None, None]:
        """Server-sent events; closing the iterator closes the connection."""
        with self._respond(method, path, body, timeout_s) as response:
            yield from read_events(iter(response.readline, b""))

    @contextmanager
    def _respond(
        self, method: str, path: str, body: object, timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=min(CONNECT_S, timeout_s or CONNECT_S))
        try:
            connection.connect()
            connection.sock.settimeout(timeout_s)
            content = None if body is None else msgspec.json.encode(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, self._prefix + path, content, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise self._failure(response.status, response.read())
            yield response
        except TimeoutError:
            raise Unavailable(f"the node at {self.url} did not answer in time") from None
        except ConnectionRefusedError:
            raise no_node(self.url) from None
        except http.client.HTTPException:
            raise ProtocolError(
                f"the answer of {self.url} broke off, or is no HTTP",
                hint="`gangline status` shows whether the node still runs",
            ) from None
        except OSError as error:
            raise no_node(self.url, error.strerror or str(error)) from None
        finally:
            connection.close()

    def _failure(self, status: int, body: bytes) -> GanglineError:
        try:
            failure = msgspec.json.decode(body, type=_FailureBody).error
        except msgspec.DecodeError:
            return ProtocolError(
                f"what answers at {self.url} is no Gangline node (HTTP {status})",
                hint="`--url` or GANGLINE_URL names another address",
            )
        code = failure.code or GanglineError.code
        return error_from_body(
            ErrorBody(code, failure.message, failure.hint, status, failure.param)
        )

    def _decode(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError:
            raise ProtocolError(
                f"what answers at {self.url} is no Gangline node, or one of another version",
                hint="`--url` or GANGLINE_URL names another address",
            ) from None


def failure_of_event(data: str) -> GanglineError | None:
    """The error that a stream carries in place of a chunk, if it is one."""
    try:
        failure = msgspec.json.decode(data, type=_FailureBody).error
    except msgspec.DecodeError:
        return None
    return error_from_body(
        ErrorBody(failure.code or GanglineError.code, failure.message, failure.hint)
    )


def no_node(url: str, why: str = "") -> Unavailable:
    """Nothing listens at the address."""
    return Unavailable(
        f"no node answers at {url}" + (f" ({why})" if why else ""),
        hint="`gangline up` starts one here; `--url` or GANGLINE_URL names another address",
    )


def read_events(lines: Iterator[bytes]) -> Iterator[Event]:
    """Lines of `text/event-stream` as events; comments and unknown fields are skipped."""
    kind, data = "message", list[str]()
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield Event(kind, "\n".join(data))
            kind, data = "message", []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
