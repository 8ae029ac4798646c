"""`gangline synth`: a checkpoint in a named model's shape, for measuring without a download."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import msgspec

from gangline.bench.layout import QUANTS
from gangline.bench.shapes import SHAPES
from gangline.cli.options import add_json, positive
from gangline.cli.output import command, counted, note, size
from gangline.cli.signals import ending_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline synth`."""
    parser.description = (
        f"{parser.description}\n\n"
        "It is for `gangline bench engine`: without a tokenizer, no node can serve it."
    )
    parser.add_argument("shape", metavar="SHAPE", help=f"one of {', '.join(SHAPES)}")
    parser.add_argument("out", metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--quant", required=True, metavar="QUANT", help=f"one of {', '.join(QUANTS)}"
    )
    parser.add_argument("--layers", type=positive, metavar="N", help="write only the first N")
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="other random weights")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Write the checkpoint and say where it is."""
    from gangline.bench.synth import synthesize

    for number in ending_signals():  # each of them cleans up as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    written = synthesize(
        options.shape,
        options.quant,
        Path(options.out),
        layers=options.layers,
        seed=options.seed,
        progress=Reporter(f"writing {options.out}"),
    )
    if options.json:
        print(msgspec.json.encode(written).decode())
        return 0
    print(
        f"{written.path}: {written.shape} {written.quant}, {counted(written.n_layers, 'layer')}, "
        f"{size(written.size_bytes)} in {counted(written.n_files, 'file')}\n\n"
        f"{command('bench', 'engine', '--model', written.path)} measures it"
    )
    return 0


def count(text: str) -> int:
    """An argument that may be zero."""
    return 0 if text == "0" else positive(text)


class Reporter:
    """Prints progress in steps of at least a tenth."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = 0.0

    def __call__(self, fraction: float) -> None:
        if fraction >= self.shown + 0.1:
            self.shown = fraction
            note(f"{self.what}, {fraction:.0%}")
