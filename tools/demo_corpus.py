"""The corpus of the demo model: conversations drawn from tables, and what is held out of them.

`train_demo.py` trains on `conversation`; `demo_cases.py` draws its questions from what is held out.
Standard library only. A sum, a word or a wording is held out by the hash of its name, so both
agree without a list, whatever the seed.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tools import demo_facts as facts
from tools import demo_scope as scope
from tools import demo_talk as talk
from tools.demo_text import (
    capital_first,
    hurried,
    invented_word,
    is_held_out_sum,
    is_held_out_word,
    is_held_out_wording,
    keywords,
    lower_sometimes,
    plain,
    reworded,
    sloppy,
    with_article,
)  # fmt: skip

Message = dict[str, str]
Turn = tuple[str, str]

LARGEST = 99

PLUS_ASKS = (
    "What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?",
    "{a}+{b}=", "{a} plus {b}", "What's {a} + {b}?", "What's {a} plus {b}?", "Add {a} and {b}.",
    "Add {a} to {b}.", "How much is {a} + {b}?", "How much is {a} plus {b}?", "Compute {a} + {b}.",
    "Calculate {a} + {b}.", "What is the sum of {a} and {b}?", "sum of {a} and {b}",
    "Can you add {a} and {b}?", "What do {a} and {b} make?", "What is {a} and {b}?",
    "What do you get when you add {a} and {b}?", "Tell me {a} plus {b}.", "Solve {a}+{b}.",
)  # fmt: skip
MINUS_ASKS = (
    "What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} = ?",
    "{a}-{b}=", "{a} minus {b}", "What's {a} - {b}?", "What's {a} minus {b}?",
    "Subtract {b} from {a}.", "Take {b} from {a}.", "How much is {a} - {b}?", "Solve {a}-{b}.",
    "How much is {a} minus {b}?", "Compute {a} - {b}.", "Calculate {a} - {b}.",
    "What is {a} less {b}?", "Can you subtract {b} from {a}?", "Take away {b} from {a}.",
    "What is left when you take {b} from {a}?", "Tell me {a} minus {b}.",
)  # fmt: skip
DIFFERENCE_ASKS = ("What is the difference between {a} and {b}?", "{a} is how much more than {b}?")
PLUS_STORIES = (
    ("Tom has {a} {x} and Anna gives him {b}. How many does he have?", "so he has {c} {x}."),
    ("{a} {x} and {b} {x} are how many {x}?", "so there are {c} {x}."),
    ("Anna has {a} {x} and Ben has {b}. How many do they have together?", "so they have {c} {x}."),
    ("I have {a} {x} and get {b} more. How many do I have?", "so you have {c} {x}."),
    ("If I have {a} {x} and buy {b} more, how many {x} do I have?", "so you have {c} {x}."),
    ("There are {a} {x} and {b} more come. How many are there?", "so there are {c} {x}."),
)  # fmt: skip
MINUS_STORIES = (
    ("I have {a} {x} and eat {b}, how many are left?", "so {c} {x} are left."),
    ("Tom has {a} {x} and gives {b} to Anna. How many does he have?", "so he has {c} {x}."),
    ("You have {a} {x} and sell {b}. How many do you have?", "so you have {c} {x}."),
    ("I have {a} {x} and lose {b}. How many are left?", "so {c} {x} are left."),
    ("If I have {a} {x} and give away {b}, how many do I have?", "so you have {c} {x}."),
    ("There are {a} {x} and {b} go away. How many are left?", "so {c} {x} are left."),
)  # fmt: skip
STORY_THINGS = facts.words(
    "apples dogs books coins eggs cakes cars birds friends nuts stones balls"
)
LIST_ASKS = ("Do these sums: {x}.", "{x}", "What is {x}?", "Solve {x}.", "Calculate {x}.")
SPELL_ASKS = (
    "Spell {w}.", "Spell the word {w}.", "How do you spell {w}?", "How is {w} spelled?",
    "Can you spell {w}?", "spell {w}", "Please spell {w}.", 'Spell "{w}".', "Spell {w} for me.",
    "What are the letters of {w}?", "Spelling of {w}?", "How do I spell {w}?", "Spell: {w}",
)  # fmt: skip
REVERSE_ASKS = (
    "Reverse {w}.", "Reverse the word {w}.", "What is {w} backwards?", "Write {w} backwards.",
    "reverse {w}", "Can you reverse {w}?", "{w} backwards", 'Reverse "{w}".', "Say {w} backwards.",
    "What is {w} in reverse?", "Spell {w} backwards.", "Turn {w} around.", "Reverse: {w}",
)  # fmt: skip
REPEAT_ASKS = ("Say {w}.", "Repeat: {w}", "Repeat after me: {w}", "Echo {w}")
TENS = facts.words("twenty thirty forty fifty sixty seventy eighty ninety")
SMALL_NUMBERS = facts.words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)


# Words ---------------------------------------------------------------------------------------


def content_words() -> frozenset[str]:
    """Words that people may want spelled: in the tokenizer they stay letters."""
    found = set(talk.WORDS)
    for relation in facts.RELATIONS:
        for text in (*relation.pairs, *relation.pairs.values()):
            found.update(text.lower().split())
    lists = (talk.FIRST_NAMES, talk.CITIES, talk.COLOUR_NAMES, talk.ANIMALS, scope.FOODS,
             scope.PEOPLE, scope.THINGS, scope.PLACES, scope.UNLISTED_COUNTRIES)  # fmt: skip
    found.update(word.lower() for row in lists for word in row)
    return frozenset(found)


CONTENT_WORDS = content_words()
KNOWN_WORDS = sorted(word for word in CONTENT_WORDS if 1 < len(word) < 15 and word.isalpha())


def training_word(rng: random.Random, drill: Sequence[str] = ()) -> str:
    """A word to spell or reverse which is not held out; `drill` are words that are one token."""
    while True:
        kind = rng.random()
        if drill and kind < 0.20:
            return rng.choice(drill)
        word = rng.choice(KNOWN_WORDS) if kind < 0.45 else invented_word(rng)
        if rng.random() < 0.15:
            word = word.capitalize()
        if not is_held_out_word(word):
            return word


def number_word(value: int) -> str:
    if value < 20:
        return SMALL_NUMBERS[value]
    ones = f"-{SMALL_NUMBERS[value % 10]}" if value % 10 else ""
    return TENS[value // 10 - 2] + ones


# Turns: one question and its answer each -----------------------------------------------------


def draw_sum(rng: random.Random) -> tuple[int, str, int]:
    """A sum that is not held out; subtraction goes below zero as often as above."""
    while True:
        small = rng.random() < 0.15
        a, b = (rng.randint(0, 12 if small else LARGEST) for _ in range(2))
        operator = rng.choice("+-")
        if not is_held_out_sum(a, operator, b):
            return a, operator, b


def solve(a: int, operator: str, b: int) -> int:
    return a + b if operator == "+" else a - b


def equation(a: int, operator: str, b: int) -> str:
    return f"{a} {operator} {b} = {solve(a, operator, b)}"


def sum_turn(rng: random.Random) -> Turn:
    a, operator, b = draw_sum(rng)
    kind = rng.random()
    if kind < 0.08 and (operator == "+" or a >= b):
        thing = rng.choice(STORY_THINGS)
        ask, tail = rng.choice(PLUS_STORIES if operator == "+" else MINUS_STORIES)
        values = {"a": a, "b": b, "c": solve(a, operator, b), "x": thing}
        answer = f"{equation(a, operator, b)}, " + tail.format(**values)
        return sloppy(ask, rng).format(**values), answer
    asks: tuple[str, ...] = PLUS_ASKS if operator == "+" else MINUS_ASKS
    if operator == "-" and a >= b and kind > 0.95:
        asks = DIFFERENCE_ASKS
    ask = sloppy(rng.choice(asks), rng)
    if kind < 0.18:
        question = ask.format(a=number_word(a), b=number_word(b))
    else:
        question = ask.format(a=a, b=b)
    return question, equation(a, operator, b) + "."


def sum_list_turn(rng: random.Random) -> Turn:
    """Several sums at once: many answers per token read."""
    sums = [draw_sum(rng) for _ in range(rng.randint(2, 6))]
    blank = rng.choice(("", " "))
    asked = ", ".join(f"{a}{blank}{operator}{blank}{b}" for a, operator, b in sums)
    ask = sloppy(rng.choice(LIST_ASKS), rng)
    return ask.format(x=asked), ", ".join(equation(*one) for one in sums) + "."


def number_turn(rng: random.Random) -> Turn:
    """Comparing, odd and even, neighbours: small questions about numbers up to 99."""
    a, b = rng.sample(range(LARGEST + 1), 2)
    ask, answer = rng.choice((
        (f"Which is bigger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}."),
        (f"Which number is larger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}."),
        (f"Which is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}."),
        (f"Is {a} even or odd?", f"{a} is {'odd' if a % 2 else 'even'}."),
        (f"What comes after {a}?", f"After {a} comes {a + 1}."),
        (f"Which number comes before {a + 1}?", f"Before {a + 1} comes {a}."),
        (f"Write {a} in words.", f"{a} is {number_word(a)}."),
    ))  # fmt: skip
    return sloppy(ask, rng), answer


def count_turn(rng: random.Random) -> Turn:
    """Counting up and down, mostly fewer than 40 numbers."""
    if rng.random() < 0.25:
        start = rng.choice((3, 5, 10, 10, 20))
        ask = rng.choice(("Count down from {x}.", "Count backwards from {x}.", "count down {x}"))
        return sloppy(ask, rng).format(x=start), ", ".join(map(str, range(start, -1, -1))) + "."
    start = rng.choice((1, 1, 1, rng.randint(0, 60)))
    end = start + rng.choice((4, 9, 9, 19, 29, 29, rng.randint(2, 39)))
    if rng.random() < 0.04:
        start, end = 1, rng.choice((50, 100))
    asks = ["Count from {x} to {y}.", "Count {x} to {y}.", "Can you count from {x} to {y}?"]
    if start == 1:
        asks += ["Count to {y}.", "Count up to {y}.", "Can you count to {y}?"]
    ask = sloppy(rng.choice(asks), rng).format(x=start, y=end)
    return ask, ", ".join(map(str, range(start, end + 1))) + "."


def several(rng: random.Random) -> int:
    """How many words a question is about: mostly one."""
    return rng.randint(2, 4) if rng.random() < 0.2 else 1


def spell_turn(rng: random.Random, drill: Sequence[str] = ()) -> Turn:
    chosen = [training_word(rng, drill) for _ in range(several(rng))]
    ask = sloppy(rng.choice(SPELL_ASKS), rng)
    return ask.format(w=", ".join(chosen)), ", ".join("-".join(word) for word in chosen)


def reverse_turn(rng: random.Random, drill: Sequence[str] = ()) -> Turn:
    chosen = [training_word(rng, drill) for _ in range(several(rng))]
    ask = sloppy(rng.choice(REVERSE_ASKS), rng)
    return ask.format(w=", ".join(chosen)), ", ".join(word[::-1] for word in chosen)


def repeat_turn(rng: random.Random) -> Turn:
    words = " ".join(training_word(rng) for _ in range(rng.randint(1, 4)))
    return sloppy(rng.choice(REPEAT_ASKS), rng).format(w=words), words


def relation_case(relation: facts.Relation, ask: str, subject: str) -> Turn:
    filled = {"x": subject, "y": relation.pairs[subject]}
    answer = capital_first(with_article(relation.answer.format(**filled)))
    return with_article(capital_first(ask.format(**filled))), answer


def asked_fact(question: str, rng: random.Random) -> str:
    if rng.random() < 0.07:
        question = keywords(question)
    return hurried(question, rng)


def fact_turn(rng: random.Random) -> Turn:
    while True:
        if rng.random() < 0.2:
            asks, answer, _ = rng.choice(facts.SINGLE_FACTS)
            ask, subject = rng.choice(asks), answer
            question = ask
            if ask == asks[0]:
                return asked_fact(question, rng), answer
        else:
            weights = [len(relation.pairs) for relation in facts.RELATIONS]
            (relation,) = rng.choices(facts.RELATIONS, weights)
            ask, subject = rng.choice(relation.asks), rng.choice(list(relation.pairs))
            question, answer = relation_case(relation, ask, subject)
        if not is_held_out_wording(ask, subject):
            return asked_fact(question, rng), answer


HELD_OUT_ASKS = frozenset(plain(row.held_out_ask) for row in (*talk.GANGLINE, *talk.SMALL_TALK))


def topic_turn(topics: tuple[talk.Topic, ...], rng: random.Random) -> Turn:
    row = rng.choice(topics)
    while True:
        question = hurried(reworded(rng.choice(row.trained_asks), rng), rng)
        if plain(question) not in HELD_OUT_ASKS:
            return question, rng.choice(row.answers)


def gangline_turn(rng: random.Random) -> Turn:
    return topic_turn(talk.GANGLINE, rng)


def small_talk_turn(rng: random.Random) -> Turn:
    return topic_turn(talk.SMALL_TALK, rng)


def story_turn(rng: random.Random) -> Turn:
    kind = rng.random()
    if kind < 0.12:
        subject = rng.choice((f"a {rng.choice(talk.WORDS)}", f"the {rng.choice(talk.WORDS)}"))
        if subject not in talk.STORIES:
            ask = sloppy(rng.choice(talk.STORY_ASKS), rng).format(x=subject)
            return with_article(ask), talk.NO_SUCH_STORY
    if kind < 0.40:
        return sloppy(rng.choice(talk.LONG_STORY_ASKS[:-1]), rng), talk.LONG_STORY
    subject = rng.choice(list(talk.STORIES))
    if kind < 0.65:
        return sloppy(rng.choice(talk.ANY_STORY_ASKS), rng), talk.STORIES[subject]
    return sloppy(rng.choice(talk.STORY_ASKS), rng).format(x=subject), talk.STORIES[subject]


@dataclass
class Memory:
    """What the user told about himself earlier in one conversation."""

    told: dict[str, str] = field(default_factory=dict)


# slot: statements, reply, questions, answer, values
SLOTS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...], str, list[str]]] = {
    "name": (
        ("My name is {x}.", "I am {x}.", "I'm {x}.", "Hi, I am {x}.", "Call me {x}.",
         "Hello, my name is {x}."), "Nice to meet you, {x}!",
        ("What is my name?", "What's my name?", "Who am I?", "Do you remember my name?",
         "How am I called?", "Tell me my name."), "Your name is {x}.", talk.FIRST_NAMES),
    "favourite colour": (
        ("My favourite colour is {x}.", "My favorite color is {x}.", "I like the colour {x}."),
        "{x} is a nice colour!",
        ("What is my favourite colour?", "What's my favorite color?", "Which colour do I like?"),
        "Your favourite colour is {x}.", talk.COLOUR_NAMES),
    "favourite animal": (
        ("My favourite animal is the {x}.", "I like the {x} best of all animals."),
        "The {x} is a fine animal!",
        ("What is my favourite animal?", "Which animal do I like?"),
        "Your favourite animal is the {x}.", talk.ANIMALS),
    "city": (
        ("I live in {x}.", "My city is {x}.", "My home is in {x}."), "{x} is a fine place to live!",
        ("Where do I live?", "Which city do I live in?", "In which city do I live?"),
        "You live in {x}.", talk.CITIES),
    "age": (
        ("I am {x} years old.", "My age is {x}."), "{x} is a good age!",
        ("How old am I?", "What is my age?"), "You are {x} years old.",
        [str(age) for age in range(6, 100)]),
}  # fmt: skip


def memory_turn(rng: random.Random, memory: Memory) -> Turn:
    """State something, or ask for what was (or was not yet) stated in this conversation."""
    slot = rng.choice([*SLOTS, "name", "name"])
    if memory.told and rng.random() < 0.6:
        slot = rng.choice(list(memory.told))
    statements, reply, asks, answer, values = SLOTS[slot]
    if rng.random() < (0.2 if slot in memory.told else 0.6):
        named = slot == "name" and rng.random() < 0.3
        value = invented_word(rng).capitalize() if named else rng.choice(values)
        memory.told[slot] = value
        statement = sloppy(rng.choice(statements), rng).format(x=lower_sometimes(value, rng))
        return statement, capital_first(reply.format(x=value))
    ask = sloppy(rng.choice(asks), rng)
    if slot not in memory.told:
        return ask, "You have not told me that yet."
    return ask, answer.format(x=memory.told[slot])


# Conversations -------------------------------------------------------------------------------

Maker = Callable[[random.Random], Turn]


def makers(drill: Sequence[str] = ()) -> dict[str, tuple[Maker, float]]:
    """Every kind of turn and its weight."""
    return {
        "sum": (sum_turn, 0.27),
        "sum list": (sum_list_turn, 0.10),
        "number": (number_turn, 0.02),
        "count": (count_turn, 0.03),
        "spell": (partial(spell_turn, drill=drill), 0.055),
        "reverse": (partial(reverse_turn, drill=drill), 0.095),
        "repeat": (repeat_turn, 0.01),
        "fact": (fact_turn, 0.17),
        "gangline": (gangline_turn, 0.075),
        "small talk": (small_talk_turn, 0.08),
        "story": (story_turn, 0.015),
        "decline": (scope.decline_turn, 0.07),
    }


MAKERS = makers()


def conversation(
    rng: random.Random, table: Mapping[str, tuple[Maker, float]] = MAKERS, turns: int | None = None
) -> Iterator[Message]:
    """An endless conversation (or one of `turns` questions); the caller takes what it needs."""
    memory = Memory()
    names = list(table)
    weights = [share for _, share in table.values()]
    if rng.random() < 0.25:
        yield {"role": "system", "content": rng.choice(talk.SYSTEM_PROMPTS)}
    while turns is None or turns > 0:
        if rng.random() < (0.2 if memory.told else 0.04):
            ask, answer = memory_turn(rng, memory)
        else:
            (name,) = rng.choices(names, weights)
            ask, answer = table[name][0](rng)
        yield {"role": "user", "content": ask}
        yield {"role": "assistant", "content": answer}
        turns = None if turns is None else turns - 1
