"""`gangline unload`: take a model off the cluster."""

from __future__ import annotations

import argparse

from gangline.cli.common import client_of, unload
from gangline.cli.options import add_url
from gangline.cli.output import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline unload`."""
    parser.add_argument("model", metavar="MODEL", help="id of a loaded model")
    add_url(parser)


def run(options: argparse.Namespace) -> int:
    """Unload; answers under way end with an error."""
    unload(client_of(options), options.model)
    note(f"unloaded {options.model}")
    return 0
