"""`gangline models`: what the nodes store, and what of it runs."""

from __future__ import annotations

import argparse
import textwrap

from gangline.cli.common import client_of
from gangline.cli.options import add_json, add_url
from gangline.cli.output import counted, size, table
from gangline.cli.status import advice
from gangline.facts import ClusterState, StoredModel

REASON_WIDTH = 80
HEADER = ("MODEL", "FAMILY", "LAYERS", "SIZE", "STORED ON", "STATE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline models`."""
    add_url(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the models; JSON is a list of what `GET /cluster/models` returns."""
    client = client_of(options)
    if options.json:
        print(client.request("GET", "/cluster/models").decode())
        return 0
    print("\n".join(render(client.get("/cluster/state", ClusterState))))
    return 0


def unsupported(model: StoredModel) -> str:
    """Why it cannot run, as much of it as a table has room for; `gangline load` says all of it."""
    reason = model.reason.replace(f"{model.path}/", "")
    return f"unsupported: {textwrap.shorten(reason, REASON_WIDTH, placeholder=' …')}"


def render(state: ClusterState) -> list[str]:
    """A row for each model, and what to do next."""
    stored: dict[str, tuple[StoredModel, list[str]]] = {}
    for node in state.nodes:
        for model in node.stored:
            stored.setdefault(model.id, (model, []))[1].append(node.name)
    running = {model.id: model.state for model in state.models}
    rows = [
        (
            model.id,
            model.family,
            str(model.n_layers),
            size(model.size_bytes),
            names[0] if len(names) == 1 else counted(len(names), "node"),
            running.get(model.id, "" if model.supported else unsupported(model)),
        )
        for _, (model, names) in sorted(stored.items(), key=lambda entry: entry[0])
    ]
    return [*table(HEADER, rows), "", advice(state)]
