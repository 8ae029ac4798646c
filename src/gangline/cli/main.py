"""`gangline COMMAND …`: the table of commands, and what becomes of their errors.

A command is a module with `add_arguments(parser)` and `run(options) -> exit code`; it is imported
only when it is asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

from gangline import __version__
from gangline.cli.output import error_text, note
from gangline.errors import GanglineError, UsageError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Command(NamedTuple):
    """A row of the table: `does` opens with a capitalised verb; the examples are real."""

    name: str
    does: str
    examples: tuple[str, ...]


COMMANDS = (
    Command(
        "demo",
        "Run several nodes on this machine, with a small model split over them",
        ("gangline demo", "gangline demo --nodes 5 --no-browser"),
    ),
    Command(
        "up",
        "Start a node on this machine",
        ("gangline up demo", "gangline up --listen 0.0.0.0 --peer 192.168.1.20"),
    ),
    Command(
        "status",
        "Show the cluster: its nodes, and which layers of a model run where",
        ("gangline status", "gangline status --json"),
    ),
    Command("models", "List the models that the nodes store", ("gangline models",)),
    Command(
        "load",
        "Load a model onto the cluster",
        ("gangline load demo", "gangline load demo --on studio --on tower --spread"),
    ),
    Command("unload", "Unload a model from all nodes", ("gangline unload demo",)),
    Command(
        "chat",
        "Talk with a loaded model",
        ("gangline chat", 'gangline chat demo "What is 17 + 25?"'),
    ),
    Command(
        "plan",
        "Predict what a model does on machines, before anything is bought or downloaded",
        (
            'gangline plan llama-3.3-70b --on "m3-ultra-512 x4" --link tb5-rdma',
            "gangline plan demo",
        ),
    ),
    Command(
        "shop",
        "Find machines to buy for a model, or lay some side by side",
        (
            "gangline shop gpt-oss-120b --min-tps 20 --budget 5000",
            "gangline shop --compare m4-max-128 dgx-spark strix-halo-128",
        ),
    ),
    Command(
        "synth",
        "Write a checkpoint with random weights in the shape of a known model",
        ("gangline synth llama-3.2-1b --quant q4 /tmp/llama-3.2-1b-q4",),
    ),
    Command(
        "bench",
        "Measure how fast this machine runs a model, or what it can do",
        (
            "gangline bench engine --model /tmp/llama-3.2-1b-q4 --threads 2 --json",
            "gangline bench machine",
        ),
    ),
)


class Parser(argparse.ArgumentParser):
    """argparse with errors in the house's form."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 done, 1 failed, 2 wrong usage, 3 unhealthy."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter shows `?`
            stream.reconfigure(errors="replace")
    try:
        code = run(given)
        sys.stdout.flush()
        return code
    except GanglineError as error:
        note(error_text(error))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `gangline status | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(given: list[str]) -> int:
    """Find the command and run it."""
    name = given[0] if given else ""
    if name in ("-V", "--version"):
        print(f"gangline {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if not name:
        note(overview())
        return EXIT_USAGE
    command = find(name)
    module = importlib.import_module(f"gangline.cli.{command.name}")
    options = make_parser(command, module).parse_args(given[1:])
    code = module.run(options)
    assert isinstance(code, int), "every command returns its exit code"
    return code


def find(name: str) -> Command:
    """The row of a command; an unknown one names the nearest."""
    for command in COMMANDS:
        if command.name == name:
            return command
    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], 1)
    hint = f"did you mean `gangline {near[0]}`?" if near else "`gangline --help` lists them"
    raise UsageError(f"there is no command `{name}`", hint=hint)


def make_parser(command: Command, module: ModuleType) -> Parser:
    """The parser of one command, with its help."""
    examples = "\n".join(f"  {example}" for example in command.examples)
    parser = Parser(
        prog=f"gangline {command.name}",
        description=command.does,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def overview() -> str:
    """The help of `gangline` itself."""
    width = max(len(command.name) for command in COMMANDS)
    rows = "\n".join(f"  {command.name:<{width}}  {command.does}" for command in COMMANDS)
    return (
        "Run one open language model over the machines you already own\n\n"
        f"usage: gangline COMMAND …\n\n{rows}\n\n"
        "`gangline COMMAND --help` shows what a command takes\n\n"
        "examples:\n  gangline demo\n  gangline up demo\n"
        "  gangline plan llama-3.3-70b --on m4-max-128"
    )
