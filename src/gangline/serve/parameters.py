"""The parameters of the two OpenAI endpoints: which are done, which are only harmless, and how.

Every name that a client may send is in one of two tables. `ChatBody` and `TextBody` are the
supported ones, with their types. `NEUTRAL` are known ones that are not done (yet): they are
accepted with the values that ask for nothing, since many clients always send those. Everything
else is refused by its name, because a parameter that is silently ignored is a wrong answer.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from gangline.errors import UnsupportedParameter, UsageError
from gangline.head.requests import ChatMessage, Sampling
from gangline.serve.bodies import decode_json

MAX_STOPS = 4
DEFAULT_TEXT_TOKENS = 16  # of /v1/completions, as OpenAI documents it

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Stop = Annotated[str, Meta(min_length=1)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against traffic analysis: see check_stream


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message; only `text` parts can be read."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the conversation; what stands below `content` is what clients echo back."""

    role: str
    content: str | list[ContentPart] | None = None
    name: None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_call_id: str | None = None  # of a `tool` message, whose role is refused
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None


class CommonBody(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logits_digest: bool | None = None  # ours: see head.requests.Submit


class ChatBody(CommonBody, frozen=True, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None


class TextBody(CommonBody, frozen=True, kw_only=True):
    """Body of POST /v1/completions; `prompt` is a text, token ids, or a list of one of these."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]


B = TypeVar("B", bound=CommonBody)


# name -> the values that ask for nothing; None (JSON null) always does. Defaults and meanings:
# https://platform.openai.com/docs/api-reference, and the sampling extras of vLLM and llama.cpp.
_NEUTRAL_BOTH: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "top_k": (0, -1),
    "min_p": (0,),
}
_NEUTRAL_CHAT: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),  # says nothing without tools
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_NEUTRAL_TEXT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (),
    "suffix": ("",),
}
NEUTRAL: dict[type[CommonBody], dict[str, tuple[Any, ...]]] = {
    ChatBody: _NEUTRAL_BOTH | _NEUTRAL_CHAT,
    TextBody: _NEUTRAL_BOTH | _NEUTRAL_TEXT,
}
# Names of the end user for the provider's own bookkeeping; no answer depends on them.
LABELS = frozenset({"user", "safety_identifier", "prompt_cache_key"})

# role of a message -> what the chat template sees
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def parse_body(body: bytes, kind: type[B]) -> B:
    """The typed body, after every name in it was accounted for."""
    supported = frozenset(kind.__struct_fields__)
    neutral = NEUTRAL[kind]
    for name, raw in decode_json(body, dict[str, msgspec.Raw]).items():
        if name in supported or name in LABELS:
            continue
        if name not in neutral:
            raise UnsupportedParameter(
                f"the parameter `{name}` is not known here", hint="leave it out", param=name
            )
        check_neutral(name, decode_json(raw, Any), neutral[name])
    parsed = decode_json(body, kind)
    check_stream(parsed)
    return parsed


def check_neutral(name: str, value: object, neutral: tuple[Any, ...]) -> None:
    """Refuse a value that asks for something; `True` is not 1 here."""
    if value is None or any(value == one and _kind(value) == _kind(one) for one in neutral):
        return
    allowed = " or ".join(msgspec.json.encode(one).decode() for one in (*neutral, None))
    raise UnsupportedParameter(
        f"the parameter `{name}` is not supported yet",
        hint=f"leave it out, or send {allowed}",
        param=name,
    )


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)


def check_stream(body: CommonBody) -> None:
    """What belongs together: the options of a stream need a stream."""
    if body.stream_options is None:
        return
    if not body.stream:
        raise UsageError(
            "`stream_options` is given, but `stream` is not true",
            hint="leave it out, or send `stream` true",
            param="stream_options",
        )
    if body.stream_options.include_obfuscation:
        raise UnsupportedParameter(
            "the parameter `stream_options.include_obfuscation` is not supported yet",
            hint="leave it out, or send false",
            param="stream_options.include_obfuscation",
        )


def sampling_of(body: CommonBody, default_max_tokens: int | None, random_seed: int) -> Sampling:
    """How tokens are to be chosen; `random_seed` is used where the client gives none."""
    stop = body.stop or ()
    return Sampling(
        max_tokens=_max_tokens(body) or default_max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=random_seed if body.seed is None else body.seed % 2**63,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )


def _max_tokens(body: CommonBody) -> int | None:
    newer = body.max_completion_tokens if isinstance(body, ChatBody) else None
    if newer is not None and body.max_tokens is not None and newer != body.max_tokens:
        raise UsageError(
            f"`max_tokens` is {body.max_tokens}, but `max_completion_tokens` is {newer}",
            hint="send one of them",
            param="max_tokens",
        )
    return body.max_tokens if newer is None else newer


def messages_of(body: ChatBody) -> tuple[ChatMessage, ...]:
    """The conversation as the chat template wants it: known roles, contents as one string."""
    return tuple(
        ChatMessage(_role(message.role, index), _content(message, index))
        for index, message in enumerate(body.messages)
    )


def _role(role: str, index: int) -> str:
    known = ROLES.get(role)
    if known is None:
        kind = UnsupportedParameter if role in ("tool", "function") else UsageError
        raise kind(
            f"the role `{role}` of message {index} is not supported",
            hint=f"use one of {', '.join(ROLES)}",
            param=f"messages[{index}].role",
        )
    return known


def _content(message: Message, index: int) -> str:
    if isinstance(message.content, str):
        return message.content
    at = f"messages[{index}].content"
    if message.content is None:
        raise UsageError(f"`{at}` is missing", hint="send a string", param=at)
    texts: list[str] = []
    for number, part in enumerate(message.content):
        if part.type != "text":
            raise UnsupportedParameter(
                f"content parts of type `{part.type}` are not supported",
                hint="send `text` parts only",
                param=f"{at}[{number}].type",
            )
        if part.text is None:
            raise UsageError(
                f"`{at}[{number}].text` is missing",
                hint="send a string",
                param=f"{at}[{number}].text",
            )
        texts.append(part.text)
    return "".join(texts)


def prompt_of(body: TextBody) -> str | tuple[int, ...]:
    """One prompt, as a text or as token ids."""
    if isinstance(body.prompt, str):
        return body.prompt
    if all(isinstance(item, int) for item in body.prompt):
        return tuple(item for item in body.prompt if isinstance(item, int))
    if len(body.prompt) != 1:
        raise UnsupportedParameter(
            f"`prompt` holds {len(body.prompt)} prompts, only one is supported",
            hint="send one request for each prompt",
            param="prompt",
        )
    only = body.prompt[0]
    if isinstance(only, str):
        return only
    assert isinstance(only, list), "a list of one number was handled above"
    if not only:
        raise UsageError("`prompt[0]` is empty", hint="send token ids", param="prompt")
    return tuple(only)
