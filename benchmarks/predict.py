"""What the planner says of 1, 2 and 3 nodes behind throttled links, and what they then do.

    python -m benchmarks.predict [--gbps 0.1 1 10] [--rtt-ms 0.1 1 5] [--json]

For each link: real nodes with one thread each in network namespaces (`benchmarks.links`), measured
anew, which measure their links themselves. Each cluster is asked for its plan, loads it, and after
a pause as users make them reads a prompt and answers one lane; the table holds what the plan said
and the medians of what happened. Last, the nodes are free to choose: what they load should be the
fastest of what was measured. On a machine that other work slows down or lets go meanwhile there is
nothing to compare with: where its own speed is another one afterwards, the link is done again.
The model has the shape of a Llama with random weights and the demo's tokenizer. Linux, as root.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tokenizers import Tokenizer

from benchmarks.links import address, linked
from gangline.bench.layout import quantization_of
from gangline.bench.shapes import SHAPES
from gangline.bench.synth import write_checkpoint
from gangline.hardware.facts import machine_facts
from gangline.hardware.measure import Measurement, measurement_key, run_measurement, write_cache
from gangline.node.config import DEFAULT_PORT
from gangline.paths import demo_model

MODEL = "predict"
SIZES: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 4096, "vocab_size": 8192,
    "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 1023,
    "pad_token_id": 1021,
}  # fmt: skip
BITS = 4
NODES = 3
WORDS = "the cat sat on the mat and saw a bird in the big tree "
REPEATED = 5  # 245 tokens, one step: stages that overlap would share this machine's cores
TOKENS = 48  # of an answer
ROUNDS = 5
IDLE_S = 1.0  # before each prompt: TCP's windows close
STEADY = 0.07  # the machine's speed before and after may differ by so much
ATTEMPTS = 3  # at a link
WITHIN_DECODE, WITHIN_PROMPT = 0.10, 0.15
SAME = 0.98  # of the best speed: what is faster than this is as fast
WAIT_S = 60.0


def main() -> int:
    options = parse_arguments()
    rows: list[dict[str, Any]] = []
    choices: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gangline-predict-") as folder:
        model = make_model(Path(folder) / MODEL)
        prompt = prompt_of(model, options.repeated)
        for gbps in options.gbps:
            for rtt_ms in options.rtt_ms:
                for attempt in range(1, ATTEMPTS + 1):
                    found, choice = measure_link(Path(folder), model, prompt, gbps, rtt_ms)
                    if is_steady(choice) or attempt == ATTEMPTS:
                        break
                    print(f"# again: {speeds_text(choice)}", file=sys.stderr, flush=True)
                rows += found
                choices.append(choice)
                if not options.json:
                    print(*map(row_text, found), choice_text(choice), sep="\n")
                    sys.stdout.flush()
    good = all(row["good"] for row in rows) and all(choice["good"] for choice in choices)
    if options.json:
        print(json.dumps({"version": 1, "rows": rows, "choices": choices, "good": good}))
    return 0 if good else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare predictions with measurements")
    parser.add_argument("--gbps", type=float, nargs="+", default=[0.1, 1.0, 10.0])
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[0.1, 1.0, 5.0])
    parser.add_argument(
        "--repeated",
        type=int,
        default=REPEATED,
        help="length of the prompt: about 49 tokens each; from 6 on it takes several steps",
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measure_link(
    folder: Path, model: Path, prompt: tuple[str, int], gbps: float, rtt_ms: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each number of nodes, and what the nodes chose."""
    link = {"gbps": gbps, "rtt_ms": rtt_ms}
    before = measured(folder)
    with started(folder, model, gbps, rtt_ms, before) as ask:
        rows = [link | compare(ask, count, *prompt) for count in range(1, NODES + 1)]
        choice = choose(ask, [row["decode_tps"] for row in rows])
    after = measured(folder)
    speeds = {
        "read_gbps": [round((one.read_bytes_per_s or 0) / 1e9, 1) for one in (before, after)],
        "gflops": [round((one.operations_per_s or 0) / 1e9, 1) for one in (before, after)],
    }
    return rows, link | choice | speeds


def measured(folder: Path) -> Measurement:
    """What one thread of this machine does now."""
    return run_measurement(folder, 1, "auto", WAIT_S)


def is_steady(choice: dict[str, Any]) -> bool:
    """Whether the machine was as fast afterwards as it was before."""
    pairs = (choice["read_gbps"], choice["gflops"])
    return all(abs(after - before) <= STEADY * before for before, after in pairs)


def make_model(path: Path) -> Path:
    config: dict[str, Any] = {**SHAPES["llama-3.2-1b"].config, **SIZES}
    del config["rope_scaling"]
    form = quantization_of(config, BITS)
    write_checkpoint(config | {"quantization": form, "quantization_config": form}, BITS, path)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(demo_model() / name, path / name)
    tokenizer = json.loads((demo_model() / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    known = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    vocabulary |= {f"<{n}>": n for n in range(SIZES["vocab_size"]) if n not in known}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


def prompt_of(model: Path, repeated: int) -> tuple[str, int]:
    """A prompt and its number of tokens."""
    text = WORDS * repeated
    return text, len(Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids)


class Ask:
    """Requests to the first node."""

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        answer = self.open(method, path, body)
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    def open(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(address(0), DEFAULT_PORT, timeout=WAIT_S)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection.getresponse()

    def until(self, holds: Any, what: str) -> Any:
        end_s = time.monotonic() + WAIT_S
        while time.monotonic() < end_s:
            try:
                state = self("GET", "/cluster/state")
                if holds(state):
                    return state
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.05)
        sys.exit(f"not within {WAIT_S:.0f} s: {what}")


@contextmanager
def started(
    folder: Path, model: Path, gbps: float, rtt_ms: float, measurement: Measurement
) -> Iterator[Ask]:
    """Nodes that know themselves and their links."""
    tag = f"gp{secrets.token_hex(2)}"
    with ExitStack() as stack:
        homes = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))) for _ in range(NODES)
        ]
        for home in homes:
            write_cache(home / "machine.json", measurement_key(machine_facts(home), 1), measurement)
        names = stack.enter_context(linked(tag, NODES, gbps, rtt_ms / 1e3))
        for index, (name, home) in enumerate(zip(names, homes, strict=True)):
            stack.enter_context(node(name, index, home, model, tag))
        ask = Ask()
        ask.until(knows_all, "all nodes and their links are known")
        yield ask


@contextmanager
def node(name: str, index: int, home: Path, model: Path, tag: str) -> Iterator[None]:
    command = [
        "ip", "netns", "exec", name, sys.executable, "-m", "gangline", "up",
        "--listen", address(index), "--name", f"n{index}", "--cluster", tag, "--no-scout",
        "--threads", "1", "--models-dir", str(model),
    ]  # fmt: skip
    if index:
        command += ["--peer", address(0)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | {"GANGLINE_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(WAIT_S)


def knows_all(state: Any) -> bool:
    nodes = [one for one in state["nodes"] if one["alive"] and one["stored"]]
    links = [link for one in nodes for link in one["links"] if link["gbps"]]
    return len(nodes) == NODES and len(links) == NODES * (NODES - 1)


def compare(ask: Ask, count: int, prompt: str, n_tokens: int) -> dict[str, Any]:
    """What is said of the first `count` nodes, and what they do."""
    names = ",".join(f"n{index}" for index in range(count))
    plan = ask(
        "GET",
        f"/cluster/plan?model={MODEL}&spread=1&lanes=1&nodes={quote(names)}&prompt={n_tokens}",
    )
    said = plan["forecast"]
    load(ask, {"nodes": names.split(","), "spread": True, "lanes": 1})
    answer(ask, "warm")
    times = [answer(ask, prompt) for _ in range(ROUNDS)]
    unload(ask)
    decode_tps = statistics.median(tps for _, tps in times)
    ttft_s = statistics.median(first_s for first_s, _ in times)
    decode_error = said["decode_tps"] / decode_tps - 1
    ttft_error = said["ttft_s"] / ttft_s - 1
    return {
        "nodes": count,
        "prompt": n_tokens,
        "decode_tps_said": said["decode_tps"],
        "decode_tps": round(decode_tps, 2),
        "decode_error": round(decode_error, 3),
        "ttft_s_said": said["ttft_s"],
        "ttft_s": round(ttft_s, 4),
        "ttft_error": round(ttft_error, 3),
        "good": abs(decode_error) <= WITHIN_DECODE and abs(ttft_error) <= WITHIN_PROMPT,
    }


def choose(ask: Ask, measured: list[float]) -> dict[str, Any]:
    """How many nodes are loaded when nobody says how many, and whether that was the fastest."""
    load(ask, {"lanes": 1})
    (facts,) = [one for one in ask("GET", "/cluster/state")["models"] if one["id"] == MODEL]
    count = len(facts["stages"])
    unload(ask)
    return {"loaded_on": count, "good": measured[count - 1] >= SAME * max(measured)}


def load(ask: Ask, wish: dict[str, Any]) -> None:
    ask("POST", "/cluster/models", {"model": MODEL, **wish})
    ask.until(
        lambda state: any(one["state"] == "ready" for one in state["models"]), f"{wish} is loaded"
    )


def unload(ask: Ask) -> None:
    ask("DELETE", f"/cluster/models/{MODEL}")
    ask.until(
        lambda state: not any(one["workers"] for one in state["nodes"]), "the model is unloaded"
    )


def answer(ask: Ask, prompt: str) -> tuple[float, float]:
    """Seconds to the first token, tokens per second from then on."""
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    time.sleep(IDLE_S)
    began_s = time.perf_counter()
    response = ask.open("POST", "/v1/completions", body)
    if response.status != 200:
        sys.exit(f"no answer: {response.status} {response.read().decode()}")
    times: list[float] = []
    usage: dict[str, int] = {}
    while line := response.readline():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        if event.get("choices"):
            times.append(time.perf_counter())
    decode_tps = (usage["completion_tokens"] - 1) / (times[-1] - times[0])
    return times[0] - began_s, decode_tps


def row_text(row: dict[str, Any]) -> str:
    return (
        f"{row['gbps']:>5g} Gbit/s {row['rtt_ms']:>4g} ms  {row['nodes']} nodes  decode "
        f"{row['decode_tps_said']:7.1f} said {row['decode_tps']:7.1f} done "
        f"{row['decode_error']:+6.1%}  first token {row['ttft_s_said'] * 1e3:7.0f} said "
        f"{row['ttft_s'] * 1e3:7.0f} ms done {row['ttft_error']:+6.1%}"
        f"{'' if row['good'] else '  MISSED'}"
    )


def choice_text(choice: dict[str, Any]) -> str:
    verdict = "the fastest" if choice["good"] else "NOT the fastest"
    steady = "" if is_steady(choice) else "; the machine was NOT steady"
    return (
        f"# free to choose, {choice['loaded_on']} of {NODES} nodes were loaded: {verdict}; "
        f"{speeds_text(choice)}{steady}"
    )


def speeds_text(choice: dict[str, Any]) -> str:
    reads, rates = choice["read_gbps"], choice["gflops"]
    return (
        f"one thread read {reads[0]} GB/s before and {reads[1]} after, "
        f"and computed {rates[0]} and {rates[1]} GFLOP/s"
    )


if __name__ == "__main__":
    sys.exit(main())
