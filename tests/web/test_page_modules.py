"""The page's pure modules, run in the browser for which they are written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.web.scripted_node import ScriptedNode, cluster, node, split, stats, stored

pytestmark = pytest.mark.browser

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(browser: Any) -> Iterator[Run]:
    """`run(module, expression, *arguments)`: evaluates with `m` as the module and `a` the rest."""
    served = ScriptedNode(cluster([node(1)], []))
    served.start()
    page = browser.new_page()
    page.goto(f"{served.url}/web/icon.svg")  # an empty page of the same origin

    def evaluate(module: str, expression: str, *arguments: Any) -> Any:
        code = f"async ([path, a]) => {{ const m = await import(path); return {expression}; }}"
        return page.evaluate(code, [f"{served.url}/web/{module}", list(arguments)])

    yield evaluate
    page.close()
    served.stop()


def examples(count: int) -> settings:
    """Settings of a property; the browser that evaluates it may take its time."""
    return settings(max_examples=count, deadline=None)


# --- stream.js -----------------------------------------------------------------------------------

COLLECT = """(async () => {
  const body = new ReadableStream({ start(controller) {
    for (const part of a[0]) controller.enqueue(new Uint8Array(part));
    controller.close();
  } });
  const found = [];
  for await (const event of m.events(body)) found.push([event.type, event.data]);
  return found;
})()"""

line_ends = st.sampled_from(["\n", "\r", "\r\n"])
texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@st.composite
def event_streams(draw: st.DrawFn) -> tuple[list[list[int]], list[list[str]]]:
    """Bytes of a stream, cut anywhere, and the events in it."""
    stream, expected = "", []
    for _ in range(draw(st.integers(0, 5))):
        end = draw(line_ends)
        if draw(st.booleans()):
            stream += f": {draw(texts)}{end}"
        kind = draw(st.sampled_from(["message", "state"]))
        if kind != "message":
            stream += f"event: {kind}{end}"
        data = draw(st.lists(texts, min_size=1, max_size=3))
        stream += "".join(f"data: {line}{end}" for line in data) + end
        expected.append([kind, "\n".join(data)])
    # Without this, a stream that ends in "\r" leaves the parser waiting for a "\n".
    raw = (stream + ":\n").encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    bounds = [0, *cuts, len(raw)]
    return [list(raw[a:b]) for a, b in itertools.pairwise(bounds)], expected


@examples(150)
@given(event_streams())
def test_events_do_not_depend_on_where_chunks_end(
    run: Run, case: tuple[list[list[int]], list[list[str]]]
) -> None:
    parts, expected = case
    assert run("stream.js", COLLECT, parts) == expected


def test_an_event_that_is_not_complete_is_not_an_event(run: Run) -> None:
    expression = "m.eventParser().push(a[0])"
    assert run("stream.js", expression, "data: whole\n\ndata: half\n") == [
        {"type": "message", "data": "whole"}
    ]


# --- markdown.js ---------------------------------------------------------------------------------

RENDER = """(async () => {
  const box = document.createElementNS("http://www.w3.org/1999/xhtml", "div");
  for (const text of a) m.render(box, text);
  return [box.innerHTML, [...box.querySelectorAll("*")].map((one) => one.localName)];
})()"""

MARKDOWN = [
    ("plain", ["p"], "plain"),
    ("one\n\ntwo", ["p", "p"], "onetwo"),
    ("**bold** and `code`", ["p", "strong", "code"], "bold and code"),
    ("2 * 3 * 4 and a ** b", ["p"], "2 * 3 * 4 and a ** b"),
    ("```python\nprint(1)\n```\nafter", ["pre", "code", "p"], "print(1)after"),
    ("```\nstill **open**", ["pre", "code"], "still **open**"),
    ("~~~\n```\n~~~", ["pre", "code"], "```"),
    ("``a ` b``", ["p", "code"], "a ` b"),
    ("<img src=x onerror=alert(1)>", ["p"], "<img src=x onerror=alert(1)>"),
    ("```\n</code></pre><b>x</b>\n```", ["pre", "code"], "</code></pre><b>x</b>"),
    ("**<i>x</i>** `<u>`", ["p", "strong", "code"], "<i>x</i> <u>"),
]


@pytest.mark.parametrize(("source", "tags", "text"), MARKDOWN, ids=lambda value: str(value)[:20])
def test_markdown_becomes_nodes_and_never_markup(
    run: Run, source: str, tags: list[str], text: str
) -> None:
    markup, made = run("markdown.js", RENDER, source)
    assert made == tags
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert "".join(part.split(">", 1)[1] for part in markup.split("<")[1:]) == escaped


@examples(60)
@given(st.text(alphabet="ab`*~ \n<>", max_size=40), st.integers(1, 9))
def test_an_answer_that_grew_looks_like_one_that_came_whole(run: Run, text: str, step: int) -> None:
    grown = [text[:end] for end in range(0, len(text), step)] + [text]
    assert run("markdown.js", RENDER, *grown) == run("markdown.js", RENDER, text)


# --- format.js -----------------------------------------------------------------------------------

FORMATS = [
    ("bytes", 0, "0 B"),
    ("bytes", 11_000_000, "10.5 MiB"),
    ("bytes", 25_000_000_000, "23.3 GiB"),
    ("bytes", 128 * 2**30, "128 GiB"),
    ("bytes", 1000 * 2**30, "0.98 TiB"),
    ("milliseconds", 9.13, "9.1 ms"),
    ("milliseconds", 0.42, "0.42 ms"),
    ("milliseconds", 1340, "1.3 s"),
    ("microseconds", 31, "31 µs"),
    ("microseconds", 4800, "4.8 ms"),
    ("gigabits", 22.14, "22.1 Gb/s"),
    ("gigabits", 0.3, "300 Mb/s"),
    ("rate", 410.2, "410 tok/s"),
    ("rate", 7.94, "7.9 tok/s"),
    ("rate", 0, "0 tok/s"),
    ("percent", 0.432, "43 %"),
]


@pytest.mark.parametrize(("name", "value", "text"), FORMATS)
def test_numbers_carry_their_unit(run: Run, name: str, value: float, text: str) -> None:
    assert run("format.js", "m[a[0]](a[1])", name, value) == text


@pytest.mark.parametrize("name", sorted({name for name, _, _ in FORMATS} | {"figure"}))
def test_not_measured_is_never_a_number(run: Run, name: str) -> None:
    assert run("format.js", "[m[a[0]](null), m[a[0]](undefined), m[a[0]](NaN)]", name) == ["–"] * 3


# --- geometry.js ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [300, 390, 760, 1216, 1900])
def test_every_card_has_its_own_cell_beside_the_one_before(run: Run, width: int) -> None:
    for count in range(1, 17):
        columns = run("geometry.js", "m.columnsFor(a[0], a[1], 160)", count, width)
        cells = run(
            "geometry.js", "Array.from({length: a[0]}, (_, i) => m.cellOf(i, a[1]))", count, columns
        )
        places = [(cell["row"], cell["column"]) for cell in cells]
        assert len(set(places)) == count
        assert all(1 <= column <= columns for _, column in places)
        # The rope is one line: each card is next to, or right below, the one before it.
        for (row, column), (next_row, next_column) in itertools.pairwise(places):
            assert abs(next_row - row) + abs(next_column - column) == 1


def test_the_rope_has_a_hop_between_all_neighbours_and_one_back(run: Run) -> None:
    boxes = [{"x": 20 + 200 * i, "y": 62, "width": 180, "height": 120} for i in range(4)]
    rope = run("geometry.js", "m.ropePast(a[0], 4, 840)", boxes)
    assert len(rope["knots"]) == 4
    assert len(rope["hops"]) == 3
    assert rope["back"] is not None
    assert run("geometry.js", "m.ropePast(a[0], 1, 840)", boxes[:1]) == {
        "knots": [], "hops": [], "back": None,
    }  # fmt: skip


# --- state.js ------------------------------------------------------------------------------------


def three_nodes() -> Any:
    nodes = [node(index, stored=[stored("demo", 8)]) for index in (1, 2, 10)]
    return cluster(nodes, [split(nodes, "demo", 8, stats=stats(412.0, 2, 1))])


VIEW = "m.clusterView(a[0], m.followed(a[0], a[1] ?? ''))"


def test_nodes_stand_in_stage_order_with_hops_between_them(run: Run) -> None:
    state = three_nodes()
    state["models"][0]["stages"].reverse()
    view = run("state.js", VIEW, state)
    assert [one["name"] for one in view["hitched"]] == ["node-10", "node-2", "node-1"]
    assert [(hop["from"], hop["to"]) for hop in view["hops"]] == [
        ("n-10", "n-02"), ("n-02", "n-01"), ("n-01", "n-10"),
    ]  # fmt: skip
    assert [hop["isReturn"] for hop in view["hops"]] == [False, False, True]
    assert view["tokensPerS"] == 412.0 and view["isFlowing"]


def test_a_round_trip_may_be_known_from_the_other_end_but_bandwidth_may_not(run: Run) -> None:
    state = three_nodes()
    state["nodes"][0]["links"] = []
    state["nodes"][1]["links"].append({"to": "n-01", "rtt_us": 44.0, "gbps": 9.0})
    first = run("state.js", VIEW, state)["hops"][0]
    assert (first["rttUs"], first["gbps"]) == (44.0, None)


def test_nodes_without_layers_are_apart_and_say_why(run: Run) -> None:
    state = three_nodes()
    state["nodes"].append(node(4))
    state["models"][0]["left_out"] = [{"node": "n-04", "why": "too slow a link"}]
    view = run("state.js", VIEW, state)
    assert [(one["name"], one["note"]) for one in view["apart"]] == [("node-4", "too slow a link")]


def test_a_dead_node_stays_on_the_rope_and_cuts_its_hops(run: Run) -> None:
    state = three_nodes()
    state["nodes"][1]["alive"] = False
    state["models"][0]["state"] = "failed"
    view = run("state.js", VIEW, state)
    assert [one["state"] for one in view["hitched"]] == ["ready", "gone", "ready"]
    assert [hop["broken"] for hop in view["hops"]] == [True, True, False]
    assert view["tokensPerS"] is None and not view["isTaut"]


def test_a_node_that_nobody_knows_any_more_is_drawn_all_the_same(run: Run) -> None:
    state = three_nodes()
    del state["nodes"][1]
    view = run("state.js", VIEW, state)
    assert [(one["name"], one["alive"]) for one in view["hitched"]][1] == ("n-02", False)


@examples(60)
@given(st.integers(1, 16), st.integers(16, 128))
def test_the_strip_has_every_layer_exactly_once(run: Run, n_nodes: int, n_layers: int) -> None:
    nodes = [node(index) for index in range(1, n_nodes + 1)]
    state = cluster(nodes, [split(nodes, "some", n_layers)])
    runs = run("state.js", "m.modelViews(a[0])[0].segments", state)
    assert [layer for one in runs for layer in range(one["start"], one["end"])] == list(
        range(n_layers)
    )
    assert [one["node"] for one in runs] == [one["id"] for one in nodes]


def test_only_models_that_do_not_run_can_be_loaded(run: Run) -> None:
    state = three_nodes()
    state["nodes"][0]["stored"].append(stored("other", 28))
    state["nodes"][2]["stored"].append(stored("other", 28))
    state["nodes"].reverse()  # nodes come ordered by id, not by name
    found = run("state.js", "m.loadable(a[0])", state)
    assert [(one["id"], one["on"]) for one in found] == [("other", ["node-1", "node-10"])]


def test_doors_lead_to_live_nodes_that_can_be_reached_from_here(run: Run) -> None:
    state = three_nodes()
    state["nodes"][1]["api"] = "http://127.0.0.1:5456"
    state["nodes"].append(node(4, alive=False))
    state["nodes"].append(node(5, api="javascript:alert(1)"))
    names = "m.otherDoors(a[0], a[1]).map((door) => door.name)"
    assert run("state.js", names, state, "http://127.0.0.1:5454") == ["node-2", "node-10"]
    assert run("state.js", names, state, "http://10.0.0.1:5454") == ["node-10"]


def test_nodes_of_one_machine_do_not_count_its_memory_twice(run: Run) -> None:
    state = cluster([node(4), node(8), node(3)], [])
    for index, one in enumerate(state["nodes"][:2]):
        one["api"] = f"http://127.0.0.1:{5454 + index}"
        one["hardware"]["free_bytes"] = 100 + index
    state["nodes"][2]["hardware"]["free_bytes"] = 7
    assert run("state.js", "m.freeBytes(a[0])", state) == 107


def test_the_model_asked_for_is_followed_else_the_liveliest(run: Run) -> None:
    state = three_nodes()
    state["models"].insert(0, split(state["nodes"], "big", 48, state="loading"))
    chosen = "m.followed(a[0], a[1])?.id ?? null"
    assert run("state.js", chosen, state, "") == "demo"
    assert run("state.js", chosen, state, "big") == "big"
    assert run("state.js", chosen, state, "gone") == "demo"
    assert run("state.js", chosen, cluster([node(1)], []), "") is None


# --- ask.js --------------------------------------------------------------------------------------


def test_turns_without_an_answer_are_not_sent_again(run: Run) -> None:
    turns = [
        {"question": "one", "answer": "1", "error": None},
        {"question": "broken", "answer": "half", "error": {"message": "lost"}},
        {"question": "stopped early", "answer": "", "error": None},
    ]
    messages = run("ask.js", "m.messagesFor(a[0], a[1], a[2])", "Be kind.", turns, "two")
    assert [(one["role"], one["content"]) for one in messages] == [
        ("system", "Be kind."), ("user", "one"), ("assistant", "1"), ("user", "two"),
    ]  # fmt: skip


def test_settings_that_are_empty_are_not_sent(run: Run) -> None:
    request = "Object.keys(m.requestFor('demo', [], a[0])).sort()"
    always = ["messages", "model", "stream", "stream_options"]
    assert run("ask.js", request, {"temperature": None, "maxTokens": None}) == always
    full = run("ask.js", request, {"temperature": 0, "maxTokens": 5})
    assert full == sorted([*always, "temperature", "max_tokens"])


def test_a_scripted_state_has_no_field_that_no_node_sends() -> None:
    with pytest.raises(AssertionError, match="colour"):
        cluster([node(1) | {"colour": "red"}], [])
