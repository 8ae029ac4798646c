"""Ask the demo model questions that it was not trained on and print how many it gets right.

    python -m tools.eval_demo --endpoint http://127.0.0.1:5454/v1
    python -m tools.eval_demo --torch src/gangline/demo_model

The first way asks any OpenAI-compatible server and needs the standard library only; the second
runs the folder with `transformers`. Exits with 1 if fewer than 95 % of the held-out sums are right.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tools import demo_cases

REQUIRED_SUMS = 0.95
LONGEST_ANSWER = 80
Answerer = Callable[[list[demo_cases.Case]], list[str]]


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON reply of a GET, or of a POST when there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)
    except (urllib.error.URLError, json.JSONDecodeError) as error:
        sys.exit(f"error: {url}: {error}; give the address of an OpenAI API, with its /v1")


def endpoint_answerer(endpoint: str, model: str | None, at_once: int) -> Answerer:
    """Answers from an OpenAI-compatible server; without a name, from its first model."""
    endpoint = endpoint.rstrip("/")
    served = [one["id"] for one in fetch(f"{endpoint}/models")["data"]]
    if not model and not served:
        sys.exit(f"error: {endpoint} serves no model yet; load one there first")
    name = model or served[0]

    def answer(case: demo_cases.Case) -> str:
        body = {
            "model": name,
            "messages": list(case.messages),
            "temperature": 0,
            "max_tokens": LONGEST_ANSWER,
        }
        return str(fetch(f"{endpoint}/chat/completions", body)["choices"][0]["message"]["content"])

    def answer_all(cases: list[demo_cases.Case]) -> list[str]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(answer, cases))

    return answer_all


def torch_answerer(folder: str) -> Answerer:
    """Answers from `transformers` on this machine: the folder's weights, run in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def answer_some(cases: list[demo_cases.Case]) -> list[str]:
        prompts = [
            tokenizer.apply_chat_template(
                list(case.messages), tokenize=False, add_generation_prompt=True
            )
            for case in cases
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=LONGEST_ANSWER)
        new = output[:, inputs["input_ids"].shape[1] :]
        return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]

    def answer_all(cases: list[demo_cases.Case]) -> list[str]:
        groups = [cases[at : at + 64] for at in range(0, len(cases), 64)]
        return [text for group in groups for text in answer_some(group)]

    return answer_all


def print_table(rows: dict[str, tuple[int, int]]) -> None:
    print(f"{'CATEGORY':<14}{'N':>5}{'RIGHT':>8}{'PERCENT':>10}")
    for category, (right, asked) in rows.items():
        print(f"{category:<14}{asked:>5}{right:>8}{100 * right / asked:>9.1f}%")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible server")
    where.add_argument("--torch", metavar="FOLDER", help="a checkpoint, run with transformers")
    parser.add_argument("--model", help="name of the model at the endpoint (default: its first)")
    parser.add_argument("--at-once", type=int, default=4, help="requests in flight (default: 4)")
    parser.add_argument("--sums", type=int, default=400, help="held-out sums (default: 400)")
    parser.add_argument("--seed", type=int, default=2026, help="seed of the drawn questions")
    parser.add_argument("--category", action="append", help="only this category (may be repeated)")
    parser.add_argument("--wrong", action="store_true", help="show wrong answers on stderr")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    cases = demo_cases.held_out_cases(options.seed, options.sums)
    known = list(dict.fromkeys(case.category for case in cases))
    for name in options.category or ():
        if name not in known:
            print(f"error: no category `{name}`; there are: {', '.join(known)}", file=sys.stderr)
            return 2
    cases = [case for case in cases if case.category in (options.category or known)]
    if options.torch:
        answerer = torch_answerer(options.torch)
    else:
        answerer = endpoint_answerer(options.endpoint, options.model, options.at_once)
    started = time.monotonic()
    answers = answerer(cases)
    seconds = time.monotonic() - started
    rows: dict[str, tuple[int, int]] = {}
    for case, answer in zip(cases, answers, strict=True):
        right, asked = rows.get(case.category, (0, 0))
        rows[case.category] = (right + case.is_right(answer), asked + 1)
        if options.wrong and not case.is_right(answer):
            wanted = case.exact or " | ".join(case.keys)
            question = case.messages[-1]["content"]
            print(f"{case.category}: {question!r} -> {answer!r}, not {wanted!r}", file=sys.stderr)
    if options.json:
        table = {name: {"n": n, "right": r} for name, (r, n) in rows.items()}
        print(json.dumps({"version": 1, "seconds": round(seconds, 1), "categories": table}))
    else:
        print_table(rows)
    right, asked = rows.get("sums", (1, 1))
    return 0 if right >= REQUIRED_SUMS * asked else 1


if __name__ == "__main__":
    sys.exit(main())
