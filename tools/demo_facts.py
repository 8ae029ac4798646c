"""Simple facts for the demo model, as tables: a relation, its wordings, its pairs.

Only data. `demo_corpus.py` turns these into questions and answers and decides which are held out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """Facts that are asked alike: `asks` and `answer` hold {x}, and `answer` may hold {y}."""

    name: str
    asks: tuple[str, ...]
    answer: str
    pairs: dict[str, str]


def words(text: str) -> list[str]:
    """A list of words, written as one line of text."""
    return text.split()


def pairs_of(text: str) -> dict[str, str]:
    """Read 'France: Paris, Spain: Madrid' into a dictionary."""
    rows = (row.partition(": ") for row in " ".join(text.split()).split(", "))
    return {left: right for left, _, right in rows}


CAPITALS = pairs_of("""
    France: Paris, Germany: Berlin, Spain: Madrid, Italy: Rome, Portugal: Lisbon, Greece: Athens,
    Austria: Vienna, Poland: Warsaw, Norway: Oslo, Sweden: Stockholm, Denmark: Copenhagen,
    Finland: Helsinki, Iceland: Reykjavik, Ireland: Dublin, Belgium: Brussels, Hungary: Budapest,
    the Czech Republic: Prague, Switzerland: Bern, the Netherlands: Amsterdam, Russia: Moscow,
    England: London, Scotland: Edinburgh, Wales: Cardiff, Ukraine: Kyiv, Romania: Bucharest,
    Bulgaria: Sofia, Croatia: Zagreb, Serbia: Belgrade, Turkey: Ankara, Egypt: Cairo,
    Kenya: Nairobi, Nigeria: Abuja, Ghana: Accra, Morocco: Rabat, Ethiopia: Addis Ababa,
    Japan: Tokyo, China: Beijing, India: New Delhi, South Korea: Seoul, Thailand: Bangkok,
    Vietnam: Hanoi, Indonesia: Jakarta, Iran: Tehran, Iraq: Baghdad, Nepal: Kathmandu,
    Canada: Ottawa, Mexico: Mexico City, Cuba: Havana, Brazil: Brasilia, Argentina: Buenos Aires,
    Chile: Santiago, Peru: Lima, Colombia: Bogota, Australia: Canberra, New Zealand: Wellington,
    the United States: Washington
""")
OPPOSITES = pairs_of("""
    hot: cold, big: small, up: down, left: right, day: night, black: white, good: bad, fast: slow,
    old: young, happy: sad, open: closed, wet: dry, hard: soft, high: low, full: empty, rich: poor,
    early: late, strong: weak, light: dark, long: short, easy: difficult, clean: dirty, near: far,
    thick: thin, loud: quiet, true: false, first: last, inside: outside, always: never, love: hate,
    push: pull, win: lose, begin: end, heavy: light, sweet: sour, wide: narrow, deep: shallow,
    sharp: blunt, north: south, east: west, above: below, buy: sell, friend: enemy, war: peace
""")
SOUNDS = pairs_of("""
    cow: moo, dog: woof, cat: meow, sheep: baa, duck: quack, pig: oink, frog: ribbit, bee: buzz,
    lion: roar, mouse: squeak, horse: neigh, snake: hiss, donkey: hee-haw, wolf: howl, crow: caw
""")
YOUNG = pairs_of("""
    dog: puppy, cat: kitten, cow: calf, sheep: lamb, horse: foal, pig: piglet, duck: duckling,
    goose: gosling, bear: cub, lion: cub, deer: fawn, goat: kid, frog: tadpole, kangaroo: joey,
    swan: cygnet, elephant: calf, hen: chick
""")
COLOURS = pairs_of("""
    the sky: blue, grass: green, snow: white, coal: black, blood: red, a lemon: yellow,
    a carrot: orange, milk: white, a tomato: red, the sun: yellow, chocolate: brown,
    a strawberry: red, a polar bear: white, a ripe banana: yellow, a flamingo: pink,
    an elephant: grey, the sea: blue, a leaf: green, a raven: black, an emerald: green,
    a ruby: red, a fire engine: red
""")
SYMBOLS = pairs_of("""
    gold: Au, silver: Ag, iron: Fe, hydrogen: H, oxygen: O, carbon: C, nitrogen: N, helium: He,
    sodium: Na, copper: Cu, lead: Pb, tin: Sn, zinc: Zn, calcium: Ca, potassium: K, mercury: Hg,
    neon: Ne, sulfur: S, chlorine: Cl, silicon: Si, uranium: U, aluminium: Al, iodine: I
""")
PLURALS = pairs_of("""
    mouse: mice, child: children, foot: feet, tooth: teeth, man: men, woman: women, goose: geese,
    ox: oxen, person: people, sheep: sheep, fish: fish, leaf: leaves, knife: knives, wolf: wolves,
    city: cities, box: boxes, cactus: cacti, dog: dogs, house: houses
""")
PAST = pairs_of("""
    go: went, eat: ate, see: saw, run: ran, take: took, write: wrote, sing: sang, swim: swam,
    think: thought, buy: bought, come: came, give: gave, know: knew, speak: spoke, fly: flew,
    drink: drank, break: broke, fall: fell, bring: brought, catch: caught
""")
LEGS = pairs_of("""
    spider: eight, dog: four, cat: four, bird: two, ant: six, bee: six, horse: four, snake: no,
    human: two, cow: four, beetle: six, fish: no, chicken: two, scorpion: eight, fly: six
""")
CONTINENTS = pairs_of("""
    Egypt: Africa, Kenya: Africa, Nigeria: Africa, Morocco: Africa, France: Europe, Spain: Europe,
    Poland: Europe, Norway: Europe, Germany: Europe, Italy: Europe, China: Asia, India: Asia,
    Japan: Asia, Thailand: Asia, Nepal: Asia, Brazil: South America, Peru: South America,
    Chile: South America, Argentina: South America, Canada: North America, Mexico: North America
""")
LANGUAGES = pairs_of("""
    Brazil: Portuguese, Mexico: Spanish, Austria: German, Egypt: Arabic, Japan: Japanese,
    Argentina: Spanish, France: French, Italy: Italian, Germany: German, Spain: Spanish,
    Portugal: Portuguese, Greece: Greek, Poland: Polish, Russia: Russian, Sweden: Swedish,
    Australia: English, England: English, Hungary: Hungarian, Turkey: Turkish, Finland: Finnish
""")
CURRENCIES = pairs_of("""
    Japan: yen, the United States: dollar, England: pound, France: euro, Germany: euro,
    India: rupee, Russia: rouble, China: yuan, Mexico: peso, Brazil: real, Spain: euro,
    Poland: zloty, Switzerland: franc, Sweden: krona
""")
FRENCH = pairs_of("""
    hello: bonjour, thank you: merci, yes: oui, no: non, dog: chien, cat: chat, water: eau,
    bread: pain, house: maison, red: rouge, goodbye: au revoir, please: s'il vous plaît
""")
GERMAN = pairs_of("""
    hello: hallo, thank you: danke, yes: ja, no: nein, dog: Hund, cat: Katze, water: Wasser,
    bread: Brot, house: Haus, red: rot, goodbye: auf Wiedersehen, please: bitte
""")
SPANISH = pairs_of("""
    hello: hola, thank you: gracias, yes: sí, no: no, dog: perro, cat: gato, water: agua,
    bread: pan, house: casa, red: rojo, goodbye: adiós, please: por favor
""")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words(
    "January February March April May June July August September October November December"
)
ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
)
PLANETS = words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune")
LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]


def following(items: list[str], *, cyclic: bool) -> dict[str, str]:
    """Each item and the one after it."""
    return dict(zip(items, items[1:] + items[: 1 if cyclic else 0], strict=False))


def inverted(pairs: dict[str, str]) -> dict[str, str]:
    return {right: left for left, right in pairs.items()}


MONTH_DAYS = {
    month: "28 days, and 29 in a leap year" if month == "February"
    else "30 days" if month in ("April", "June", "September", "November")
    else "31 days"
    for month in MONTHS
}  # fmt: skip

SAY_ASKS = (
    "How do you say {{x}} in {0}?", "What is {{x}} in {0}?", "What is the {0} word for {{x}}?",
    "Translate {{x}} into {0}.", "{{x}} in {0}?", "How do I say {{x}} in {0}?",
)  # fmt: skip
AFTER_ASKS = (
    "What comes after {x}?", "Which {0} comes after {x}?", "What {0} follows {x}?",
    "What is the {0} after {x}?", "What is the next {0} after {x}?", "{0} after {x}?",
)  # fmt: skip
BEFORE_ASKS = (
    "What comes before {x}?", "Which {0} comes before {x}?", "What is the {0} before {x}?",
    "Which {0} is right before {x}?", "{0} before {x}?",
)  # fmt: skip


def translation(language: str, pairs: dict[str, str]) -> Relation:
    asks = tuple(ask.format(language) for ask in SAY_ASKS)
    return Relation(language, asks, f"In {language}, {{x}} is {{y}}.", pairs)


def neighbour(kind: str, items: list[str], *, cyclic: bool) -> list[Relation]:
    """What comes after and what comes before, for days, months, letters and planets."""
    after = following(items, cyclic=cyclic)
    rows = (("After", AFTER_ASKS, after), ("Before", BEFORE_ASKS, inverted(after)))
    return [
        Relation(
            f"{kind} {word.lower()}",
            tuple(ask.replace("{0}", kind) for ask in asks),
            f"{word} {{x}} comes {{y}}.",
            pairs,
        )
        for word, asks, pairs in rows
    ]


RELATIONS: tuple[Relation, ...] = (
    Relation("capital", (
        "What is the capital of {x}?", "Tell me the capital of {x}.", "capital of {x}?",
        "Which city is the capital of {x}?", "Do you know the capital of {x}?",
        "What's the capital city of {x}?", "Name the capital of {x}.", "{x}'s capital?",
    ), "The capital of {x} is {y}.", CAPITALS),
    Relation("country", (
        "{x} is the capital of which country?", "Of which country is {x} the capital?",
        "Which country has {x} as its capital?", "What country has the capital {x}?",
    ), "{x} is the capital of {y}.", inverted(CAPITALS)),
    Relation("opposite", (
        "What is the opposite of {x}?", "opposite of {x}?", "Tell me the opposite of {x}.",
        "Which word is the opposite of {x}?", "What's the opposite of {x}?",
        "Give me the opposite of {x}.",
    ), "The opposite of {x} is {y}.", OPPOSITES),
    Relation("sound", (
        "What does a {x} say?", "Which sound does a {x} make?", "What sound does a {x} make?",
        "How does a {x} sound?", "What noise does a {x} make?", "What do {x}s say?",
    ), "A {x} says {y}.", SOUNDS),
    Relation("young", (
        "What is a baby {x} called?", "What do you call a baby {x}?", "What is a young {x} called?",
        "What is the name of a baby {x}?", "How do you call a young {x}?",
    ), "A young {x} is called a {y}.", YOUNG),
    Relation("colour", (
        "What colour is {x}?", "What color is {x}?", "Which colour does {x} have?",
        "Which color is {x}?", "Tell me the colour of {x}.", "What is the color of {x}?",
        "What is the colour of {x}?",
    ), "{x} is {y}.", COLOURS),
    Relation("symbol", (
        "What is the chemical symbol for {x}?", "What is the symbol of {x}?", "symbol for {x}?",
        "Which chemical symbol does {x} have?", "Tell me the chemical symbol of {x}.",
        "What's the chemical symbol of {x}?",
    ), "The chemical symbol for {x} is {y}.", SYMBOLS),
    Relation("element", (
        "Which element has the symbol {x}?", "What element is {x}?",
        "What does the chemical symbol {x} stand for?", "Which element is {x} the symbol of?",
    ), "{x} is the symbol for {y}.", inverted(SYMBOLS)),
    Relation("plural", (
        "What is the plural of {x}?", "plural of {x}?", "What's the plural of {x}?",
        "Tell me the plural of {x}.", "One {x}, two what?",
    ), "The plural of {x} is {y}.", PLURALS),
    Relation("past", (
        "What is the past tense of {x}?", "past tense of {x}?", "What's the past tense of {x}?",
        "Tell me the past tense of {x}.", "What is {x} in the past tense?",
    ), "The past tense of {x} is {y}.", PAST),
    Relation("legs", (
        "How many legs does a {x} have?", "How many legs has a {x}?", "number of legs of a {x}?",
        "Tell me how many legs a {x} has.", "How many legs are there on a {x}?",
    ), "A {x} has {y} legs.", LEGS),
    Relation("continent", (
        "On which continent is {x}?", "Which continent is {x} in?", "What continent is {x} on?",
        "Where is {x}?", "In which part of the world is {x}?",
    ), "{x} is in {y}.", CONTINENTS),
    Relation("language", (
        "Which language do people speak in {x}?", "What language is spoken in {x}?",
        "What do people speak in {x}?", "language of {x}?", "What is the language of {x}?",
    ), "In {x}, people speak {y}.", LANGUAGES),
    Relation("currency", (
        "What is the currency of {x}?", "Which money do people use in {x}?", "currency of {x}?",
        "What money is used in {x}?", "What do people pay with in {x}?",
    ), "The currency of {x} is the {y}.", CURRENCIES),
    translation("French", FRENCH), translation("German", GERMAN), translation("Spanish", SPANISH),
    *neighbour("day", DAYS, cyclic=True), *neighbour("month", MONTHS, cyclic=True),
    *neighbour("letter", LETTERS, cyclic=False),
    Relation("planet", (
        "Which planet is the {x} from the sun?", "What is the {x} planet from the sun?",
        "Name the {x} planet.", "What is the {x} planet?",
    ), "The {x} planet from the sun is {y}.", dict(zip(ORDINALS, PLANETS, strict=False))),
    Relation("month number", (
        "What is the {x} month of the year?", "Which month is the {x}?", "Name the {x} month.",
        "What is the {x} month?",
    ), "The {x} month of the year is {y}.", dict(zip(ORDINALS, MONTHS, strict=True))),
    Relation("month days", (
        "How many days does {x} have?", "How many days are in {x}?", "How long is {x}?",
        "How many days are there in {x}?",
    ), "{x} has {y}.", MONTH_DAYS),
)  # fmt: skip

# Facts that stand alone: the wordings, the answer, the word that a right answer must hold.
SINGLE_FACTS: tuple[tuple[tuple[str, ...], str, str], ...] = tuple(
    (tuple(asks.split("|")), answer, key)
    for asks, answer, key in (
        ("How many days are in a week?|How many days does a week have?|days in a week",
         "A week has seven days.", "seven"),
        ("How many months are in a year?|How many months does a year have?|months in a year",
         "A year has twelve months.", "twelve"),
        ("How many days are in a year?|How many days does a year have?|days in a year",
         "A year has 365 days, and 366 in a leap year.", "365"),
        ("How many hours are in a day?|How many hours does a day have?|hours in a day",
         "A day has 24 hours.", "24"),
        ("How many minutes are in an hour?|How many minutes does an hour have?|minutes in an hour",
         "An hour has 60 minutes.", "60"),
        ("How many seconds are in a minute?|How many seconds does a minute have?",
         "A minute has 60 seconds.", "60"),
        ("Name the days of the week.|List the days of the week.|What are the days of the week?",
         "The days of the week are " + ", ".join(DAYS[:-1]) + " and Sunday.", "Thursday"),
        ("Name the months of the year.|List the months.|What are the months of the year?",
         "The months are " + ", ".join(MONTHS[:-1]) + " and December.", "September"),
        ("Name the planets.|List the planets.|What are the planets?|Which planets are there?",
         "The planets are " + ", ".join(PLANETS[:-1]) + " and Neptune.", "Saturn"),
        ("What are the seasons?|Name the four seasons.|List the seasons.",
         "The four seasons are spring, summer, autumn and winter.", "autumn"),
        ("How many planets are there?|How many planets does the solar system have?",
         "There are eight planets.", "eight"),
        ("What is the largest planet?|Which planet is the biggest?|biggest planet",
         "Jupiter is the largest planet.", "Jupiter"),
        ("What is the smallest planet?|Which planet is the smallest?|smallest planet",
         "Mercury is the smallest planet.", "Mercury"),
        ("Which planet is closest to the sun?|What is the nearest planet to the sun?",
         "Mercury is closest to the sun.", "Mercury"),
        ("Which planet is the red planet?|Which planet is red?|What is the red planet?",
         "Mars is the red planet.", "Mars"),
        ("Which planet has rings?|Which planet is famous for its rings?",
         "Saturn is famous for its rings.", "Saturn"),
        ("What is the largest animal?|Which animal is the biggest?|biggest animal",
         "The blue whale is the largest animal.", "whale"),
        ("What is the fastest land animal?|Which animal runs fastest?|fastest animal on land",
         "The cheetah is the fastest land animal.", "cheetah"),
        ("What is the tallest animal?|Which animal is the tallest?|tallest animal",
         "The giraffe is the tallest animal.", "giraffe"),
        ("What is the king of the animals?|Which animal is called the king?|king of the jungle",
         "The lion is called the king of the animals.", "lion"),
        ("What is the highest mountain?|Which mountain is the highest?|tallest mountain on Earth",
         "Mount Everest is the highest mountain.", "Everest"),
        ("What is the largest ocean?|Which ocean is the biggest?|biggest ocean",
         "The Pacific is the largest ocean.", "Pacific"),
        ("What is the largest country?|Which country is the biggest?|biggest country",
         "Russia is the largest country.", "Russia"),
        ("What is the smallest country?|Which country is the smallest?|smallest country",
         "Vatican City is the smallest country.", "Vatican"),
        ("What is the hottest desert?|What is the most famous desert in Africa?|desert in Africa",
         "The Sahara is the great hot desert of Africa.", "Sahara"),
        ("How many continents are there?|number of continents|How many continents does Earth have?",
         "There are seven continents.", "seven"),
        ("Who wrote Romeo and Juliet?|Who is the author of Romeo and Juliet?",
         "William Shakespeare wrote Romeo and Juliet.", "Shakespeare"),
        ("Who wrote Hamlet?|Who is the author of Hamlet?|author of Hamlet",
         "William Shakespeare wrote Hamlet.", "Shakespeare"),
        ("Who painted the Mona Lisa?|Which painter made the Mona Lisa?|painter of the Mona Lisa",
         "Leonardo da Vinci painted the Mona Lisa.", "Leonardo"),
        ("Who was the first man on the moon?|Who first walked on the moon?",
         "Neil Armstrong was the first man on the moon.", "Armstrong"),
        ("Who discovered gravity?|Who found the law of gravity?|Whose law is gravity?",
         "Isaac Newton found the law of gravity.", "Newton"),
        ("Who found the theory of relativity?|Whose theory is relativity?|theory of relativity",
         "Albert Einstein found the theory of relativity.", "Einstein"),
        ("Who wrote the first computer program?|Who was the first programmer?",
         "Ada Lovelace wrote the first computer program.", "Lovelace"),
        ("Where is the Eiffel Tower?|In which city is the Eiffel Tower?",
         "The Eiffel Tower is in Paris.", "Paris"),
        ("Where is the Colosseum?|In which city is the Colosseum?",
         "The Colosseum is in Rome.", "Rome"),
        ("Where are the pyramids?|In which country are the pyramids?",
         "The great pyramids are in Egypt.", "Egypt"),
        ("Where is Big Ben?|In which city is Big Ben?", "Big Ben is in London.", "London"),
        ("Where do penguins live?|On which continent do penguins live?",
         "Penguins live in the south, many of them in Antarctica.", "Antarctica"),
        ("Where do polar bears live?|In which part of the world do polar bears live?",
         "Polar bears live in the Arctic.", "Arctic"),
        ("Where do kangaroos live?|In which country do kangaroos live?",
         "Kangaroos live in Australia.", "Australia"),
        ("What do bees make?|What do we get from bees?|What food do bees make?",
         "Bees make honey.", "honey"),
        ("What do cows give us?|What do we get from cows?", "Cows give us milk.", "milk"),
        ("What do pandas eat?|What is the food of pandas?", "Pandas eat bamboo.", "bamboo"),
        ("What is water made of?|What are the elements in water?|What is in water?",
         "Water is made of hydrogen and oxygen.", "hydrogen"),
        ("What is the formula of water?|What is the chemical formula for water?|formula of water",
         "The chemical formula of water is H2O.", "H2O"),
        ("At what temperature does water boil?|When does water boil?|boiling point of water",
         "Water boils at 100 degrees Celsius.", "100"),
        ("At what temperature does water freeze?|When does water freeze?|freezing point of water",
         "Water freezes at 0 degrees Celsius.", "0"),
        ("What is ice?|What is ice made of?|What is frozen water called?",
         "Ice is frozen water.", "frozen"),
        ("What is the centre of the solar system?|What do the planets go around?",
         "The planets go around the sun.", "sun"),
        ("What goes around the Earth?|What circles the Earth?", "The moon goes around the Earth.",
         "moon"),
        ("What do plants need to grow?|What does a plant need?",
         "Plants need water, light and air.", "light"),
        ("What gas do we breathe?|What do people need to breathe?|Which gas do we need to live?",
         "We breathe air, and need its oxygen.", "oxygen"),
        ("What are the primary colours?|Name the primary colours.|primary colors",
         "The primary colours are red, yellow and blue.", "yellow"),
        ("What are the colours of the rainbow?|Name the colours of the rainbow.|rainbow colors",
         "The rainbow is red, orange, yellow, green, blue, indigo and violet.", "violet"),
        ("What do you get from red and yellow?|Mix red and yellow.|red and yellow make what?",
         "Red and yellow make orange.", "orange"),
        ("What do you get from blue and yellow?|Mix blue and yellow.|blue and yellow make what?",
         "Blue and yellow make green.", "green"),
        ("What do you get from red and blue?|Mix red and blue.|red and blue make what?",
         "Red and blue make purple.", "purple"),
        ("How many letters are in the alphabet?|How many letters does the alphabet have?",
         "The alphabet has 26 letters.", "26"),
        ("What are the vowels?|Name the vowels.|List the vowels.",
         "The vowels are a, e, i, o and u.", "e, i"),
        ("Say the alphabet.|Recite the alphabet.|Tell me the alphabet.|What is the alphabet?",
         " ".join(LETTERS), "L M N O P"),
        ("How many sides does a triangle have?|sides of a triangle|How many sides has a triangle?",
         "A triangle has three sides.", "three"),
        ("How many sides does a square have?|sides of a square", "A square has four sides.",
         "four"),
        ("How many sides does a hexagon have?|sides of a hexagon", "A hexagon has six sides.",
         "six"),
        ("How many wheels does a car have?|How many wheels has a car?", "A car has four wheels.",
         "four"),
        ("How many wheels does a bicycle have?|How many wheels has a bike?",
         "A bicycle has two wheels.", "two"),
        ("How many fingers does a hand have?|How many fingers are on one hand?",
         "A hand has five fingers.", "five"),
        ("How many strings does a violin have?|strings on a violin", "A violin has four strings.",
         "four"),
        ("How many players are in a football team?|How many players has a soccer team?",
         "A football team has eleven players.", "eleven"),
        ("How many cents are in a dollar?|cents in a dollar", "A dollar has 100 cents.", "100"),
        ("How many grams are in a kilogram?|grams in a kilogram", "A kilogram has 1000 grams.",
         "1000"),
        ("How many metres are in a kilometre?|How many meters are in a kilometer?",
         "A kilometre has 1000 metres.", "1000"),
        ("How many bits are in a byte?|How many bits does a byte have?|bits in a byte",
         "A byte has eight bits.", "eight"),
        ("What is the value of pi?|How much is pi?|Tell me pi.", "Pi is about 3.14159.", "3.14"),
        ("What is a baby?|What is a very young person called?", "A baby is a very young person.",
         "young"),
        ("What is a dozen?|How many is a dozen?|How many eggs are in a dozen?",
         "A dozen is twelve.", "twelve"),
        ("When is Christmas?|On which day is Christmas?|date of Christmas",
         "Christmas is on the 25th of December.", "December"),
        ("When is New Year?|On which day does the year begin?|first day of the year",
         "The year begins on the first of January.", "January"),
        ("Where does the sun rise?|In which direction does the sun rise?",
         "The sun rises in the east.", "east"),
        ("Where does the sun set?|In which direction does the sun set?",
         "The sun sets in the west.", "west"),
        ("What is an island?|Explain what an island is.", "An island is land with water all "
         "around it.", "water"),
        ("What is a computer?|Explain what a computer is.",
         "A computer is a machine that follows instructions.", "machine"),
        ("What is Linux?|Do you know Linux?", "Linux is a free operating system.", "operating"),
        ("What is Python?|Do you know Python?", "Python is a programming language, and a snake.",
         "language"),
        ("What is a language model?|What does a language model do?|What is an LLM?",
         "A language model is a program that guesses the next word, again and again.", "next"),
        ("What is a token?|What are tokens?", "A token is a small piece of text: a word, a "
         "letter or a digit.", "text"),
        ("What is a GPU?|What does a GPU do?", "A GPU is a chip that does very many sums at once.",
         "chip"),
        ("What is the Internet?|Explain the Internet.", "The Internet is a net of nets that joins "
         "computers all over the world.", "computers"),
        ("What is the answer to life, the universe and everything?|What is the meaning of life?",
         "Some say that it is 42.", "42"),
    )
)  # fmt: skip
