"""Real Chromium for the page's tests; where there is none, they are skipped and say so.

The browser lives as long as one test module: Playwright's loop runs in this thread, and other
modules want to run loops of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.pages import running
from tests.web.scripted_node import ScriptedNode

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium itself must be quiet too: the tests say that no request leaves the node.
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
TIMEOUT_MS = 20_000

OUTPUT = Path(__file__).parents[2] / "test-output"


class Opened:
    """A page with what it did: every request, and everything that went wrong."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.urls: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = os.environ.get("GANGLINE_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if found is None:
        pytest.skip(f"no Chromium found (looked for {', '.join(NAMES)}); set GANGLINE_CHROMIUM")
    api.expect.set_options(timeout=TIMEOUT_MS)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a URL in a profile of its own; keywords are Playwright's context options."""
    contexts = []

    def open_url(url: str, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.goto(url)
        if url.startswith("http"):
            opened.page.wait_for_selector("body[data-loaded]")
        return opened

    yield open_url
    for context in contexts:
        context.close()


@pytest.fixture
def scripted() -> Iterator[ScriptedNode]:
    """A node that shows what a test tells it to: at first three nodes with a model."""
    made = ScriptedNode(running(3))
    made.start()
    yield made
    made.holding.set()
    made.stop()


@pytest.fixture
def screenshot() -> Callable[[Page, str], None]:
    """Saves what the page looks like to `test-output/` (which git ignores)."""

    def save(page: Page, name: str) -> None:
        OUTPUT.mkdir(exist_ok=True)
        page.screenshot(path=OUTPUT / f"{name}.png")

    return save
