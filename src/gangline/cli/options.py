"""Options that several commands share; nothing here asks a node."""

from __future__ import annotations

import argparse

from gangline.facts import BACKENDS

MAX_THREADS = 1024  # of a worker


def add_url(parser: argparse.ArgumentParser) -> None:
    """`--url`: which node to ask."""
    parser.add_argument(
        "--url", metavar="URL", help="address of a node (default: GANGLINE_URL, or this machine)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: for scripts."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """`--backend`: what computes; the node checks the name too, for those who use its API."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        metavar="NAME",
        help=f"what computes: {', '.join(BACKENDS)} (default: auto)",
    )


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number")
    return number


def threads(text: str) -> int:
    """How many threads compute; more than MAX_THREADS no machine has."""
    if positive(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"`{text}` is outside 1..{MAX_THREADS}")
    return int(text)
