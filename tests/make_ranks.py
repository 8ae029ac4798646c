"""Gives a model folder Kimi's kind of tokenizer: `tiktoken.model` and special tokens."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).parent / "fixtures" / "tiktoken.json"  # tools/conformance_tiktoken.py

BYTES = [bytes([byte]) for byte in range(256)]
# Place behind the ranks → text, whether it is special. As of Kimi K2, with places left out.
SPECIALS = {
    0: ("[BOS]", True),
    1: ("[EOS]", True),
    2: ("<|im_end|>", True),
    3: ("<|im_user|>", True),
    4: ("<|im_assistant|>", True),
    10: ("<|im_system|>", True),
    11: ("<|tool_calls_section_begin|>", False),
    17: ("<|im_middle|>", True),
    254: ("[UNK]", True),
    255: ("[PAD]", True),
}
SPECIALS_TEXT = "[BOS]<|im_user|>user<|im_middle|>Hi <|im_end|>\n<|tool_calls_section_begin|>[EO S]"

TEMPLATE = (
    "{% for message in messages %}<|im_{{ message['role'] }}|>{{ message['role'] }}<|im_middle|>"
    "{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
)


def ranks_file(tokens: Sequence[bytes]) -> bytes:
    return b"".join(b"%b %d\n" % (b64encode(token), rank) for rank, token in enumerate(tokens))


def make_ranks(folder: Path, tokens: Sequence[bytes]) -> dict[str, Any]:
    """Write tiktoken.model and tokenizer_config.json into a folder; returns the latter."""
    (folder / "tiktoken.model").write_bytes(ranks_file(tokens))
    config = {
        "added_tokens_decoder": {
            str(len(tokens) + place): {"content": text, "special": special}
            for place, (text, special) in SPECIALS.items()
        },
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "chat_template": TEMPLATE,
        "tokenizer_class": "TikTokenTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return config
