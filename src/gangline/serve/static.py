"""The page: files of `gangline/web`, served as they are.

A request names a file by parts that cannot leave the folder; anything else is not found.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gangline.errors import NotFound

WEB = Path(__file__).parent.parent / "web"

# No script, style, font or connection from anywhere but this node, and no framing.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class PageFile(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def static_routes() -> list[Route]:
    """`/` and `/web/…`."""

    async def index(request: Request) -> Response:
        return _respond(request, "index.html")

    async def file(request: Request) -> Response:
        return _respond(request, request.path_params["name"])

    return [
        Route("/", index, methods=["GET"]),
        Route("/web/{name:path}", file, methods=["GET"]),
    ]


def read_page_file(name: str, root: Path = WEB) -> PageFile:
    """A file of the page by its path within `root`; raises NotFound."""
    parts = name.split("/")
    media_type = MEDIA_TYPES.get(Path(parts[-1]).suffix)
    if media_type is None or not all(_PART.fullmatch(part) for part in parts):
        raise NotFound(f"the page has no file `{name}`")
    try:
        content = root.joinpath(*parts).read_bytes()
    except OSError:
        raise NotFound(f"the page has no file `{name}`") from None
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    return PageFile(content, media_type, f'"{digest}"')


def _respond(request: Request, name: str) -> Response:
    file = read_page_file(name)
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",  # ask each time: an updated node has an updated page
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
    }
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
