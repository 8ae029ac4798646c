"""`gangline up`: a node on this machine, in the foreground until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from gangline.cli.options import add_backend, threads
from gangline.cli.output import command, error_text, note
from gangline.cli.ports import explain_port, url_at
from gangline.cli.settings import Settings, model_folders, settings_of
from gangline.cli.signals import ending_signals
from gangline.errors import Conflict, GanglineError, UsageError
from gangline.facts import LoadRequest
from gangline.node.config import DEFAULT_PORT, NodeConfig, bare_address
from gangline.paths import home

if TYPE_CHECKING:
    import socket

    from gangline.node.node import Node

DEFAULT_LISTEN = "127.0.0.1"
EXIT_FORCED = 130
TEMPORARY = "gangline-demo-"  # --remove-home removes only folders whose names begin so
END_S = 8.0  # a node that takes longer to end is ended by force


class Ready(msgspec.Struct, frozen=True):
    """The line that a parent process reads: the node answers from now on."""

    api: str
    control: str
    pid: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline up`; each but the hidden ones may stand in the --config file."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="load this model at once")
    parser.add_argument("--port", type=_port, metavar="P", help="of API and page (default: 5454)")
    parser.add_argument(
        "--listen", metavar="ADDR", help="address to be reached at (default: this machine only)"
    )
    parser.add_argument("--advertise", metavar="ADDR", help="address that others use for this one")
    parser.add_argument(
        "--peer", action="append", metavar="ADDR", help="host or host:port of another node"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with these options")
    parser.add_argument("--name", help="name of this node (default: the machine's)")
    parser.add_argument("--cluster", metavar="NAME", help="ignore nodes of other clusters")
    parser.add_argument(
        "--no-scout",
        dest="scout",
        action="store_false",
        default=None,
        help="find only the peers named",
    )
    parser.add_argument("--threads", type=threads, metavar="N", help="for each worker")
    add_backend(parser)
    parser.add_argument(
        "--models-dir", action="append", metavar="DIR", help="a model, or a folder of models"
    )
    # For `gangline demo`: end when standard input does, and own GANGLINE_HOME.
    parser.add_argument("--parent-pipe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--remove-home", action="store_true", help=argparse.SUPPRESS)


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65534:
        raise argparse.ArgumentTypeError(f"`{text}` is outside 0..65534")
    return number


def run(options: argparse.Namespace) -> int:
    """Run a node until Ctrl-C, SIGTERM or the end of the parent."""
    try:
        return start(options)
    finally:
        if options.remove_home and home().name.startswith(TEMPORARY):
            shutil.rmtree(home(), ignore_errors=True)


def start(options: argparse.Namespace) -> int:
    """Take the port first, since that is what most often goes wrong."""
    from gangline.serve.server import bind

    settings = settings_of(options)
    start_log(os.environ.get("GANGLINE_LOG", "warning"))
    listen = bare_address(settings.listen or DEFAULT_LISTEN)
    port = DEFAULT_PORT if settings.port is None else settings.port
    try:
        listener = bind(listen, port)
    except Conflict as error:
        raise explain_port(error, listen, port) from None
    try:
        config = node_config(settings, listen, listener.getsockname()[1])
        asyncio.run(serve(config, settings.model, listener, options.parent_pipe))
    finally:
        listener.close()
    return 0


def start_log(level: str) -> None:
    """Log to stderr, what is at least as grave as `level`."""
    levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    if level.lower() not in levels:
        raise UsageError(f"GANGLINE_LOG is `{level}`", hint=f"use {', '.join(levels)}")
    logging.basicConfig(
        level=levels[level.lower()],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def node_config(settings: Settings, listen: str, port: int) -> NodeConfig:
    """What the node is told; only what was given, its own defaults otherwise."""
    given: dict[str, Any] = {
        name: bare_address(value) if name == "advertise" else value
        for name in ("advertise", "name", "cluster", "scout", "threads", "backend")
        if (value := getattr(settings, name)) is not None
    }
    return NodeConfig(
        listen=listen,
        port=port,
        control_port=0 if settings.port == 0 else None,
        peers=settings.peer,
        models=model_folders(settings.models_dir),
        **given,
    )


async def serve(
    config: NodeConfig, model: str | None, listener: socket.socket, parent_pipe: bool
) -> None:
    """The node and its HTTP server in one event loop, until something says that it is enough."""
    from gangline.node.node import Node
    from gangline.serve.app import make_app
    from gangline.serve.server import ApiServer

    ending = asyncio.Event()
    catch_signals(ending.set)
    if parent_pipe:
        watch_parent(ending.set)
    node = Node(config)
    server = ApiServer(make_app(node), listener)
    loading: asyncio.Task[None] | None = None
    try:
        if not await unless(ending, node.start()):
            return
        await server.start()
        announce(node, config, parent_pipe, bool(model))
        if model:
            loading = asyncio.create_task(load(node, model))
        await ending.wait()
    finally:
        watch = force_after(END_S)
        if loading is not None:
            loading.cancel()
        await asyncio.gather(server.close(), node.close())
        watch.cancel()


async def unless(ending: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; False if `ending` was set before it was done."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(ending.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return False


async def load(node: Node, model: str) -> None:
    """Load the model of the command line; the node goes on if that fails."""
    from gangline.cli.load import local_path

    try:
        begun = await node.load(LoadRequest(model=local_path(model)))
        await node.wait_ready(begun.id)
    except GanglineError as error:
        note(error_text(error))
        return
    note(f"model `{begun.id}` is ready; {command('chat', begun.id)} talks with it")


def announce(node: Node, config: NodeConfig, parent_pipe: bool, loads: bool) -> None:
    """Say where the node answers, and what to do next."""
    api = url_at(config.listen, config.port)
    if parent_pipe:
        ready = Ready(api, node.control_endpoint, os.getpid())
        print(msgspec.json.encode(ready).decode(), flush=True)
        return
    print(f"node `{config.name}` of cluster `{config.cluster}` answers at {api}", flush=True)
    if not loads:
        note("`gangline load demo` loads a model, `gangline status` shows the cluster")
    note("Ctrl-C ends it")


def catch_signals(end: Callable[[], None]) -> None:
    """End on the first signal; the second one does not wait for anything.

    Workers end by themselves then, since their standard input does.
    """
    loop = asyncio.get_running_loop()
    caught: list[int] = []

    def handle(number: int, frame: object) -> None:
        caught.append(number)
        # A terminal that goes away may send SIGHUP twice: by itself and by its shell.
        if len(caught) > 1 and signal.Signals(number).name != "SIGHUP":
            os._exit(EXIT_FORCED)
        loop.call_soon_threadsafe(end)

    for number in ending_signals():
        signal.signal(number, handle)


def watch_parent(end: Callable[[], None]) -> None:
    """End when standard input does, that is, when whoever started this process is gone."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(end)

    threading.Thread(target=wait, name="parent-pipe", daemon=True).start()


def force_after(seconds: float) -> threading.Timer:
    """End the process, whatever hangs, unless this is cancelled before."""

    def end() -> None:
        note("error: the node did not end in time and was ended by force")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer
