"""The page at states of a cluster that are hard to bring about with real machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.web.pages import expect, running
from tests.web.scripted_node import ScriptedNode, cluster, node, split, stats, stored

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


def failed() -> Any:
    state = running(3, state="failed", reason="node-2 was lost while demo was answering")
    state["nodes"][1]["alive"] = False
    return state


def two_models() -> Any:
    nodes = [node(index, stored=[stored("demo", 8)]) for index in (1, 2, 3)]
    demo = split(nodes[:2], "demo", 8, left_out=[{"node": "n-03", "why": "its link is too slow"}])
    return cluster(nodes, [demo, split(nodes, "qwen3-30b", 48, state="loading")])


STATES: dict[str, Callable[[], Any]] = {
    "one idle node": lambda: cluster([node(1, stored=[stored("demo", 8)])], []),
    "three nodes": lambda: running(3, stats=stats(412.3, 2, 1)),
    "sixteen nodes": lambda: running(16, "kimi-k2", 61, stats=stats(21.4, 5, 3)),
    "loading": two_models,
    "failed": failed,
}


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => color.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const low = [];
  let seen = 0;
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !one.checkVisibility() || one.closest(":disabled, .unseen, .skip")) continue;
    let behind = one;
    while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] < 255) {
      behind = behind.parentElement;
    }
    const ground = light(rgb(getComputedStyle(behind ?? document.body).backgroundColor));
    const style = getComputedStyle(one);
    const text = light(rgb(one instanceof SVGElement ? style.fill : style.color));
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    seen += 1;
    if (ratio < 4.5) low.push(`${one.className.baseVal ?? one.className}: ${ratio.toFixed(2)}`);
  }
  return [seen, low];
}"""


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", STATES)
def test_all_is_legible_and_nothing_goes_wrong(
    scripted: ScriptedNode, open_page: Any, screenshot: Any, name: str, size: Any
) -> None:
    state = STATES[name]()
    scripted.show(state)
    opened = open_page(scripted.url, viewport=size)
    page = opened.page
    expect(page.locator(".node")).to_have_count(len(state["nodes"]))
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # No card is cut off or lies over another one.
    boxes = [card.bounding_box() for card in page.locator(".node").all()]
    for index, box in enumerate(boxes):
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
        for other in boxes[index + 1 :]:
            assert (
                box["x"] + box["width"] <= other["x"]
                or other["x"] + other["width"] <= box["x"]
                or box["y"] + box["height"] <= other["y"]
                or other["y"] + other["height"] <= box["y"]
            )
    where = "phone" if size is PHONE else "desktop"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        screenshot(page, f"page-{name.replace(' ', '-')}-{where}-{scheme}")
        n_seen, low = page.evaluate(CONTRAST)
        assert n_seen > 20
        assert low == [], "below the contrast of WCAG AA"
    assert opened.errors == []


def test_names_from_the_network_are_text(scripted: ScriptedNode, open_page: Any) -> None:
    evil = "<img src=/evil onerror=alert(1)>"
    state = running(2, reason=evil, state="failed")
    state["nodes"][0]["name"] = state["nodes"][0]["hardware"]["chip"] = evil
    state["nodes"][1]["api"] = "javascript:alert(1)"
    state["models"][0]["stages"][0]["why"] = evil
    scripted.show(state)
    opened = open_page(scripted.url)
    expect(opened.page.locator(".node-name").first).to_have_text(evil)
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("a[href^=javascript]").count() == 0
    assert not [url for url in opened.urls if "evil" in url]


def test_the_rope_moves_only_while_tokens_flow_and_never_for_those_who_mind(
    scripted: ScriptedNode, open_page: Any
) -> None:
    moves = "document.querySelector('.rope-flow').getAnimations().length"
    scripted.show(running(3, stats=stats(412.3, 2, 0)))
    calm = open_page(scripted.url, reduced_motion="reduce").page
    lively = open_page(scripted.url).page
    for page in (calm, lively):
        expect(page.locator(".rope[data-flowing]")).to_be_visible()
    assert lively.evaluate(moves) == 1
    assert calm.evaluate(moves) == 0
    scripted.show(running(3, stats=stats(0, 0, 0)))
    expect(lively.locator(".rope[data-flowing]")).to_have_count(0)
    assert lively.evaluate(moves) == 0


def test_a_lost_node_is_said_other_doors_are_shown_and_it_comes_back(
    scripted: ScriptedNode, open_page: Any
) -> None:
    page = open_page(scripted.url).page
    expect(page.locator(".connection")).to_have_attribute("data-connection", "live")
    scripted.stop()
    expect(page.locator(".lost")).to_be_visible()
    assert page.locator(".doors a").evaluate_all("all => all.map((a) => a.href)") == [
        "http://10.0.0.2:5454/", "http://10.0.0.3:5454/",
    ]  # fmt: skip
    page.locator("#question").fill("still here")
    scripted.start()
    expect(page.locator(".lost")).to_be_hidden()
    expect(page.locator(".connection")).to_have_attribute("data-connection", "live")
    expect(page.locator("#question")).to_have_value("still here")


def test_a_prediction_stands_beside_the_measurement(scripted: ScriptedNode, open_page: Any) -> None:
    told = running(2, prediction={"decode_tps": 21.04, "error": 0.12, "scale": 1.0})
    scripted.show(told)
    pace = open_page(scripted.url).page.locator(".model .model-facts").nth(1)
    expect(pace).to_have_text("one answer: 21 tok/s ± 12 % predicted")
    told["models"][0]["stats"]["decode_tps"] = 19.96
    scripted.show(told)
    expect(pace).to_have_text("one answer: 21 tok/s ± 12 % predicted, 20 tok/s measured")


def test_where_events_do_not_work_the_page_asks(scripted: ScriptedNode, open_page: Any) -> None:
    page = open_page("about:blank").page
    page.route("**/cluster/events", lambda route: route.fulfill(status=502, body="no"))
    page.goto(scripted.url)
    expect(page.locator(".connection")).to_have_attribute("data-connection", "polling")
    scripted.show(running(4))
    expect(page.locator(".node")).to_have_count(4)


def test_a_model_is_loaded_and_a_refusal_is_explained(
    scripted: ScriptedNode, open_page: Any
) -> None:
    nodes = [node(index, stored=[stored("demo", 8)]) for index in (1, 2)]
    scripted.show(cluster(nodes, []))
    page = open_page(scripted.url).page
    scripted.failure = (507, {
        "code": "does_not_fit", "message": "`demo` needs 142 GiB", "hint": "add a machine",
    })  # fmt: skip
    page.get_by_label("spread over all nodes").check()
    page.get_by_role("button", name="Load demo").click()
    alert = page.locator(".stored [role=alert]")
    expect(alert).to_contain_text("`demo` needs 142 GiB")
    expect(alert).to_contain_text("add a machine")
    scripted.failure = None
    page.get_by_role("button", name="Load demo").click()
    expect(alert).to_be_hidden()
    expected = ("POST", "/cluster/models", {"model": "demo", "spread": True})
    assert scripted.requests == [expected, expected]


def test_a_plan_can_be_seen_before_anything_is_loaded(
    scripted: ScriptedNode, open_page: Any
) -> None:
    nodes = [node(index, stored=[stored("demo", 8)]) for index in (1, 2)]
    scripted.show(cluster(nodes, []))
    head = {"node": "n-01", "role": "head", "span": [0, 8], "why": "fits on one node"}
    scripted.plan["stages"] = [head]
    scripted.plan["left_out"] = [{"node": "n-02", "why": "would only slow it down"}]
    scripted.plan["prediction"] = {"decode_tps": 21.4, "error": 0.12, "scale": 1.0}
    page = open_page(scripted.url).page
    page.get_by_role("button", name="Show what loading demo would do").click()
    rows = page.get_by_label("What loading demo would do", exact=True).get_by_role("listitem")
    expect(rows).to_have_text(
        ["node-1[0, 8)fits on one node", "node-2left outwould only slow it down"]
    )
    expect(page.locator(".stored")).to_contain_text("one answer: 21.4 tok/s ± 12 % predicted")
    page.get_by_label("spread over all nodes").check()
    expect(page.get_by_role("button", name="Show what loading demo would do")).to_be_enabled()
    asked = [path for _, path, _ in scripted.requests]
    assert asked == ["/cluster/plan?model=demo&spread=0", "/cluster/plan?model=demo&spread=1"]


def test_a_failed_model_can_be_loaded_again(scripted: ScriptedNode, open_page: Any) -> None:
    scripted.show(failed())
    page = open_page(scripted.url).page
    page.get_by_role("button", name="Load again").click()
    expect(page.get_by_role("button", name="Load again")).to_be_enabled()
    expected = ("POST", "/cluster/models", {"model": "demo", "spread": True})
    assert scripted.requests == [expected]


def test_unloading_is_asked_twice(scripted: ScriptedNode, open_page: Any) -> None:
    page = open_page(scripted.url).page
    page.get_by_role("button", name="Unload", exact=True).click()
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    scripted.show(running(3, stats=stats(1.0, 1, 0)))  # a new state leaves the question open
    expect(page.locator(".active")).to_have_text("1")
    page.get_by_role("button", name="Unload demo now").click()
    expect(page.get_by_role("button", name="Unload demo now")).to_be_enabled()
    assert scripted.requests == [("DELETE", "/cluster/models/demo", None)]


def test_the_theme_is_kept(scripted: ScriptedNode, open_page: Any) -> None:
    page = open_page(scripted.url, color_scheme="light").page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    toggle = page.locator(".theme")
    expect(toggle).to_have_attribute("aria-label", "Theme: auto")
    toggle.click()
    assert page.evaluate(ground) == light
    toggle.click()
    expect(toggle).to_have_attribute("aria-label", "Theme: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
