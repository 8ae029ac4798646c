"""Heads and stages as real processes: answers, splits, lanes, faults."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gangline.head.requests import ChatMessage, Finished, Sampling, Submit, Tokens
from gangline.stage.control import Failed
from gangline.stage.handshake import connect_hop
from tests.make_checkpoint import make_checkpoint
from tests.make_ranks import BYTES, SPECIALS, make_ranks
from tests.make_tokenizer import BEGIN, END, VOCABULARY, make_tokenizer
from tests.ring import EPOCH, SECRET, Answer, Client, Ring

N_LAYERS = 4
GREEDY = Sampling(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_checkpoint(
        tmp_path_factory.mktemp("model"), n_layers=N_LAYERS, vocab=VOCABULARY, context=256
    )
    return make_tokenizer(path)


@pytest.fixture(scope="module")
def ring(folder: Path) -> Iterator[Ring]:
    """Two stages that the tests below share; none of them may break it."""
    with Ring(folder, [2], N_LAYERS) as ring:
        yield ring


def ask(ring: Ring, *submits: Submit) -> list[Answer]:
    """Submit all at once, await all."""

    async def talk() -> list[Answer]:
        async with ring.client() as client:
            return await asyncio.gather(*(client.answer(submit) for submit in submits))

    return asyncio.run(talk())


def prompt(text: str, sampling: Sampling = GREEDY) -> Submit:
    return Submit(0, sampling, prompt=text, logits_digest=True)


PROMPTS = [prompt(text) for text in ("a", "What is 17 + 25?", "x" * 90, "zwölf Boxkämpfer")]
SAMPLED = [prompt("dice", Sampling(max_tokens=24, seed=seed)) for seed in (1, 2)]


def outcome(answers: list[Answer]) -> list[tuple[list[int], str, str, str]]:
    """Tokens, text, reason and logits of each; all of them must have finished."""
    done = [(a, a.finished) for a in answers if a.finished is not None]
    assert len(done) == len(answers)
    return [(a.tokens, a.text, f.reason, f.logits_digest or "") for a, f in done]


def test_splits_and_company_do_not_change_a_bit(folder: Path, ring: Ring) -> None:
    """One, two, three and four stages, alone and batched: same tokens, text and logits."""
    together = outcome(ask(ring, *PROMPTS, *SAMPLED))
    alone = [outcome(ask(ring, submit))[0] for submit in (*PROMPTS, *SAMPLED)]
    assert together == alone
    for cuts in ([], [1, 3], [1, 2, 3]):
        with Ring(folder, cuts, N_LAYERS) as other:
            assert outcome(ask(other, *PROMPTS, *SAMPLED)) == together
    assert together[-1][0] != together[-2][0]  # seeds matter


def test_more_requests_than_lanes_are_all_answered(ring: Ring) -> None:
    answers = ask(ring, *[prompt(f"request {i}") for i in range(11)])
    assert all(answer.finished is not None for answer in answers)
    assert all(len(answer.tokens) == answer.finished.n_tokens for answer in answers)
    # Computed one after another, in the head's time, however they arrived.
    assert all(answer.finished.decode_s > 0 for answer in answers if len(answer.tokens) > 1)


def test_chat_is_rendered_by_the_models_template(ring: Ring) -> None:
    messages = (ChatMessage("system", "be brief"), ChatMessage("user", "hi"))
    (answer,) = ask(ring, Submit(0, GREEDY, messages=messages))
    text = "<system\nbe brief>\n<user\nhi>\n<assistant\n"
    assert answer.prompt == [{"<": BEGIN, ">": END}.get(c, ord(c)) for c in text]


@pytest.mark.parametrize(
    ("submit", "code", "words"),
    [
        (prompt(""), "invalid_request", "empty"),
        (prompt("y" * 200), "context_length_exceeded", "200 tokens"),
        (prompt("abc", Sampling(max_tokens=126)), "context_length_exceeded", "max_tokens 126"),
        (Submit(0, GREEDY, prompt=(1, 258)), "invalid_request", "token 258"),
        (Submit(0, GREEDY, prompt=(-1,)), "invalid_request", "token -1"),
    ],
)
def test_what_cannot_be_answered_is_rejected(
    ring: Ring, submit: Submit, code: str, words: str
) -> None:
    (answer,) = ask(ring, submit)
    assert answer.rejected is not None
    assert answer.rejected.error.code == code
    assert words in answer.rejected.error.message


def test_the_context_is_filled_to_the_last_token(ring: Ring) -> None:
    (answer,) = ask(ring, prompt("abc", Sampling(temperature=0)))
    assert answer.finished is not None
    if answer.finished.reason == "length":
        assert len(answer.prompt) + len(answer.tokens) == 128


def test_a_stop_string_ends_the_answer(ring: Ring) -> None:
    (whole,) = ask(ring, prompt("What"))
    stop = whole.text[3:5]
    (cut,) = ask(ring, prompt("What", Sampling(max_tokens=24, temperature=0, stop=(stop,))))
    assert cut.finished is not None and cut.finished.reason == "stop"
    assert cut.text == whole.text[: whole.text.find(stop)]


def test_a_cancelled_request_frees_its_lane(ring: Ring) -> None:
    async def talk() -> None:
        async with ring.client() as client:
            endless = Sampling(temperature=0)
            numbers = [client.submit(prompt("go on", endless)) for _ in range(4)]
            for number in numbers:  # all four lanes are taken
                await until_tokens(client, number)
            for number in numbers:
                client.cancel(number)
            answer = await client.answer(prompt("next"))
            assert answer.finished is not None

    asyncio.run(talk())


async def until_tokens(client: Client, number: int) -> None:
    while not isinstance(await client.next(number), Tokens | Finished):
        pass


def test_a_closed_connection_frees_its_lanes(ring: Ring) -> None:
    async def talk() -> None:
        async with ring.client() as client:
            for number in [client.submit(prompt("go on", Sampling())) for _ in range(4)]:
                await until_tokens(client, number)
        async with ring.client() as client:
            answer = await client.answer(prompt("next"))
            assert answer.finished is not None

    asyncio.run(talk())


@pytest.mark.parametrize(
    "junk",
    [
        struct.pack("<I", 2**31),
        struct.pack("<I", 5) + b"junk!",
        struct.pack("<I", 1) + b"\x80",
        struct.pack("<I", 0),
    ],
)
def test_nonsense_costs_only_its_own_connection(ring: Ring, junk: bytes) -> None:
    async def talk() -> None:
        async with ring.client() as good, ring.client() as bad:
            number = bad.submit(prompt("hello", Sampling()))
            bad.send_raw(junk)
            while await bad.next(number) is not None:
                pass
            answer = await good.answer(prompt("still there?"))
            assert answer.finished is not None

    asyncio.run(talk())


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_the_death_of_any_worker_ends_the_answer_within_3_seconds(
    folder: Path, victim: int
) -> None:
    async def talk(ring: Ring) -> float:
        async with ring.client() as client:
            number = client.submit(prompt("go on", Sampling(temperature=0)))
            await until_tokens(client, number)
            ring.workers[victim].process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            while await client.next(number) is not None:
                pass
            return time.monotonic() - killed

    with Ring(folder, [1, 2], N_LAYERS, context=256) as ring:
        # The one timed assertion of this file: 3 s is what is promised, not a speed.
        assert asyncio.run(talk(ring)) < 3
        statuses = [worker.process.wait(timeout=20) for worker in ring.workers]
        assert statuses[victim] == -signal.SIGKILL
        assert all(status == 1 for i, status in enumerate(statuses) if i != victim)


def test_a_stage_tells_its_node_why_it_ends(folder: Path) -> None:
    with Ring(folder, [2], N_LAYERS) as ring:
        ring.workers[0].process.kill()
        message = ring.workers[1].expect_failure()
        assert message.error.code == "worker_lost"
        assert message.knock_on


def test_a_model_without_a_tokenizer_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    ring = Ring(make_checkpoint(tmp_path / "mute", n_layers=N_LAYERS), [], N_LAYERS)
    message = ring.workers[0].receive()
    ring.end()
    assert isinstance(message, Failed), "no progress before it"
    assert "tokenizer.json" in message.error.message


def test_a_model_with_tiktoken_model_alone_answers(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "kimi", n_layers=N_LAYERS, vocab=len(BYTES) + 256)
    make_ranks(model, BYTES)
    with Ring(model, [2], N_LAYERS) as ring:
        (answer,) = ask(ring, Submit(0, GREEDY, messages=(ChatMessage("user", "hi"),)))
        assert answer.finished is not None
    special = {text: len(BYTES) + place for place, (text, _) in SPECIALS.items()}
    user, assistant = special["<|im_user|>"], special["<|im_assistant|>"]
    middle, end = special["<|im_middle|>"], special["<|im_end|>"]
    asked = [user, *b"user", middle, *b"hi", end]
    assert answer.prompt == [*asked, assistant, *b"assistant", middle]


def test_workers_end_with_their_node(folder: Path) -> None:
    with Ring(folder, [], N_LAYERS) as ring:
        assert ring.end() == [0]
    with Ring(folder, [2], N_LAYERS) as ring:
        head, stage = ring.end()  # the stage may hear of the head's end before its node's
        assert head == 0 and stage in (0, 1)


def test_an_older_epoch_is_refused(ring: Ring) -> None:
    with pytest.raises(Exception, match="another epoch"):
        connect_hop(ring.hops[1], SECRET, EPOCH - 1, 0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nothing"), Ring(tmp_path / "nothing", [], N_LAYERS):
        pass
