"""The held-out questions of the demo model, and what counts as a right answer.

`train_demo.py` watches its progress on them, `eval_demo.py` asks them. Standard library only.
"""

import random
import re
from dataclasses import dataclass

from tools import demo_corpus as corpus
from tools import demo_facts as facts
from tools import demo_scope as scope
from tools import demo_talk as talk
from tools.demo_text import (
    capital_first,
    invented_word,
    is_held_out_sum,
    is_held_out_word,
    is_held_out_wording,
    sloppy,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A held-out question. A right answer is `exact`, or holds one of `keys`."""

    category: str
    messages: tuple[corpus.Message, ...]
    exact: str | None = None
    keys: tuple[str, ...] = ()

    def is_right(self, answer: str) -> bool:
        answer = answer.strip()
        if self.exact is not None:
            return answer.rstrip(".") == self.exact.rstrip(".")
        return any(re.search(rf"(?<!\w){re.escape(key)}", answer, re.I) for key in self.keys)


def asked(text: str) -> tuple[corpus.Message, ...]:
    return ({"role": "user", "content": text},)


def sum_cases(rng: random.Random, count: int) -> list[Case]:
    """Held-out sums, half of them additions, in every plain wording."""
    cases = []
    for operator, asks in (("+", corpus.PLUS_ASKS), ("-", corpus.MINUS_ASKS)):
        numbers = range(corpus.LARGEST + 1)
        kept = [(a, b) for a in numbers for b in numbers if is_held_out_sum(a, operator, b)]
        for a, b in rng.sample(kept, count // 2):
            question = sloppy(rng.choice(asks), rng).format(a=a, b=b)
            cases.append(Case("sums", asked(question), exact=corpus.equation(a, operator, b)))
    return cases


def word_cases(rng: random.Random, count: int) -> list[Case]:
    """Held-out words of three to ten letters: those of the tables, then invented ones."""
    drawn = talk.WORDS + [invented_word(rng) for _ in range(count * 20)]
    kept = [word for word in drawn if is_held_out_word(word) and 3 <= len(word) <= 10]
    cases = []
    for word in list(dict.fromkeys(kept))[:count]:
        spell, reverse = rng.choice(corpus.SPELL_ASKS), rng.choice(corpus.REVERSE_ASKS)
        cases.append(Case("spelling", asked(spell.format(w=word)), exact="-".join(word)))
        cases.append(Case("reversing", asked(reverse.format(w=word)), exact=word[::-1]))
    return cases


def fact_cases(rng: random.Random, count: int) -> list[Case]:
    """Known facts in a wording that was never trained on for that fact."""
    cases = []
    for relation in facts.RELATIONS:
        for subject, value in relation.pairs.items():
            for ask in relation.asks:
                if is_held_out_wording(ask, subject):
                    question, _ = corpus.relation_case(relation, ask, subject)
                    cases.append(Case("facts", asked(question), keys=(value,)))
    for asks, answer, key in facts.SINGLE_FACTS:
        kept = [ask for ask in asks[1:] if is_held_out_wording(ask, answer)]
        cases += [Case("facts", asked(ask), keys=(key,)) for ask in kept]
    return rng.sample(cases, min(count, len(cases)))


def topic_cases(category: str, topics: tuple[talk.Topic, ...]) -> list[Case]:
    return [Case(category, asked(row.held_out_ask), keys=row.keys) for row in topics]


def memory_cases(rng: random.Random, count: int) -> list[Case]:
    """Something told first, then a sum, then what was told is asked for."""
    cases = []
    for _ in range(count):
        statements, reply, asks, _, values = corpus.SLOTS[rng.choice(list(corpus.SLOTS))]
        value = rng.choice(values)
        told = rng.choice(statements).format(x=value)
        texts = [told, capital_first(reply.format(x=value)), *corpus.sum_turn(rng)]
        messages = [
            {"role": ("user", "assistant")[number % 2], "content": text}
            for number, text in enumerate([*texts, rng.choice(asks)])
        ]
        cases.append(Case("memory", tuple(messages), keys=(value,)))
    return cases


def decline_cases(rng: random.Random, count: int) -> list[Case]:
    """Questions beyond the model in templates never trained on: it must say so."""
    templates = scope.scope_templates(held_out=True)
    questions = [scope.scope_question(rng, templates) for _ in range(count)]
    keys = ("I do not know", "I did not understand", "Sorry", "English")
    return [Case("out of scope", asked(question), keys=keys) for question in questions]


def held_out_cases(seed: int = 2026, sums: int = 400) -> list[Case]:
    """Every question of the evaluation, the same for the same seed."""
    rng = random.Random(seed)
    return [
        *sum_cases(rng, sums),
        *word_cases(rng, 100),
        *fact_cases(rng, 200),
        *topic_cases("gangline", talk.GANGLINE),
        *topic_cases("small talk", talk.SMALL_TALK),
        *memory_cases(rng, 30),
        *decline_cases(rng, 50),
    ]
