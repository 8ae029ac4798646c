"""The page of a real demo: three node processes, the bundled model, a real browser."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.pages import ask, expect

pytestmark = [pytest.mark.browser, pytest.mark.cluster]

ROOT = Path(__file__).parents[2]
PAGE = "the page: "  # how `gangline demo` says where it is
START_S = 120.0
END_S = 20.0
SLOW_BYTES_PER_S = 16_000  # about 60 chunks of an answer


@pytest.fixture(scope="module")
def demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page of `gangline demo --nodes 3`; asks for a browser first."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "gangline", "demo", "--nodes", "3", "--no-browser"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(home / "demo.log").open("wb"),
        env=os.environ | {"GANGLINE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert process.stdout is not None
    guard = threading.Timer(START_S, process.kill)  # reading its output has no time limit
    guard.start()
    try:
        lines = iter(process.stdout.readline, "")
        url = next((line.removeprefix(PAGE).strip() for line in lines if line.startswith(PAGE)), "")
        guard.cancel()
        assert url, (home / "demo.log").read_text()
        yield url
    finally:
        guard.cancel()
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        try:
            process.wait(END_S)
        finally:
            process.kill()
            process.stdout.close()


def assert_quiet(opened: Any, url: str) -> None:
    """Every request went to the node, and the console has nothing to say."""
    assert opened.urls and all(one.startswith(f"{url}/") for one in opened.urls), opened.urls
    assert opened.errors == []


def test_the_cluster_is_drawn(demo: str, open_page: Any) -> None:
    opened = open_page(demo)
    page = opened.page
    cards = page.locator(".hitched .node")
    expect(cards).to_have_count(3)
    assert sorted(page.locator(".hitched .node-name").all_text_contents()) == [
        "node-1", "node-2", "node-3",
    ]  # fmt: skip
    expect(page.locator(".node-place")).to_have_text(["head", "stage 1", "stage 2"])
    # The spans shown are a partition of the model's eight layers.
    shown = page.locator(".worker-held").all_text_contents()
    bounds = [tuple(map(int, text.strip("[").split(")")[0].split(","))) for text in shown]
    assert bounds[0][0] == 0 and bounds[-1][1] == 8
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    expect(page.locator(".rope .rope-body")).to_have_count(3)  # two hops and the way back
    expect(page.locator(".node[data-state=ready]")).to_have_count(3)
    assert_quiet(opened, demo)


def test_a_question_is_asked_with_the_keyboard_alone(
    demo: str, open_page: Any, screenshot: Any
) -> None:
    for_docs = bool(os.environ.get("GANGLINE_SCREENSHOT"))
    opened = open_page(demo, device_scale_factor=2 if for_docs else 1)
    page = opened.page
    broken: list[str] = []
    page.on("requestfailed", lambda request: broken.append(request.url))
    expect(page.locator("#chat[data-ready]")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("What is 17 + 25?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_contain_text("42")
    expect(page.locator(".measured [data-kind=ttft]")).to_contain_text("to first token")
    expect(page.locator(".measured [data-kind=rate]")).to_contain_text("tok/s")
    expect(page.locator(".measured [data-kind=nodes]")).to_contain_text("node-1")
    # More questions, with the first as their history.
    for index, question in enumerate(("Spell sled", "What is Gangline?"), start=1):
        expect(page.locator("#question")).to_be_focused()
        page.keyboard.type(question)
        page.keyboard.press("Enter")
        expect(page.locator(".turn").nth(index).locator(".measured")).to_contain_text("tok/s")
    assert_quiet(opened, demo)
    assert broken == [], "an answer that came whole is no aborted request"
    page.emulate_media(color_scheme="dark")
    screenshot(page, "page-dark")
    page.emulate_media(color_scheme="light")
    screenshot(page, "page")
    if for_docs:
        page.screenshot(path=ROOT / "docs" / "page.png")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_a_long_answer_can_be_stopped(demo: str, open_page: Any, how: str) -> None:
    opened = open_page(demo)
    page = opened.page
    # A slow link, so that the answer cannot have arrived whole before it is stopped.
    network = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 0, "uploadThroughput": -1}
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions", {**conditions, "downloadThroughput": SLOW_BYTES_PER_S}
    )
    page.get_by_role("button", name="Tell me a long story").click()
    expect(page.locator(".answer p").first).to_be_visible()
    if how == "button":
        page.get_by_role("button", name="Stop the answer").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".measured [data-kind=stopped]")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    network.send("Network.emulateNetworkConditions", {**conditions, "downloadThroughput": -1})
    # The lane is free, and the next answer is whole.
    expect(page.locator(".numbers .active")).to_have_text("0")
    ask(page, "What is 17 + 25?")
    expect(page.locator(".turn").nth(1).locator(".measured [data-kind=tokens]")).to_be_visible()
    assert_quiet(opened, demo)


def test_dark_and_light_are_two(demo: str, open_page: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = open_page(demo, color_scheme="light").page.evaluate(ground)
    dark = open_page(demo, color_scheme="dark").page.evaluate(ground)
    brightness = [sum(map(int, color.strip("rgb()").split(","))) for color in (light, dark)]
    assert brightness[0] > 3 * 220 and brightness[1] < 3 * 40


def test_a_phone_shows_all_of_it(demo: str, open_page: Any, screenshot: Any) -> None:
    opened = open_page(demo, viewport={"width": 390, "height": 844}, has_touch=True)
    page = opened.page
    expect(page.locator(".hitched .node")).to_have_count(3)
    screenshot(page, "page-phone")
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("button", name="What is 17 + 25?").tap()
    expect(page.locator(".answer")).to_contain_text("42")
    expect(page.locator(".measured")).to_contain_text("tok/s")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "page-phone-chat")
    assert_quiet(opened, demo)
