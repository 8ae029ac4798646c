"""The official `openai` client against real nodes; the model says random bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.cluster import CONTEXT, MODEL, Cluster

pytestmark = pytest.mark.cluster

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(params=[0, 1], ids=["at the head", "at the other node"])
def client(cluster: Cluster, request: pytest.FixtureRequest) -> openai.OpenAI:
    url = f"{cluster.urls[request.param]}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=8, temperature=0
    )
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    timing = answer.model_extra["gangline"] if answer.model_extra else {}
    assert timing["ttft_ms"] > 0
    assert timing["tokens_per_s"] > 0
    assert len(timing["nodes"]) == 2


def test_a_streamed_chat_is_the_same_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=40, seed=3, extra_body={"logits_digest": True}
    )
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=40,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"logits_digest": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    deltas = [chunk.choices[0] for chunk in chunks[:-1]]
    text = "".join(delta.delta.content or "" for delta in deltas)
    assert text == whole.choices[0].message.content
    assert [delta.finish_reason for delta in deltas[-2:]] == [None, "length"]
    for last in (chunks[-1], chunks[-2]):
        assert last.model_extra is not None
        assert last.model_extra["gangline"]["ttft_ms"] > 0
    digests = [one.model_extra or {} for one in (deltas[-1], whole.choices[0])]
    assert digests[0]["logits_digest"] == digests[1]["logits_digest"]
    assert len(digests[0]["logits_digest"]) >= 32


def test_without_include_usage_there_is_none(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2, stream=True)
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_completions(client: openai.OpenAI) -> None:
    ids = list(b"hello")
    answers = [
        client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=6)
        for prompt in ("hello", ["hello"], ids, [ids])
    ]
    assert {answer.object for answer in answers} == {"text_completion"}
    assert len({answer.choices[0].text for answer in answers}) == 1
    assert answers[0].usage is not None
    assert answers[0].usage.prompt_tokens == 5
    pieces = client.completions.create(
        model=MODEL, prompt="hello", temperature=0, max_tokens=6, stream=True
    )
    text = "".join(piece.choices[0].text for piece in pieces)
    assert text == answers[0].choices[0].text


def test_a_completion_is_short_unless_asked_otherwise(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="hello", temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_seed_repeats_an_answer_and_no_seed_does_not(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str:
        answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=24, **options)
        return answer.choices[0].text

    assert ask(seed=5) == ask(seed=5)
    assert len({ask(seed=5), ask(seed=6), ask(), ask()}) == 4


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> Any:
        answer = client.completions.create(
            model=MODEL, prompt="hello", max_tokens=60, temperature=0, **options
        )
        return answer.choices[0]

    whole = ask().text
    stop = whole[20:22]
    for choice in (ask(stop=stop), ask(stop=["no such text", stop])):
        assert choice.finish_reason == "stop"
        assert choice.text == whole[: whole.index(stop)]


def test_models(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [MODEL]
    assert listed[0].created > 1_600_000_000
    assert client.models.retrieve(MODEL) == listed[0]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="none", messages=HELLO, stream=stream)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "none" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="x" * (CONTEXT + 1), stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT) in str(caught.value)


def test_a_token_that_is_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=[1, 2**31 - 1])


def test_refusals_name_the_parameter(client: openai.OpenAI) -> None:
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("n", lambda: client.chat.completions.create(model=MODEL, messages=HELLO, n=2)),
        ("best_of", lambda: client.completions.create(model=MODEL, prompt="x", best_of=2)),
        ("echo", lambda: client.completions.create(model=MODEL, prompt="x", echo=True)),
        (
            "mood",
            lambda: client.completions.create(model=MODEL, prompt="x", extra_body={"mood": 1}),
        ),
    ]
    for name, call in calls:
        with pytest.raises(openai.BadRequestError) as caught:
            call()
        assert caught.value.param == name
        assert caught.value.type == "invalid_request_error"


async def ask_many(url: str, n_requests: int) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def ask(seed: int) -> str:
            text = ""
            stream = await client.completions.create(
                model=MODEL, prompt="hello", max_tokens=20, seed=seed, stream=True
            )
            async for chunk in stream:
                text += chunk.choices[0].text
            return text

        return await asyncio.gather(*map(ask, range(n_requests)))


def test_requests_at_the_same_time_are_answered_as_if_alone(cluster: Cluster) -> None:
    together = [asyncio.run(ask_many(url, 12)) for url in cluster.urls]
    client = openai.OpenAI(base_url=f"{cluster.urls[1]}/v1", api_key="none", max_retries=0)
    alone = client.completions.create(model=MODEL, prompt="hello", max_tokens=20, seed=7)
    assert together[0] == together[1]
    assert together[0][7] == alone.choices[0].text
    assert len(set(together[0])) == 12
