"""Tools of the demo corpus that know no subject: the hold-out, invented words, sloppy wordings."""

import hashlib
import random
import re

from tools.demo_facts import words

HELD_OUT_SUMS = 0.10
HELD_OUT_WORDS = 0.15
HELD_OUT_WORDINGS = 0.12

ONSETS = words(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sh sl sp st t th tr "
    "v w y z"
)
VOWELS = words("a e i o u a e i o u ea oo")
CODAS = words("b ck d f g k l ll m mp n nd ng nk nt p r rd rk rn s sh ss st t th x")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

HEADS = (
    "Please ", "Hey, ", "Can you tell me: ", "OK, ", "Now ", "And ", "So, ", "Hi, ", "Well, ",
    "I want to know: ", "Quick question: ",
)  # fmt: skip
TAILS = (" please", ", please", "?", "??", "!", " ?", " :)", " thanks")
REWORDINGS = (
    ("machines", "computers"), ("machine", "computer"), ("machine", "node"), ("How do I", "How to"),
    ("How do I", "How can I"), ("What is", "What's"), ("Tell me about", "Explain"), ("you", "u"),
    ("fast", "quick"), ("big", "large"), ("several", "many"), ("favourite", "favorite"),
    ("colour", "color"), ("dies", "breaks"), ("Can you", "Could you"), ("are you", "r u"),
    ("Tell me", "Give me"), ("a", "one"), ("Gangline", "gangline"), ("Gangline", "it"),
    ("I am", "I'm"), ("Do you", "Don't you"), ("What", "Wat"), ("know", "remember"),
)  # fmt: skip
SMALL_WORDS = frozenset(
    words("what which is the a an of does do tell me are there in to on how it")
)


def is_held_out(key: str, share: float) -> bool:
    """Whether `key` is kept for evaluation; the same on every machine and for every seed."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") < share * 2**32


def is_held_out_sum(a: int, operator: str, b: int) -> bool:
    """A sum and its commuted form are one thing, so that neither betrays the other."""
    if operator == "+":
        a, b = min(a, b), max(a, b)
    return is_held_out(f"{a}{operator}{b}", HELD_OUT_SUMS)


def is_held_out_word(word: str) -> bool:
    return is_held_out(f"word {word.lower()}", HELD_OUT_WORDS)


def is_held_out_wording(ask: str, subject: str) -> bool:
    return is_held_out(f"wording {ask} {subject}", HELD_OUT_WORDINGS)


def plain(text: str) -> str:
    """The letters and digits of a text, to see whether two wordings are the same."""
    return "".join(re.findall(r"\w", text.lower()))


def invented_word(rng: random.Random) -> str:
    """A word that does not exist: pronounceable, or (one in four) any letters at all."""
    if rng.random() < 0.25:
        return "".join(rng.choices(LETTERS, k=rng.randint(2, 9)))
    parts = []
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4))):
        parts += [rng.choice(ONSETS), rng.choice(VOWELS), rng.choice(["", rng.choice(CODAS)])]
    return "".join(parts)[: rng.choice((8, 10, 12))]


def sloppy(ask: str, rng: random.Random) -> str:
    """The question as hurried people type it; {fields} are left alone."""
    if rng.random() < 0.12 and ask[0].isalpha():
        ask = rng.choice(HEADS) + (ask if ask[:2] == "I " else ask[0].lower() + ask[1:])
    if rng.random() < 0.3:
        ask = ask.lower()
    if rng.random() < 0.3:
        ask = ask.rstrip("?.!")
    if rng.random() < 0.06:
        ask = ask.rstrip("?.!") + rng.choice(TAILS)
    return ask


def reworded(ask: str, rng: random.Random) -> str:
    """The same question with a few words exchanged for others of the same meaning."""
    for old, new in rng.sample(REWORDINGS, 6):
        if rng.random() < 0.4:
            ask = re.sub(rf"\b{old}\b", new, ask)
    return ask


def keywords(ask: str) -> str:
    """Only the words that carry meaning, as in a search box."""
    kept = [word for word in re.findall(r"[^\s?.!,]+", ask.lower()) if word not in SMALL_WORDS]
    return " ".join(kept) if len(kept) > 1 else ask


def mistyped(text: str, rng: random.Random) -> str:
    """One letter lost, doubled or swapped with the next."""
    at = rng.randrange(1, max(2, len(text) - 2))
    middle = rng.choice(("", text[at] * 2, text[at + 1 : at + 2] + text[at]))
    swapped = len(middle) == 2 and middle[0] != middle[1]
    return text[:at] + middle + text[at + (2 if swapped else 1) :]


def hurried(ask: str, rng: random.Random) -> str:
    """A question in words, with a rare mistype; not for questions whose letters matter."""
    if rng.random() < 0.05:
        return mistyped(sloppy(ask, rng), rng)
    return sloppy(ask, rng)


def lower_sometimes(text: str, rng: random.Random) -> str:
    return text.lower() if rng.random() < 0.25 else text


def capital_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_article(text: str) -> str:
    """'a ant' -> 'an ant'."""
    return re.sub(r"\b([Aa]) (?=[aeioAEIO])(?!one\b)", r"\1n ", text)
