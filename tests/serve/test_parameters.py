"""Parsing of OpenAI requests: what is taken, what is refused, and under which name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.errors import GanglineError, UnsupportedParameter, UsageError
from gangline.head.requests import ChatMessage, Sampling
from gangline.serve.parameters import (
    LABELS,
    NEUTRAL,
    ChatBody,
    TextBody,
    messages_of,
    parse_body,
    prompt_of,
    sampling_of,
)

HELLO = [{"role": "user", "content": "hello"}]


def chat(**changes: Any) -> ChatBody:
    return parse_body(msgspec.json.encode({"model": "m", "messages": HELLO} | changes), ChatBody)


def text(prompt: Any) -> TextBody:
    return parse_body(msgspec.json.encode({"model": "m", "prompt": prompt}), TextBody)


def refused(**changes: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        body = chat(**changes)
        messages_of(body)
        sampling_of(body, None, 0)
    return caught.value


def test_defaults_are_those_of_openai() -> None:
    assert sampling_of(chat(), None, 7) == Sampling(None, 1.0, 1.0, 7, ())


def test_every_sampling_parameter_arrives() -> None:
    body = chat(max_tokens=3, temperature=0, top_p=0.5, seed=11, stop=["a", "b"])
    assert sampling_of(body, None, 7) == Sampling(3, 0.0, 0.5, 11, ("a", "b"))
    assert sampling_of(chat(stop="x"), None, 0).stop == ("x",)
    assert sampling_of(chat(max_completion_tokens=9), 16, 0).max_tokens == 9
    assert sampling_of(chat(), 16, 0).max_tokens == 16


def test_null_is_the_default() -> None:
    names = ("max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options")
    body = chat(**dict.fromkeys(names))
    assert sampling_of(body, None, 7) == sampling_of(chat(), None, 7)


def test_negative_seeds_are_seeds_of_their_own() -> None:
    seeds = {sampling_of(chat(seed=seed), None, 0).seed for seed in (-1, -2, 1, 2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"temperature": 2.01}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 10**40}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": "hello"}]}, "messages[0]"),
        ({"messages": [*HELLO, {"role": "robot", "content": ""}]}, "messages[1].role"),
        ({"messages": [{"role": "tool", "content": "", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "", "name": "Jo"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "", "mood": 1}]}, "messages[0].mood"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(changes: dict[str, Any], param: str) -> None:
    error = refused(**changes)
    assert error.param == param
    assert error.http_status == 400


def test_a_refusal_says_what_to_do() -> None:
    error = refused(n=2)
    assert isinstance(error, UnsupportedParameter)
    assert error.message == "the parameter `n` is not supported yet"
    assert error.hint == "leave it out, or send 1 or null"
    assert error.param == "n"


def test_unknown_parameters_are_refused_by_name() -> None:
    error = refused(temprature=1)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "temprature"


@pytest.mark.parametrize("kind", [ChatBody, TextBody])
def test_neutral_values_pass_and_others_do_not(kind: type[ChatBody] | type[TextBody]) -> None:
    basis: dict[str, Any] = {"model": "m", "messages": HELLO, "prompt": "x"}
    basis.pop("prompt" if kind is ChatBody else "messages")
    for name, neutral in NEUTRAL[kind].items():
        for value in (None, *neutral):
            parse_body(msgspec.json.encode(basis | {name: value}), kind)
        for value in ("no such value", [1], {"a": 1}, 17):
            with pytest.raises(UnsupportedParameter) as caught:
                parse_body(msgspec.json.encode(basis | {name: value}), kind)
            assert caught.value.param == name


def test_true_is_not_one_and_one_is_one() -> None:
    chat(n=1.0, frequency_penalty=0, presence_penalty=0.0)
    assert refused(n=True).param == "n"
    assert refused(logprobs=0).param == "logprobs"


def test_a_librarys_words_end_our_sentence() -> None:
    with pytest.raises(UsageError, match="is not JSON: JSON is malformed"):
        parse_body(b"\xff", ChatBody)
    with pytest.raises(UsageError, match="is not JSON: input data was truncated"):
        parse_body(b"{", ChatBody)


def test_tables_do_not_overlap() -> None:
    for kind, neutral in NEUTRAL.items():
        assert not set(kind.__struct_fields__) & (set(neutral) | LABELS)


def test_roles_and_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": []},
        ]
    )
    assert messages_of(body) == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "ab"),
        ChatMessage("assistant", "c"),
    )


def test_prompts() -> None:
    assert prompt_of(text("a")) == "a"
    assert prompt_of(text(["a"])) == "a"
    assert prompt_of(text([1, 2])) == (1, 2)
    assert prompt_of(text([[1, 2]])) == (1, 2)
    assert prompt_of(text([5])) == (5,)


@pytest.mark.parametrize("prompt", [[], [[]], ["a", "b"], [[1], [2]], [1, "a"], [-1], [True], 3])
def test_prompts_that_are_none(prompt: Any) -> None:
    with pytest.raises(UsageError) as caught:
        prompt_of(text(prompt))
    assert (caught.value.param or "").startswith("prompt")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*ChatBody.__struct_fields__, *NEUTRAL[ChatBody], "foo"])


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_any_object_is_parsed_or_refused(body: dict[str, Any]) -> None:
    try:
        parsed = parse_body(msgspec.json.encode({"model": "m", "messages": HELLO} | body), ChatBody)
        messages_of(parsed)
        sampling = sampling_of(parsed, None, 0)
    except GanglineError as error:
        assert error.http_status == 400
    else:
        assert 0 <= sampling.temperature <= 2
        assert 0 <= sampling.seed < 2**63


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    for kind in (ChatBody, TextBody):
        with pytest.raises(UsageError):
            parse_body(body, kind)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": "\xff"}', b'{"\xff": 1}', b'{"model": "\\ud800"}',
     b"[" * 200_000, b'{"n": ' + b"[" * 200_000, b'{"a":' * 200_000,
     b'{"messages": [[[[]]]], "model": 1}', b"\xef\xbb\xbf{}", b"\x00", "{}".encode("utf-16")],
)  # fmt: skip
def test_broken_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        parse_body(body, ChatBody)
    assert len(caught.value.message) < 200
