"""Record what `transformers` computes for the demo model, for tests that have no PyTorch.

    python -m tools.record_demo_logits

Writes `tests/fixtures/demo_logits.npz` (float32 logits of the shipped bfloat16 weights; arrays
`N.ids`, `N.positions`, `N.logits` for prompt N) and `tests/fixtures/demo_chat.json` (rendered chat
templates and their ids).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gangline.paths import demo_model

FOLDER = demo_model()
FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
LAST_POSITIONS = 12  # of a long prompt; a short one is recorded whole
SHORT_PROMPT = 48
LONG_TEXT = "Ten small dogs upon the snow, all on one line, away they go. "

CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "What is 17 + 25?"}],
    [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is Gangline?"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Zoë."},
        {"role": "assistant", "content": "Nice to meet you, Zoë!"},
        {"role": "user", "content": "What's my name?\nAnd what is 30 - 9?"},
    ],
    [
        {"role": "user", "content": "Reverse cat."},
        {"role": "assistant", "content": "tac"},
        {"role": "user", "content": "こんにちは 🐕 naïve  two  spaces"},
        {"role": "assistant", "content": "I did not understand that."},
        {"role": "user", "content": " Count from 1 to 30 "},
    ],
]


def chat_records(tokenizer: Any) -> list[dict[str, Any]]:
    """Every conversation with and without the generation prompt."""
    records = []
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            record = {"messages": messages, "add_generation_prompt": prompt}
            records.append({**record, "text": text, "ids": ids})
    return records


def prompts(tokenizer: Any, chats: list[dict[str, Any]]) -> list[list[int]]:
    """Ids of prompts of 1, few, about 100 and about 250 tokens, and of two conversations."""
    texts = ("7", "What is 17 + 25?", "Reverse naïve 🐕.", LONG_TEXT * 6, LONG_TEXT * 15)
    plain = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return [*plain, chats[0]["ids"], chats[4]["ids"]]


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    chats = chat_records(tokenizer)
    arrays: dict[str, Any] = {}
    for number, ids in enumerate(prompts(tokenizer, chats)):
        first = 0 if len(ids) <= SHORT_PROMPT else len(ids) - LAST_POSITIONS
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, first:]
        arrays[f"{number}.ids"] = np.array(ids, dtype=np.int32)
        arrays[f"{number}.positions"] = np.arange(first, len(ids), dtype=np.int32)
        arrays[f"{number}.logits"] = logits.numpy().astype(np.float32)
        print(f"prompt {number}: {len(ids)} tokens, logits {logits.shape[0]} x {logits.shape[1]}")
    np.savez_compressed(FIXTURES / "demo_logits.npz", **arrays)
    text = json.dumps({"version": 1, "chats": chats}, ensure_ascii=False, indent=1)
    (FIXTURES / "demo_chat.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
