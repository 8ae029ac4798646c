"""A model's language: chat templates as `transformers` renders them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gangline.checkpoint.model import open_checkpoint
from gangline.errors import CheckpointError, UsageError
from gangline.head.requests import ChatMessage, Sampling, Submit
from gangline.head.text import Language
from gangline.paths import demo_model
from tests.make_tokenizer import END, VOCABULARY, make_tokenizer

FIXTURE = Path(__file__).parents[1] / "fixtures" / "demo_chat.json"  # tools/record_demo_logits.py


@pytest.fixture(scope="module")
def demo() -> Language:
    shape = open_checkpoint(demo_model()).shape
    return Language(demo_model(), shape.vocab, frozenset(shape.eos_ids))


def submit(*messages: ChatMessage) -> Submit:
    return Submit(0, Sampling(), messages=messages)


def test_chats_are_rendered_and_tokenized_as_by_transformers(demo: Language) -> None:
    chats = [
        chat
        for chat in json.loads(FIXTURE.read_text(encoding="utf-8"))["chats"]
        if chat["add_generation_prompt"]
    ]
    assert len(chats) >= 4
    for chat in chats:
        messages = tuple(ChatMessage(**message) for message in chat["messages"])
        assert demo.render(messages) == chat["text"]
        assert demo.prompt_ids(submit(*messages)) == chat["ids"]


# What templates of published models use, and what transformers 5.23 makes of it.
FEATURES = [
    ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi<é>!"),
    ("{{ messages[0].content | tojson }}", '"hi<é>"'),
    ("{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true) }}",
     '{"a": "\\u00e9", "b": 1}'),
    ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
    ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
    ("{% for n in [1, 2, 3, 4] %}{% if n == 2 %}{% continue %}{% endif %}{% if n == 4 %}{% break %}"
     "{% endif %}{{ n }}{% endfor %}", "13"),
    ("{% set ns = namespace(last=0) %}{% for n in [1, 5] %}{% set ns.last = n %}{% endfor %}"
     "{{ ns.last }}", "5"),
    ("{% macro twice(x, and=none) %}{{ x }}{{ x }}{% endmacro %}{{ twice('a') }}", "aa"),
    ("{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}", "TrueTrueFalse"),
    ("{{ strftime_now('%Y') | length }}", "4"),
    ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), FEATURES)
def test_what_published_templates_use(tmp_path: Path, template: str, expected: str) -> None:
    language = Language(make_tokenizer(tmp_path, template), VOCABULARY, frozenset())
    assert language.render([ChatMessage("user", "hi<é>")]) == expected


def test_a_template_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    """chat_template.json beside models that see, chat_template.jinja of late, which wins."""
    make_tokenizer(tmp_path, None)
    message = [ChatMessage("user", "hi")]
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "older"}))
    assert Language(tmp_path, VOCABULARY, frozenset()).render(message) == "older"
    (tmp_path / "chat_template.jinja").write_text("newer")
    assert Language(tmp_path, VOCABULARY, frozenset()).render(message) == "newer"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"chat_template\.json cannot be read"):
        Language(tmp_path, VOCABULARY, frozenset())


def test_the_demo_model_ends_its_turns(demo: Language) -> None:
    assert demo.end_tokens and all(demo.decode([token]) == "" for token in demo.end_tokens)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[99].content }}", "no element 99"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_a_template_that_fails_is_the_requests_error(
    tmp_path: Path, template: str, words: str
) -> None:
    """Among them attempts to leave the sandbox."""
    language = Language(make_tokenizer(tmp_path, template), VOCABULARY, frozenset())
    with pytest.raises(UsageError, match=words):
        language.prompt_ids(submit(ChatMessage("user", "hi")))


def test_a_template_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, "{% if %}")
    with pytest.raises(CheckpointError, match="chat template"):
        Language(tmp_path, VOCABULARY, frozenset())


def test_without_a_template_prompts_still_work(tmp_path: Path) -> None:
    language = Language(make_tokenizer(tmp_path, None), VOCABULARY, frozenset())
    assert language.end_tokens == {END}
    assert language.prompt_ids(Submit(0, Sampling(), prompt="hé")) == [104, 195, 169]
    with pytest.raises(UsageError, match="no chat template"):
        language.prompt_ids(submit(ChatMessage("user", "hi")))


def test_files_of_different_models_are_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"has 258 tokens, the model.s weights are for 100"):
        Language(tmp_path, 100, frozenset())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Language(tmp_path, VOCABULARY, frozenset())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        Language(tmp_path, VOCABULARY, frozenset())
