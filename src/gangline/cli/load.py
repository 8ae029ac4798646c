"""`gangline load`: put a model on the cluster and wait until it answers."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from gangline.cli.common import client_of, wait_ready
from gangline.cli.options import add_backend, add_json, add_url, positive
from gangline.cli.output import command, note, table
from gangline.facts import ClusterState, LoadRequest, ModelFacts
from gangline.node.stored import is_model
from gangline.plan.solve import DEFAULT_CONTEXT, LANE_CHOICES

LOAD_S = 60.0  # to plan and begin, not to finish


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline load`."""
    parser.add_argument(
        "model", metavar="MODEL", help="a stored model, or a folder or file on that node"
    )
    parser.add_argument(
        "--on", action="append", metavar="NODE", help="use only this node; may be repeated"
    )
    parser.add_argument(
        "--context",
        type=positive,
        metavar="N",
        help=f"tokens per conversation (default: {DEFAULT_CONTEXT}, or the model's own limit)",
    )
    parser.add_argument(
        "--lanes",
        type=positive,
        metavar="N",
        help=f"conversations at a time (default: as memory allows, at most {max(LANE_CHOICES)})",
    )
    parser.add_argument(
        "--spread", action="store_true", help="use every node, even where fewer are faster"
    )
    add_backend(parser)
    add_url(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Load, wait, print who holds what."""
    client = client_of(options)
    request = LoadRequest(
        model=local_path(options.model),
        nodes=tuple(options.on) if options.on else None,
        context=options.context,
        lanes=options.lanes,
        spread=options.spread,
        backend=options.backend,
    )
    begun = client.post("/cluster/models", request, ModelFacts, LOAD_S)
    ready = wait_ready(client, begun, Reporter())
    if options.json:
        print(msgspec.json.encode(ready).decode())
        return 0
    state = client.get("/cluster/state", ClusterState)
    print("\n".join(render(state, ready)))
    return 0


def local_path(model: str) -> str:
    """A model that lies here becomes absolute, since the node runs elsewhere; ids stay."""
    try:
        path = Path(model).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # no such folder, `~nobody`, a NUL
        return model
    holds_gguf = path.is_dir() and any(path.glob("*.gguf"))
    return str(path) if is_model(path) or holds_gguf else model


class Reporter:
    """Prints progress in steps of at least a tenth."""

    def __init__(self) -> None:
        self.shown = -1.0

    def __call__(self, model: ModelFacts) -> None:
        if model.state == "loading" and model.progress >= self.shown + 0.1:
            self.shown = model.progress
            note(f"loading {model.id}, {model.progress:.0%}")


def render(state: ClusterState, model: ModelFacts) -> list[str]:
    """Who got what, and why."""
    names = {node.id: node.name for node in state.nodes}
    rows: list[tuple[str, str, str, str]] = [
        (
            names.get(stage.node, stage.node),
            stage.role,
            f"[{stage.span.start}, {stage.span.end})",
            stage.why,
        )
        for stage in model.stages
    ]
    rows += [(names.get(out.node, out.node), "", "", out.why) for out in model.left_out]
    return [
        *table(("NODE", "ROLE", "LAYERS", "WHY"), rows),
        "",
        f"{command('chat', model.id)} talks with it",
    ]
