"""The two sides of `benchmarks/engine.py`: what they run, on models of the same shape and bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gangline.bench.engine import Engine
from gangline.bench.synth import synthesize
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend

SIDE = Path(__file__).with_name("llama_side.py")
INSTALL = "pip install llama-cpp-python gguf numpy"


class Case(NamedTuple):
    """One thing that both do; `tokens` are those of a prompt, or of each lane."""

    name: str
    do: str  # "prefill" or "decode"
    tokens: int
    threads: int
    lanes: int = 1
    depth: int = 0


class Group(NamedTuple):
    """Cases that share a loaded model: shape (its first layers), quant, lanes and context."""

    shape: str
    quant: str
    lanes: int
    context: int
    cases: tuple[Case, ...]
    layers: int | None = None  # all


class Ours:
    """Gangline, in this process."""

    def __init__(self, path: Path, group: Group) -> None:
        self.operations = open_backend("auto", max(case.threads for case in group.cases))
        self.checkpoint = open_checkpoint(path)
        self.engine = Engine(
            self.checkpoint, self.operations, context=group.context, lanes=group.lanes
        )

    def run(self, case: Case) -> float:
        """Seconds."""
        open_backend(self.operations.name, case.threads)  # the pool is one per process
        if case.do == "prefill":
            return self.engine.prefill(case.tokens)
        return sum(self.engine.decode(case.tokens, case.lanes, case.depth))

    def fill(self, case: Case) -> None:
        open_backend(self.operations.name, case.threads)
        self.engine.prefill(case.depth)


class Theirs:
    """llama.cpp, in a process that waits on its stdin while it is not its turn."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.system = str(self._read()["ready"])

    def run(self, case: Case) -> float:
        """Seconds."""
        return float(self._ask(case._asdict())["seconds"])

    def fill(self, case: Case) -> None:
        self._ask({"do": "prefill", "tokens": case.depth, "threads": case.threads})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None, "made with pipes"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "made with pipes"
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"llama.cpp ended with {self._process.wait()} (negative: a signal; 4 is an illegal "
                "instruction: see the head of benchmarks/engine.py for how to build it)"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def llama(python: str, path: Path, group: Group) -> Iterator[Theirs]:
    """A llama.cpp process that ends with the block."""
    command = [python, str(SIDE), "serve", str(path), str(group.lanes), str(group.context)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_plain_environment()
    )
    try:
        yield Theirs(process)
    finally:
        process.kill()
        process.wait()


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def prepare(group: Group, folder: Path, python: str) -> tuple[Path, Path]:
    """The two models, written where they are not there yet."""
    layers = "" if group.layers is None else f"-{group.layers}-layers"
    name = f"{group.shape}-{group.quant}{layers}"
    ours, theirs = folder / name, folder / f"{name}.gguf"
    if not ours.exists():
        note(f"writing {ours}")
        synthesize(group.shape, group.quant, ours, layers=group.layers)
    if not theirs.exists():
        note(f"writing {theirs}")
        partial = theirs.with_suffix(".partial")
        config = str(ours / "config.json")
        subprocess.run(
            [python, str(SIDE), "write", config, group.quant, str(partial)],
            check=True,
            env=_plain_environment(),
        )
        partial.rename(theirs)
    return ours, theirs


def check_llama(python: str) -> None:
    """Say how to install llama.cpp, before anything is written."""
    try:
        done = subprocess.run(
            [python, "-c", "import llama_cpp, gguf, numpy"],
            capture_output=True,
            text=True,
            env=_plain_environment(),
        )
    except OSError as error:
        raise SystemExit(f"error: cannot run {python}: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SystemExit(
            f"error: {python} has no llama-cpp-python ({last})\n\n"
            f"hint: in an environment of its own, `{INSTALL}`, and name its interpreter by "
            "--llama-python (LLAMA_PYTHON for make); where the build dies, see "
            "`python -m benchmarks.engine --help`"
        )


def note(text: str) -> None:
    """A line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
