"""`gangline demo`: several nodes on this machine, a model split over them, a first answer.

The nodes are real: processes of their own, that meet over loopback and know nothing of each other
but the address of the first one.
"""

from __future__ import annotations

import argparse
import os
import queue
import secrets
import signal
import socket
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import closing, contextmanager

from gangline.cli.children import Child, Children
from gangline.cli.client import Client
from gangline.cli.common import wait_ready, watch_states
from gangline.cli.options import add_backend, positive
from gangline.cli.output import counted, dim, is_terminal, note, significant
from gangline.cli.ports import explain_port
from gangline.cli.signals import ending_signals
from gangline.cli.talk import Line, Speed, Wanted, stream_answer
from gangline.errors import Conflict, GanglineError, ProtocolError, UsageError
from gangline.facts import ClusterState, LoadRequest, ModelFacts
from gangline.hardware.facts import count_cores
from gangline.hardware.measure import measured_hardware
from gangline.node.config import DEFAULT_PORT
from gangline.paths import home

MODEL = "demo"
QUESTION = "What is 17 + 25?"
MAX_NODES = 16
MAX_PORT = 65534  # the one above it is the control plane's
N_PORTS = 200  # above the default one, that are tried
LOAD_S = 30.0


class Ended(Exception):
    """Somebody wants the demo to end: Ctrl-C, SIGTERM, or the terminal went away."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline demo`."""
    parser.add_argument("--nodes", type=positive, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--port", type=positive, metavar="P", help="of the page (default: 5454, or the next free)"
    )
    add_backend(parser)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")


def run(options: argparse.Namespace) -> int:
    """Start everything, show that it works, stay until it is told to end."""
    if options.nodes > MAX_NODES:
        raise UsageError(
            f"--nodes {options.nodes} is more than one machine should run",
            hint=f"use at most {MAX_NODES}",
        )
    started_s = time.monotonic()
    with signals_raise(), Children() as children:
        try:
            api = start_nodes(children, options.nodes, options.port)
            client = Client(api)
            wait_nodes(client, options.nodes)
            progress(started_s, f"{counted(options.nodes, 'node')} found each other")
            load(client, options.backend, started_s)
            ask(client, started_s)
            print(f"\nthe page: {api}", flush=True)
            if not options.no_browser and has_display():
                webbrowser.open(api)
            note(f"`gangline chat --url {api}` talks with it; Ctrl-C ends the demo")
            stay(children)
        except Ended:
            note("ending the demo")
        finally:
            ignore_signals()
    return 0


def start_nodes(children: Children, n_nodes: int, port: int | None) -> str:
    """All nodes at once; the address of the first, when all of them answer."""
    first_port = choose_port(port)
    threads = max(1, count_cores() // n_nodes)
    measured_hardware(home(), threads)  # once, so that nodes do not measure against each other
    hardware = read_measurement()
    cluster = f"demo-{secrets.token_hex(4)}"
    shared = ["--cluster", cluster, "--no-scout", "--threads", str(threads)]
    first = children.start("node-1", ["--port", str(first_port), *shared], hardware)
    for number in range(2, n_nodes + 1):
        peer = ["--port", "0", "--peer", f"127.0.0.1:{first_port}"]
        children.start(f"node-{number}", [*peer, *shared], hardware)
    api = first.ready().api
    for other in children.all[1:]:
        other.ready()
    return api


def read_measurement() -> bytes | None:
    """What `measured_hardware` has kept, if it could."""
    try:
        return (home() / "machine.json").read_bytes()
    except OSError:
        return None


def choose_port(wanted: int | None) -> int:
    """A port that is free, and so is the one above it, which carries the control plane."""
    if wanted is not None:
        if wanted > MAX_PORT:
            raise UsageError(f"--port {wanted} is outside 1..{MAX_PORT}")
        for port in (wanted, wanted + 1):
            if not is_free(port):
                busy = Conflict(
                    f"port {port} is in use", hint="leave out --port, and a free one is taken"
                )
                raise explain_port(busy, "127.0.0.1", port)
        return wanted
    for port in range(DEFAULT_PORT, DEFAULT_PORT + N_PORTS, 2):
        if is_free(port) and is_free(port + 1):
            if port != DEFAULT_PORT:
                note(f"port {DEFAULT_PORT} is in use, the demo takes {port}")
            return port
    raise Conflict(
        f"no port from {DEFAULT_PORT} to {DEFAULT_PORT + N_PORTS} is free",
        hint="name one: `gangline demo --port P`",
    )


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def wait_nodes(client: Client, n_nodes: int) -> ClusterState:
    """Wait until the first node sees all of them."""
    with closing(watch_states(client)) as states:
        for state in states:
            if sum(node.alive for node in state.nodes) >= n_nodes:
                return state
    raise ProtocolError("the first node ended before the others had joined")


def load(client: Client, backend: str | None, started_s: float) -> None:
    """Spread the bundled model over all nodes."""
    request = LoadRequest(model=MODEL, spread=True, backend=backend)
    begun = client.post("/cluster/models", request, ModelFacts, LOAD_S)
    ready = wait_ready(client, begun, lambda model: None)
    names = {node.id: node.name for node in client.get("/cluster/state", ClusterState).nodes}
    spans = ", ".join(
        f"{names.get(stage.node, stage.node)} [{stage.span.start}, {stage.span.end})"
        for stage in ready.stages
    )
    progress(started_s, f"model `{ready.id}` is loaded: layers {spans}")


def ask(client: Client, started_s: float) -> None:
    """One question, its answer as it comes, and how fast it was."""
    print(f"\n> {QUESTION}", flush=True)
    wanted = Wanted(temperature=0, max_tokens=100)
    first_s: float | None = None
    for piece in stream_answer(client, MODEL, [Line("user", QUESTION)], wanted):
        if isinstance(piece, Speed):
            since_start = f"{significant((first_s or time.monotonic()) - started_s)} s after start"
            print("\n" + dim(f"{piece}; {since_start}", sys.stdout), flush=True)
        else:
            first_s = first_s or time.monotonic()
            sys.stdout.write(piece)
            sys.stdout.flush()


def stay(children: Children) -> None:
    """Until a signal; a node that ends is told, and only the first one ends the demo."""
    first = children.all[0]
    while True:
        try:
            child = children.ended.get(timeout=0.5)  # Windows lets no signal into a longer wait
        except queue.Empty:
            continue
        report_end(child)
        if child is first:
            raise GanglineError(
                "the node that serves the page has ended", hint="`gangline demo` starts anew"
            )


def report_end(child: Child) -> None:
    """A node has ended; the cluster goes on without it."""
    text = f"{child.name} ended with code {child.process.returncode}"
    words = child.last_words()
    note(f"{text}: {words}" if words else text)
    child.remove()


def progress(started_s: float, text: str) -> None:
    """What has happened by now."""
    note(f"{time.monotonic() - started_s:5.1f} s  {text}")


def has_display() -> bool:
    """Whether a browser could be seen by whoever started this."""
    if not is_terminal(sys.stdout):
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def signals_raise() -> Iterator[None]:
    """Signals that end the demo become `Ended` in the main thread."""

    def handle(number: int, frame: object) -> None:
        ignore_signals()  # one is enough, and what follows takes a bounded time
        raise Ended

    before = {number: signal.signal(number, handle) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """From now on nothing interrupts this process."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
