"""Messages between an entry node and the head of a model: one request in, its tokens out.

They travel over one TCP connection per (entry node, head): a handshake (`stage/handshake.py`), then
frames (`stage/messages.py`). All requests of an entry node share the connection; if it closes, the
head frees their lanes and the entry fails them.
`Accepted` (the prompt's token ids) and `Tokens` carry what another head would need to go on with an
answer; that is not done yet.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gangline.errors import ErrorBody

FinishReason = Literal["stop", "length"]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are chosen. The draw at a position depends on (seed, position) alone."""

    max_tokens: Annotated[int, Meta(ge=1)] | None = None  # None: until the context is full
    temperature: Annotated[float, Meta(ge=0, le=100)] = 1.0  # 0: the most likely token
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seed: int = 0  # the entry node draws one where the client gives none
    stop: tuple[str, ...] = ()


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Answer this. Exactly one of `messages` and `prompt` is given; `prompt` may be token ids."""

    id: int  # unique on this connection
    sampling: Sampling
    messages: tuple[ChatMessage, ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    logits_digest: bool = False  # hash the logits of every generated token


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Free the lane of request `id`; nothing more is sent for it."""

    id: int


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The prompt was tokenized and fits; the request waits for a lane or has one."""

    id: int
    prompt_tokens: tuple[int, ...]


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Newly generated tokens, and the text that is certain by now (may be empty)."""

    id: int
    tokens: tuple[int, ...]
    text: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The answer is complete. `n_tokens` counts generated tokens, the end token not counted.

    `decode_s` is the time from the first of them to the last as the head computed them: what
    arrives in a burst was not computed in one.
    """

    id: int
    reason: FinishReason
    n_tokens: int
    logits_digest: str | None = None
    decode_s: float = 0.0


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """The request failed, before or after its first token."""

    id: int
    error: ErrorBody


ToHead = Submit | Cancel
FromHead = Accepted | Tokens | Finished | Rejected
