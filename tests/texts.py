"""What tokenizers are trained and compared on: many scripts, and what is hard to cut."""

SCRIPTS = {
    "Latin": "Sled dogs don't complain; they're running. DON'T! Zażółć gęślą jaźń, naïve cafés.",
    "combining": "cafe\u0301 Z\u0323\u0307a\u0308 i\u0307stanbul",
    "Cyrillic": "Собаки тянут нарты по снегу, не жалуясь. ЁЖИК и ёлка.",
    "Greek": "Τα σκυλιά τραβούν το έλκηθρο στο χιόνι.",
    "Arabic": "الكلاب تجر الزلاجة عبر الثلج، ١٢٣ كلبًا.",
    "Hebrew": "הכלבים מושכים את המזחלת בַּשֶּׁלֶג.",
    "Devanagari": "कुत्ते बर्फ़ पर स्लेज खींचते हैं। १२३४",
    "Chinese": "狗拉着雪橇穿过雪地，共有十二只。",
    "Japanese": "犬たちはソリを引いて、雪の上を走ります。カタカナー！",
    "Korean": "개들이 눈 위로 썰매를 끕니다. 123마리",
    "emoji": "👩‍👩‍👧‍👦 🛷🐕‍🦺 ❤️ 🇫🇮 👍🏽!",
    "digits": "1 22 333 4444 55555 3.14159 1,000,000 ½ Ⅷ ²",
    "code": "def f(x):\n\treturn {'a': x[0] != 1}  # done\r\n\r\n    if (a && b) { i++; }\n",
    "whitespace": "  two   three \t tab \n\n\n   end   ",
    "empty": "",
    "specials": "<|begin|>Hi<|stop|> <|begin|>",
}
TEXT = "\n".join(SCRIPTS.values())
