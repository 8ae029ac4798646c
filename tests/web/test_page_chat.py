"""The page's conversation: questions, answers that come, break or are followed, and history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.web.pages import ask, expect
from tests.web.scripted_node import Json, ScriptedNode, answer, chunk

pytestmark = pytest.mark.browser


def ask_and_wait(scripted: ScriptedNode, open_page: Any, chunks: Iterable[Json]) -> Any:
    """A page that has asked; the last chunk of the answer waits until `holding` is set."""
    scripted.chunks = list(chunks)
    scripted.holding.clear()
    page = open_page(scripted.url).page
    ask(page, "Count")
    return page


def test_the_rope_moves_as_soon_as_the_first_token_of_this_page_arrives(
    scripted: ScriptedNode, open_page: Any
) -> None:
    page = ask_and_wait(scripted, open_page, answer("one two", ["n-01"]))
    expect(page.locator(".rope[data-flowing]")).to_be_visible()
    scripted.holding.set()
    expect(page.locator(".rope[data-flowing]")).to_have_count(0)


def test_an_answer_that_breaks_says_so_in_place_and_can_be_tried_again(
    scripted: ScriptedNode, open_page: Any
) -> None:
    lost = {"error": {"message": "node-2 was lost", "code": "worker_lost", "type": "server_error"}}
    scripted.chunks = [chunk("Once upon "), lost]
    page = open_page(scripted.url).page
    ask(page, "Tell me a story")
    turn = page.locator(".turn")
    expect(turn.locator(".failure")).to_contain_text("node-2 was lost")
    expect(turn.locator(".answer")).to_contain_text("Once upon")
    scripted.chunks = list(answer("All is well.", ["n-01", "n-02"]))
    turn.get_by_role("button", name="Try again").click()
    expect(turn).to_have_count(1)
    expect(turn.locator(".answer")).to_contain_text("All is well.")
    expect(turn.locator(".failure")).to_be_hidden()
    expect(turn.locator(".measured")).to_contain_text("node-1 → node-2")
    bodies = [body for _, path, body in scripted.requests if path.startswith("/v1/")]
    assert [one["content"] for one in bodies[-1]["messages"]] == ["Tell me a story"]


def test_history_is_sent_and_the_last_question_can_be_edited(
    scripted: ScriptedNode, open_page: Any
) -> None:
    scripted.chunks = list(answer("Yes.", ["n-01"]))
    page = open_page(scripted.url).page
    for question in ("First?", "Second?"):
        ask(page, question)
        expect(page.locator(".turn").last.locator(".measured")).to_contain_text("410 tok/s")
    sent = [one["content"] for one in scripted.requests[-1][2]["messages"]]
    assert sent == ["First?", "Yes. ", "Second?"]
    page.get_by_role("button", name="Edit the question").click()
    expect(page.locator("#question")).to_have_value("Second?")
    expect(page.locator("#question")).to_be_focused()
    expect(page.locator(".turn")).to_have_count(1)
    page.get_by_role("button", name="New chat").first.click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".empty")).to_be_visible()


def test_a_conversation_outlives_a_reload_until_a_new_chat(
    scripted: ScriptedNode, open_page: Any, screenshot: Any
) -> None:
    scripted.chunks = list(answer("Yes.", ["n-01"]))
    page = open_page(scripted.url, viewport={"width": 390, "height": 844}).page
    ask(page, "First?")
    expect(page.locator(".measured")).to_contain_text("410 tok/s")
    page.reload()
    turn = page.locator(".turn")
    expect(turn.locator(".question")).to_have_text("First?")
    expect(turn.locator(".answer")).to_have_text("Yes.")
    expect(turn.locator(".measured")).to_contain_text("410 tok/s")
    page.locator("#question").scroll_into_view_if_needed()
    screenshot(page, "reloaded-phone")
    ask(page, "Second?")
    expect(page.locator(".measured").last).to_contain_text("410 tok/s")
    sent = [one["content"] for one in scripted.requests[-1][2]["messages"]]
    assert sent == ["First?", "Yes. ", "Second?"]
    page.get_by_role("button", name="New chat").first.click()
    page.reload()
    expect(page.locator(".empty")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(0)


def test_an_answer_that_a_reload_cuts_is_kept_as_stopped(
    scripted: ScriptedNode, open_page: Any
) -> None:
    page = ask_and_wait(scripted, open_page, answer("one two", ["n-01"]))
    expect(page.locator(".answer")).to_contain_text("one two")
    page.reload()
    scripted.holding.set()
    expect(page.locator(".answer")).to_contain_text("one two")
    expect(page.locator(".measured")).to_contain_text("stopped")


def test_settings_out_of_range_are_bounded_and_said(
    scripted: ScriptedNode, open_page: Any, screenshot: Any
) -> None:
    scripted.chunks = list(answer("Yes.", ["n-01"]))
    page = open_page(scripted.url).page
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("5")
    page.get_by_label("Longest answer, tokens").focus()
    said = page.locator(".settings-bounded")
    expect(said).to_have_text("Temperature goes from 0 to 2: 5 became 2.")
    expect(page.get_by_label("Temperature")).to_have_value("2")
    screenshot(page, "settings-bounded")
    page.get_by_label("Longest answer, tokens").fill("0")
    ask(page, "Well?")
    expect(page.locator(".measured")).to_contain_text("410 tok/s")
    body = scripted.requests[-1][2]
    assert (body["temperature"], body["max_tokens"]) == (2, 1)
    page.get_by_label("Temperature").fill("0.75")
    page.get_by_label("Longest answer, tokens").focus()
    expect(said).to_be_hidden()


def test_the_answer_is_followed_only_by_those_who_are_at_its_end(
    scripted: ScriptedNode, open_page: Any
) -> None:
    lines = [chunk(f"line {number}\n\n") for number in range(60)]
    page = ask_and_wait(scripted, open_page, [*lines, *answer("The end.", ["n-01"])])
    log = page.locator(".log")
    from_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    expect(page.locator(".answer")).to_contain_text("The end.")
    assert log.evaluate(from_end) < 48
    log.evaluate("log => { log.scrollTop = 0; }")
    scripted.holding.set()
    expect(page.locator(".measured")).to_contain_text("410 tok/s")
    assert log.evaluate("log => log.scrollTop") == 0


def test_the_live_region_speaks_once_and_not_per_token(
    scripted: ScriptedNode, open_page: Any
) -> None:
    page = ask_and_wait(scripted, open_page, answer("one two three four", ["n-01"]))
    expect(page.locator(".answer")).to_contain_text("four")
    expect(page.locator(".spoken")).to_have_text("Answering.")
    assert page.locator(".turn [aria-live], .log[aria-live]").count() == 0
    scripted.holding.set()
    expect(page.locator(".spoken")).to_have_text("one two three four")
