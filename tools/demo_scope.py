"""Questions beyond the demo model, and how it says so, for the corpus.

Most are made by filling templates, so that the model learns the kind and not the sentence.
"""

import random

from tools import demo_facts as facts
from tools import demo_talk as talk
from tools.demo_facts import words
from tools.demo_text import (
    hurried,
    invented_word,
    is_held_out,
    is_held_out_wording,
    plain,
    sloppy,
    with_article,
)  # fmt: skip

DECLINES = (
    "I do not know that. I am a very small model: ask me for a sum, a spelling or a simple fact.",
    "I do not know that, I am a very small model. A bigger one could help you.",
    "Sorry, that is beyond me. I am good at sums up to 99, at spelling and at simple facts.",
)
ONLY_ENGLISH = "I understand only a little English. Please ask me a short question in English."
NOT_UNDERSTOOD = "I did not understand that. I am a very small model: try a short question."
PLACES = words(
    "Paris London Berlin Tokyo Rome Boston Chicago Munich Oslo Texas Florida Kansas Madrid Lagos "
    "Sydney Toronto Mumbai Hamburg Zurich Dallas Lyon Milan Seattle Dublin Moscow Cairo"
)
SUBJECTS = (
    "history", "the French Revolution", "quantum physics", "photosynthesis", "democracy", "cooking",
    "the stock market", "black holes", "DNA", "evolution", "football", "chess", "the Roman Empire",
    "machine learning", "climate change", "philosophy", "love", "music", "Kubernetes", "taxes",
    "electricity", "the brain", "volcanoes", "Bitcoin", "inflation", "vaccines", "gardening",
    "the second world war", "neural networks", "dinosaurs", "my garden", "insurance", "art",
    "the law", "medicine", "cars", "movies", "the weather", "politics", "religion", "economics",
)  # fmt: skip
OUT_OF_SCOPE = (
    "What is the weather in {place}?", "Will it rain in {place} tomorrow?", "weather {place}",
    "How many people live in {place}?", "What is the population of {place}?",
    "How do I get from {place} to {place2}?", "How far is {place} from {place2}?",
    "Find me a hotel in {place}.", "What is the best restaurant in {place}?",
    "Who is the mayor of {place}?", "Who won the football match in {place}?", "news from {place}",
    "Explain {subject}.", "Tell me about {subject}.", "What do you think about {subject}?",
    "How does {subject} work?", "Write an essay about {subject}.", "What is {subject}?",
    "Summarize {subject}.", "Teach me {subject}.", "Give me ten ideas about {subject}.",
    "Why is {subject} important?", "Who invented {subject}?", "Can you help me with {subject}?",
    "Write a program about {subject}.", "Write a Python function that sorts a list.",
    "Write code for {subject}.", "Who is the president of {name}?", "Who is {name}?",
    "What is a {name}?", "What is the capital of {name}?", "What does {name} mean?",
    "Who wrote {name}?", "Where is {name}?", "What is the opposite of {name}?", "What is {name}?",
    "What is the chemical symbol for {name}?", "Who was {name}?", "Do you know {name}?",
    "Who won the world cup in {year}?", "What happened in {year}?", "Who was king in {year}?",
    "Which film won the Oscar in {year}?", "Who was president in {year}?",
    "Give me a recipe for {food}.", "How do I cook {food}?", "How much does {food} cost?",
    "Where can I buy {food}?", "Is {food} healthy?", "How many calories are in {food}?",
    "Write a letter to my {person}.", "What should I give my {person}?",
    "Why is my {person} angry?", "Send a message to my {person}.", "Call my {person}.",
    "Set an alarm for {n} o'clock.", "Remind me in {n} minutes.", "Play some music.",
    "Draw a picture of {food}.", "Turn on the light.", "Order {n} bottles of {food}.",
    "What is the price of gold today?", "How tall is {name}?", "How old is {name}?",
    "Translate this text into Chinese.", "What is {food} in Russian?", "Fix the bug in my code.",
    "Which stocks should I buy?", "I have a headache, what should I take?",
    "Is {name} better than {name2}?", "Summarize this article for me.",
    "Who will win the election?",
    "Explain why {name} likes {food}.", "How do I repair my {thing}?", "My {thing} is broken.",
    "Which {thing} should I buy?", "What is the best {thing}?", "How do I clean a {thing}?",
    "Why is the sky blue?", "Why do cats purr?", "What is the speed of light?",
    "How many stars are in the sky?", "How far away is the moon?", "How deep is the ocean?",
    "How do I {verb} a {noun}?", "Why do {noun}s {verb}?", "Can you {verb} my {noun}?",
    "What is the {property} of {noun}?", "What is the {property} of the {noun}?",
    "Should I {verb} a {noun}?", "Who invented the {noun}?", "What is a {noun}?", "Define {noun}.",
    "What is the difference between a {noun} and a {noun2}?", "Is a {noun} {adjective}?",
    "Where can I find a {noun}?", "When was the {noun} invented?", "Tell me about the {noun}.",
    "I want to {verb} a {noun}.", "My {noun} is {adjective}.", "Make a list of {noun}s.",
    "Write a {text} about a {noun}.", "Please {verb} the {noun}.", "Do you {verb} {noun}s?",
    "What happens when you {verb} a {noun}?", "How many {noun}s are there in {place}?",
    "How much does a {noun} weigh?", "What is the best {noun}?", "Why is the {noun} {adjective}?",
    "Who is the {adjective} {noun}?", "Can a {noun} {verb}?", "Will the {noun} {verb} tomorrow?",
    "Who can {verb} the {noun}?", "Write a {text} for my {person}.", "What does {noun} mean?",
    "Show me a {noun}.", "Make me a {noun}.", "I need a {noun}.", "Give me a {noun}.",
    "Where is my {noun}?", "Which {noun} is {adjective}?", "What colour is my {noun}?",
    "Write a {text} with {n} words.", "Explain how a {noun} works.", "The {noun} is {adjective}.",
    "Translate {noun} into Latin.", "What is {noun} in Chinese?", "{verb} the {noun}",
    "How many {letter}'s are in {noun}?", "How many letters are in {noun}?",
    "Does {noun} rhyme with {noun2}?", "Is {name} in {place}?", "Set a timer for {n} minutes.",
    "What does a {noun} look like?", "What do you see?", "Open the {noun}.", "Delete my {noun}.",
    "Is it {adjective} in {place}?", "What did {name} say?", "Who is the {adjective}est man?",
    "How fast is a {noun}?", "How big is a {noun}?", "How old is the {noun}?", "Who owns {place}?",
    "If I {verb} a {noun}, will it {verb2}?", "When will you {verb}?", "Have you seen my {noun}?",
)  # fmt: skip
PROPERTIES = words(
    "price weight size age history height length meaning origin shape purpose speed taste smell "
    "depth width owner author inventor population temperature volume area president leader king "
    "mayor date number time distance cause use future result"
)
VERBS = words(
    "buy build cook fix clean paint draw open break move carry find wash cut sell teach lift hide "
    "make plant bake repair catch throw read print hack train feed grow invent burn drive visit "
    "forget follow climb measure install remove play sign steal ride choose change"
)
ADJECTIVES = words(
    "red tall old new cold warm strange dangerous useful safe expensive broken heavy rare famous "
    "lazy quiet healthy round blue rich smart funny great tired dirty soft"
)
TEXTS = words("letter song report email essay novel review speech book tweet script recipe")
UNLISTED_COUNTRIES = words(
    "Mongolia Chad Mali Laos Fiji Malta Qatar Oman Yemen Togo Libya Bolivia Ecuador Uruguay Sudan "
    "Paraguay Venezuela Cambodia Kazakhstan Pakistan Bangladesh Angola Zambia Albania Estonia "
    "Latvia Lithuania Slovakia Slovenia Cyprus Jamaica Haiti Panama Texas Bavaria California Tibet "
    "Atlantis Narnia Mordor Utah Siberia Sicily Hawaii"
)
UNKNOWN_KINDS = words("capital opposite young symbol plural past legs language currency colour")
FOREIGN = (
    "Guten Tag", "Wie heißt du?", "Was ist das?", "Wie geht es dir?", "Wer bist du?", "Danke schön",
    "Was kannst du?", "Wie spät ist es?", "Sprichst du Deutsch?", "Ich verstehe nicht.", "Bonjour",
    "Comment ça va?", "Qui es-tu?", "Quelle est la capitale de la France?", "Parlez-vous français?",
    "Je ne sais pas.", "Merci beaucoup", "¿Cómo estás?", "¿Quién eres?", "¿Qué puedes hacer?",
    "Hola, ¿qué tal?", "Buenos días", "¿Cuánto es dos más dos?", "Ciao, come stai?", "Chi sei?",
    "Qual è la capitale?", "Olá, tudo bem?", "Quem é você?", "Hoe gaat het?", "Wat is dit?",
    "Hur mår du?", "Jak się masz?", "Привет", "Как дела?", "Кто ты?", "Что это такое?", "你好",
    "你是谁?", "こんにちは", "元気ですか?",
    "あなたは誰ですか?", "안녕하세요", "Γεια σου", "שלום", "مرحبا", "नमस्ते",
)  # fmt: skip
SCRIPTS = ((0x3B1, 24), (0x430, 32), (0x3042, 80), (0x4E00, 2000), (0xAC00, 2000), (0x1F400, 80))
FOODS = words("pizza soup rice pasta bread cake curry beer tea salad cheese sushi pancakes tofu")
PEOPLE = words("mother father boss brother sister friend teacher neighbour uncle landlord wife")
THINGS = words("bike car phone printer door laptop toaster camera roof window lamp radio")


def known_asks() -> frozenset[str]:
    """Every wording that has an answer, so that no template declines it by chance."""
    asks = {plain(ask) for row in (*talk.GANGLINE, *talk.SMALL_TALK) for ask in row.asks}
    asks |= {plain(ask) for wordings, _, _ in facts.SINGLE_FACTS for ask in wordings}
    for relation in facts.RELATIONS:
        asks |= {plain(ask.format(x=x)) for ask in relation.asks for x in relation.pairs}
    return frozenset(asks)


KNOWN_ASKS = known_asks()


def scope_templates(*, held_out: bool) -> list[str]:
    return [ask for ask in OUT_OF_SCOPE if is_held_out_wording(ask, "scope") is held_out]


def filled(template: str, rng: random.Random) -> str:
    """The template with words drawn for its fields."""
    place, place2 = rng.sample(PLACES, 2)
    noun, noun2 = rng.sample(talk.WORDS, 2)
    verb, verb2 = rng.sample(VERBS, 2)
    fields = {
        "place": place, "place2": place2, "noun": noun, "noun2": noun2, "verb": verb,
        "verb2": verb2, "subject": rng.choice(SUBJECTS), "property": rng.choice(PROPERTIES),
        "name": invented_word(rng).capitalize(), "name2": invented_word(rng).capitalize(),
        "year": rng.randint(1200, 2030), "food": rng.choice(FOODS), "person": rng.choice(PEOPLE),
        "thing": rng.choice(THINGS), "n": rng.randint(2, 99), "text": rng.choice(TEXTS),
        "adjective": rng.choice(ADJECTIVES), "letter": rng.choice("abcdefghijklmnoprstuvwy"),
    }  # fmt: skip
    return with_article(template.format(**fields))


def scope_question(rng: random.Random, templates: list[str]) -> str:
    """A question out of scope; drawn again if it happens to be one that has an answer."""
    while plain(question := filled(rng.choice(templates), rng)) in KNOWN_ASKS:
        pass
    return question


def unknown_subject(rng: random.Random) -> str:
    """A known kind of question about something that is not in the tables."""
    kind = rng.choice(UNKNOWN_KINDS)
    (relation,) = (row for row in facts.RELATIONS if row.name == kind)
    known = {plain(subject) for subject in relation.pairs}
    while True:
        countries = kind in ("capital", "language", "currency") and rng.random() < 0.5
        subject = rng.choice(UNLISTED_COUNTRIES if countries else talk.WORDS)
        if rng.random() < 0.3:
            subject = invented_word(rng)
        if plain(subject) not in known and not is_held_out(f"unknown {subject}", 0.1):
            return with_article(rng.choice(relation.asks).format(x=subject))


def sum_out_of_reach(rng: random.Random) -> tuple[str, str]:
    """Products, large numbers, fractions and three operands are declined, not guessed."""
    a, b, c = (rng.choice((rng.randint(0, 9), rng.randint(0, 99))) for _ in range(3))
    large = rng.choice((100, 1000, rng.randint(100, 999), rng.randint(100, 999999)))
    blank = rng.choice(("", " "))
    plus, minus = (f"{blank}{sign}{blank}" for sign in "+-")
    ask = rng.choice(("What is {x}?", "{x}", "{x} = ?", "How much is {x}?", "What's {x}?"))
    sums, reason = rng.choice((
        ((f"{a} times {b}", f"{a}{blank}*{blank}{b}", f"{a}{blank}x{blank}{b}"),
         "I cannot multiply"),
        ((f"{a} divided by {b}", f"{a}{blank}/{blank}{b}", f"{a} over {b}"), "I cannot divide"),
        ((f"the square root of {a}", f"{a} squared", f"{a}^{b}", f"{a}%"), "I do not know that"),
        ((f"{large}{plus}{b}", f"{a}{plus}{large}", f"{large} plus {b}", f"{large}{minus}{b}",
          f"{a}{minus}{large}", f"{large} minus {a}", f"{large}{plus}{large + b}",
          f"{a} plus {large}"), "That number is too big for me"),
        ((f"{a}{plus}{b}{plus}{c}", f"{a}{plus}{b}{minus}{c}", f"{a} plus {b} plus {c}"),
         "I can only work with two numbers at a time"),
        ((f"{a}.{c}{plus}{b}", f"{a}{minus}{b}.{c}", f"{a}.5 plus {b}", f"-{a}{plus}{b}",
          f"-{a}{minus}{b}", f"minus {a} plus {b}", f"half of {a}", f"1/2{plus}{b}"),
         "I know only whole numbers from 0 to 99"),
    ))  # fmt: skip
    question = sloppy(ask, rng).format(x=rng.choice(sums))
    return question, f"{reason}: I add and subtract two numbers up to 99."


def noise(rng: random.Random) -> str:
    """Words without a question, a number alone, or signs."""
    kind = rng.random()
    if kind < 0.15:
        return str(rng.randint(0, 9999))
    if kind < 0.25:
        return "".join(rng.choices("?.!,;:-_#*+/()", k=rng.randint(1, 5)))
    sources = rng.choices((True, False), k=rng.randint(1, 5))
    drawn = [invented_word(rng) if new else rng.choice(talk.WORDS) for new in sources]
    return " ".join(drawn) + rng.choice(("", "", ".", "?", "!"))


def foreign(rng: random.Random) -> str:
    """A phrase in another language, or letters of another script."""
    if rng.random() < 0.6:
        return sloppy(rng.choice(FOREIGN), rng)
    first, count = rng.choice(SCRIPTS)
    return "".join(chr(first + rng.randrange(count)) for _ in range(rng.randint(1, 8)))


def decline_turn(rng: random.Random) -> tuple[str, str]:
    """A question that the model must not try to answer, and what it says instead."""
    kind = rng.random()
    if kind < 0.22:
        return sum_out_of_reach(rng)
    if kind < 0.28:
        return foreign(rng), ONLY_ENGLISH
    if kind < 0.34:
        text = noise(rng)
        if plain(text) not in KNOWN_ASKS:
            return text, NOT_UNDERSTOOD
    if kind < 0.50:
        return hurried(unknown_subject(rng), rng), rng.choice(DECLINES)
    question = scope_question(rng, scope_templates(held_out=False))
    return hurried(question, rng), rng.choice(DECLINES)
