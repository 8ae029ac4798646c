"""What tests of the page share: a cluster's state, what is expected of a page, a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.web.scripted_node import Json, cluster, node, split, stored

if TYPE_CHECKING:
    from playwright.sync_api import Page


def running(n_nodes: int, model: str = "demo", n_layers: int = 8, **changes: Any) -> Json:
    """A cluster whose nodes share one model; `changes` are fields of the model."""
    nodes = [node(index, stored=[stored("demo", 8)]) for index in range(1, n_nodes + 1)]
    return cluster(nodes, [split(nodes, model, n_layers, **changes)])


def expect(target: Any) -> Any:
    """Playwright's `expect`, imported by those tests only that have a browser."""
    from playwright.sync_api import expect

    return expect(target)


def ask(page: Page, question: str) -> None:
    """Type a question and send it."""
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")
