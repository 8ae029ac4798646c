"""The bodies of OpenAI's answers, whole and in chunks; knows no network and no clock.

`gangline` is our extension: how fast the answer was, and which nodes computed it.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gangline.head.requests import FinishReason


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(msgspec.Struct, frozen=True):
    """Measured, not estimated; `None` where there was too little."""

    ttft_ms: float | None  # from the request's arrival at this node to its first token
    tokens_per_s: float | None  # of the tokens after the first one, as the head computed them
    epoch: int
    nodes: tuple[str, ...]  # ids, in the order of the stages


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`message`, `delta` or `text`, whichever the shape of the answer has."""

    index: int = 0
    message: dict[str, Any] | UnsetType = UNSET
    delta: dict[str, Any] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    logprobs: None = None
    finish_reason: FinishReason | None
    logits_digest: str | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, or one chunk of it."""

    id: str
    object: str
    created: int  # Unix seconds
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | UnsetType | None = UNSET
    gangline: Timing | UnsetType = UNSET


class Shape(NamedTuple):
    """What tells the answers of the two endpoints apart."""

    id_prefix: str
    whole: str
    chunk: str
    part: Literal["message", "text"]


CHAT = Shape("chatcmpl-", "chat.completion", "chat.completion.chunk", "message")
TEXT = Shape("cmpl-", "text_completion", "text_completion", "text")


class Writer(msgspec.Struct, frozen=True):
    """Writes the bodies of one answer."""

    shape: Shape
    id: str
    created: int
    model: str

    def whole(
        self, text: str, reason: FinishReason, digest: str | None, usage: Usage, timing: Timing
    ) -> bytes:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        part: dict[str, Any] = {"text": text} if self.shape.part == "text" else {"message": message}
        choice = Choice(finish_reason=reason, logits_digest=digest or UNSET, **part)
        return self._encode(self.shape.whole, (choice,), usage, timing)

    def opening(self, usage: UnsetType | None) -> bytes | None:
        """The chunk before the first token, where the shape has one."""
        if self.shape.part == "text":
            return None
        delta = {"role": "assistant", "content": "", "refusal": None}
        choice = Choice(delta=delta, finish_reason=None)
        return self._encode(self.shape.chunk, (choice,), usage, UNSET)

    def piece(self, text: str, usage: UnsetType | None) -> bytes:
        """A chunk of text."""
        choice = Choice(finish_reason=None, **self._piece(text))
        return self._encode(self.shape.chunk, (choice,), usage, UNSET)

    def closing(
        self, reason: FinishReason, digest: str | None, usage: UnsetType | None, timing: Timing
    ) -> bytes:
        """The last chunk of the choice."""
        choice = Choice(finish_reason=reason, logits_digest=digest or UNSET, **self._piece(""))
        return self._encode(self.shape.chunk, (choice,), usage, timing)

    def totals(self, usage: Usage, timing: Timing) -> bytes:
        """The chunk after the choice that `stream_options.include_usage` asks for."""
        return self._encode(self.shape.chunk, (), usage, timing)

    def _piece(self, text: str) -> dict[str, Any]:
        if self.shape.part == "text":
            return {"text": text}
        return {"delta": {"content": text} if text else {}}

    def _encode(
        self,
        kind: str,
        choices: tuple[Choice, ...],
        usage: Usage | UnsetType | None,
        timing: Timing | UnsetType,
    ) -> bytes:
        return msgspec.json.encode(
            Answer(
                id=self.id,
                object=kind,
                created=self.created,
                model=self.model,
                choices=choices,
                usage=usage,
                gangline=timing,
            )
        )


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of GET /v1/models; `context` and `layers` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gangline"
    context: int
    layers: int


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelCard, ...]
    object: Literal["list"] = "list"
