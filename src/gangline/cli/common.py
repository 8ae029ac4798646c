"""Options and requests that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import closing
from urllib.parse import quote

import msgspec

from gangline.cli.client import Client, default_url
from gangline.errors import GanglineError, ProtocolError
from gangline.facts import BACKENDS, ClusterState, ModelFacts

UNLOAD_S = 60.0
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


def client_of(options: argparse.Namespace) -> Client:
    """The client for `--url`."""
    return Client(options.url or default_url())


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


def watch_states(client: Client) -> Generator[ClusterState, None, None]:
    """The cluster's state, now and after each change."""
    with closing(client.events("GET", "/cluster/events")) as events:
        for event in events:
            if event.kind == "state":
                yield msgspec.json.decode(event.data, type=ClusterState)


def wait_ready(
    client: Client, wanted: ModelFacts, report: Callable[[ModelFacts], None]
) -> ModelFacts:
    """Wait until a model answers; raises what made it fail."""
    with closing(watch_states(client)) as states:
        for state in states:
            for model in state.models:
                if model.id != wanted.id or model.epoch < wanted.epoch:
                    continue
                report(model)
                if model.state == "ready":
                    return model
                if model.state == "failed":
                    raise GanglineError(
                        f"model `{model.id}` failed: {model.reason}",
                        hint="`gangline status` shows the nodes",
                    )
    raise ProtocolError(f"the node at {client.url} closed the connection")


def unload(client: Client, model: str) -> None:
    """Unload a model, and wait until its memory is free."""
    client.request("DELETE", f"/cluster/models/{quote(model, safe='')}", timeout_s=UNLOAD_S)
    with closing(watch_states(client)) as states:
        for state in states:
            if all(one.id != model for one in state.models):
                return
