"""`gangline status`: the cluster as a table; rendering is a pure function of the state."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise

import msgspec

from gangline.cli.common import client_of, watch_states
from gangline.cli.machines import device_text, render_machines
from gangline.cli.options import add_json, add_url
from gangline.cli.output import (
    command,
    counted,
    error_text,
    is_terminal,
    note,
    rate,
    significant,
    size,
    table,
)
from gangline.errors import Unavailable
from gangline.facts import (
    ClusterState,
    Link,
    ModelFacts,
    ModelState,
    NodeFacts,
    NodeId,
    Stage,
    WorkerFacts,
)
from gangline.hardware.device import seen_by

EXIT_UNHEALTHY = 3
HEADER = ("NODE", "DEVICE", "FREE", "LAYERS", "BACKEND", "LINK", "STATE")

# What a stage without a worker is doing, by the state of its model.
_STAGES: dict[ModelState, str] = {
    "loading": "starting",
    "ready": "gone",
    "recovering": "stopped",
    "failed": "stopped",
    "unloading": "stopped",
}
_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline status`."""
    add_url(parser)
    add_json(parser)
    parser.add_argument(
        "--machines", action="store_true", help="show what the machines are and were measured to do"
    )
    parser.add_argument("--watch", action="store_true", help="show every change until Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """Print the state; 3 if something is not well, or nobody answers."""
    client = client_of(options)
    try:
        if options.watch:
            with closing(watch_states(client)) as states:
                for state in states:
                    _show(state, options)
            return EXIT_UNHEALTHY  # the node ended
        body = client.request("GET", "/cluster/state")
    except Unavailable as error:
        note(error_text(error))
        return EXIT_UNHEALTHY
    state = msgspec.json.decode(body, type=ClusterState)
    print(body.decode() if options.json else "\n".join(_lines(state, options)))
    return EXIT_UNHEALTHY if problems(state) else 0


def _lines(state: ClusterState, options: argparse.Namespace) -> list[str]:
    return render_machines(state) if options.machines else render(state)


def _show(state: ClusterState, options: argparse.Namespace) -> None:
    if options.json:
        print(msgspec.json.encode(state).decode(), flush=True)
        return
    start = _CLEAR if is_terminal(sys.stdout) else ""
    print(start + "\n".join(_lines(state, options)) + "\n", flush=True)


def render(state: ClusterState) -> list[str]:
    """The whole report: a section for each model, the nodes without one, what to do next."""
    lines: list[str] = []
    used = {stage.node for model in state.models for stage in model.stages}
    unused = [node for node in state.nodes if node.id not in used]
    for model in state.models:
        rows = list(_stage_rows(state, model))
        if len(state.models) == 1:
            rows += [_row(state, node, None, None, "idle") for node in unused]
        lines += [title(model), *pace(model), "", *table(HEADER, rows), ""]
    if len(state.models) != 1 and (unused or not state.models):
        rows = [_row(state, node, None, None, "idle") for node in unused]
        lines += [*(["no model", ""] if state.models else []), *table(HEADER, rows), ""]
    lines += [f"# {problem}" for problem in (*problems(state), *remarks(state))]
    return [*lines, advice(state)]


def title(model: ModelFacts) -> str:
    """`demo: ready, 8 layers on 3 nodes, 32 lanes of 1024 tokens`."""
    state: str = model.state
    if model.state == "loading":
        state = f"loading, {model.progress:.0%}"
    parts = [f"{model.id}: {state}"]
    if model.stages:
        nodes = counted(len(model.stages), "node")
        parts.append(f"{counted(model.n_layers, 'layer')} on {nodes}")
    if model.lanes:
        parts.append(f"{counted(model.lanes, 'lane')} of {model.context} tokens")
    return ", ".join(parts)


def pace(model: ModelFacts) -> list[str]:
    """`one answer: 21.0 tok/s ± 12 % predicted, 21.4 tok/s measured`; nothing where neither is."""
    if model.state == "failed":
        return []
    parts = []
    if model.prediction is not None:
        predicted = model.prediction
        parts.append(
            f"{rate(predicted.decode_tps)} tok/s ± {predicted.error * 100:.0f} % predicted"
        )
    if model.stats is not None and model.stats.decode_tps is not None:
        parts.append(f"{rate(model.stats.decode_tps)} tok/s measured")
    return [f"one answer: {', '.join(parts)}"] if parts else []


def _stage_rows(state: ClusterState, model: ModelFacts) -> Iterator[tuple[str, ...]]:
    nodes = {node.id: node for node in state.nodes}
    previous: NodeFacts | None = None
    for stage in model.stages:
        node = nodes.get(stage.node)
        if node is None:
            layers = f"[{stage.span.start}, {stage.span.end})"
            yield (stage.node, "", "", layers, "", "", "lost")
        else:
            worker = _worker(node, model, stage)
            work = _STAGES[model.state] if worker is None else _worker_state(worker)
            yield _row(state, node, previous, stage, work, worker)
        previous = node


def _row(
    state: ClusterState,
    node: NodeFacts,
    previous: NodeFacts | None,
    stage: Stage | None,
    work: str,
    worker: WorkerFacts | None = None,
) -> tuple[str, ...]:
    link = None
    if previous is not None:
        link = link_between(previous, node)
    elif stage is None:
        here = next((other for other in state.nodes if other.id == state.node), None)
        link = link_between(here, node) if here is not None else None
    return (
        node.name + ("*" if node.id == state.node else ""),
        device_text(node.hardware),
        size(seen_by(node.hardware, None).free_bytes),
        f"[{stage.span.start}, {stage.span.end})" if stage else "",
        worker.backend if worker is not None and worker.backend != "auto" else "",
        link_text(link),
        work if node.alive else "lost",
    )


def link_between(start: NodeFacts, end: NodeFacts) -> Link | None:
    """The measured path from a node to another one; measured backwards if need be."""
    forth = next((link for link in start.links if link.to == end.id), None)
    return forth or next((link for link in end.links if link.to == start.id), None)


def link_text(link: Link | None) -> str:
    """`0.31 ms  9.4 Gb/s`; what was not measured is missing."""
    if link is None:
        return ""
    rtt = "" if link.rtt_us is None else f"{significant(link.rtt_us / 1000)} ms"
    speed = "" if link.gbps is None else f"{rate(link.gbps)} Gb/s"
    return f"{rtt:<9}{speed}".strip()


def _worker(node: NodeFacts, model: ModelFacts, stage: Stage) -> WorkerFacts | None:
    return next(
        (
            worker
            for worker in node.workers
            if worker.model == model.id
            and worker.epoch == model.epoch
            and worker.span == stage.span
        ),
        None,
    )


def _worker_state(worker: WorkerFacts) -> str:
    if worker.state == "loading":
        return f"loading, {worker.progress:.0%}"
    if worker.state != "ready":
        return f"{worker.state}: {worker.reason}" if worker.reason else worker.state
    if worker.stats is None or not worker.stats.lanes_active:
        return "ready"
    return f"serving, {rate(worker.stats.tokens_per_s)} tok/s"


def problems(state: ClusterState) -> list[str]:
    """What is not well, as `code  text`; any of them makes the exit code 3."""
    found = [f"node-lost  {node.name} does not answer" for node in state.nodes if not node.alive]
    for model in state.models:
        if model.state in ("failed", "recovering"):
            reason = f": {model.reason}" if model.reason else ""
            found.append(f"model-{model.state}  {model.id}{reason}")
    return found


def remarks(state: ClusterState) -> list[str]:
    """What is worth knowing and no fault."""
    names = {node.id: node.name for node in state.nodes}
    return [
        *wireless_hops(state),
        *(
            f"on-battery  {node.name} runs on its battery, which slows most machines down"
            for node in state.nodes
            if node.alive and node.hardware.power == "battery"
        ),
        *(
            f"left-out  {_name(names, out.node)} has no part of {model.id}: {out.why}"
            for model in state.models
            if model.state != "failed"
            for out in model.left_out
        ),
    ]


def wireless_hops(state: ClusterState) -> list[str]:
    """The hops of loaded models that go through the air."""
    nodes = {node.id: node for node in state.nodes}
    found = []
    for model in state.models:
        ring = [nodes[stage.node] for stage in model.stages if stage.node in nodes]
        for start, end in pairwise(ring):
            link = link_between(start, end)
            if link is not None and link.kind == "wifi":
                found.append(
                    f"link-slow  {start.name} and {end.name} meet by Wi-Fi; "
                    f"{model.id} would be faster by cable"
                )
    return found


def _name(names: dict[NodeId, str], node: NodeId) -> str:
    return names.get(node, node)


def advice(state: ClusterState) -> str:
    """The last line: what to do next."""
    ready = _first(model.id for model in state.models if model.state == "ready")
    if ready:
        return f"{command('chat', ready)} talks with it"
    failed = _first(model.id for model in state.models if model.state == "failed")
    if failed:
        return f"{command('load', failed)} tries again"
    if state.models:
        return "`gangline status --watch` shows how it goes on"
    stored = _first(model.id for node in state.nodes for model in node.stored if model.supported)
    if stored:
        return f"{command('load', stored)} loads a model"
    return "`gangline up --models-dir DIR` offers the models of a folder"


def _first(ids: Iterator[str] | Sequence[str]) -> str | None:
    return next(iter(ids), None)
