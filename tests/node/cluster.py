"""Nodes for tests: in this process or in their own, on loopback, with workers real or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gangline.facts import ClusterState, Hardware, ModelFacts, NodeFacts, NodeId
from gangline.node.config import NodeConfig
from gangline.node.node import Node
from gangline.node.supervisor import Command
from gangline.plan.live import GIB
from tests.node.node_process import double_command

NODE_PROCESS = Path(__file__).with_name("node_process.py")
TIMEOUT_S = 30.0  # of a whole test: only a hang reaches it
HARDWARE = Hardware("test chip", "x86_64", "linux", 1, 16 * GIB, 16 * GIB, "", 1e10, "2026-11-20")

_T = TypeVar("_T")
_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a test's coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, TIMEOUT_S))


class Cluster:
    """A cluster with a name of its own, so that nobody else's nodes meet it."""

    def __init__(self, home: Path, **defaults: Any) -> None:
        self._home = home
        self._defaults = {
            "cluster": f"test-{secrets.token_hex(4)}",
            "port": 0,
            "scout": False,
            "threads": 1,
            "hardware": HARDWARE,
            **defaults,
        }
        self.nodes: list[Node] = []
        self.processes: list[NodeProcess] = []

    def members(self) -> list[Node | NodeProcess]:
        return [*self.nodes, *self.processes]

    def config(self, **changes: Any) -> NodeConfig:
        """A node's configuration: its own home, and those before it as peers unless it scouts."""
        number = next(_numbers)
        fields = {
            "name": f"node-{number}",
            "home": self._home / str(number),
            "peers": tuple(n.control_endpoint for n in self.members()[:1]),
            **self._defaults,
            **changes,
        }
        return NodeConfig(**fields)

    async def start(self, command: Command | None = None, **changes: Any) -> Node:
        """A node in this process; doubles for its workers unless told otherwise."""
        node = Node(self.config(**changes), command or double_command("good"))
        await node.start()
        self.nodes.append(node)
        return node

    async def start_many(self, count: int, **changes: Any) -> list[Node]:
        """Nodes that have met, ordered by id."""
        nodes = [await self.start(**changes) for _ in range(count)]
        await self.met()
        return sorted(nodes, key=lambda node: node.id)

    async def start_process(self, behaviour: str | None = "good", **changes: Any) -> NodeProcess:
        """A node in a process of its own."""
        process = await asyncio.to_thread(NodeProcess, self.config(**changes), behaviour)
        self.processes.append(process)
        return process

    async def met(self) -> None:
        """Wait until every node here sees every other, alive."""
        everybody = {member.id for member in self.members()}

        def sees_all(state: ClusterState) -> bool:
            return {facts.id for facts in state.nodes if facts.alive} >= everybody

        for node in self.nodes:
            await until(node, sees_all)

    async def close(self) -> None:
        await asyncio.gather(*(node.close() for node in self.nodes))
        for process in self.processes:
            await asyncio.to_thread(process.close)


@contextlib.asynccontextmanager
async def cluster_in(home: Path, **defaults: Any) -> AsyncIterator[Cluster]:
    """A cluster that is closed at the end."""
    cluster = Cluster(home, **defaults)
    try:
        yield cluster
    finally:
        await cluster.close()


class NodeProcess:
    """A running `node_process.py`."""

    def __init__(self, config: NodeConfig, behaviour: str | None, *prefix: str) -> None:
        data = msgspec.json.encode(config, enc_hook=str).decode()
        command = [*prefix, sys.executable, str(NODE_PROCESS), data]
        self._process = subprocess.Popen(
            [*command, behaviour] if behaviour else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._frozen = False
        started = self._read()
        self.id = NodeId(started["id"])
        self.control_endpoint: str = started["control_endpoint"]
        self.pid: int = started["pid"]

    def ask(self, line: str) -> Any:
        """The answer to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def send_signal(self, number: int) -> None:
        self._frozen = number == signal.SIGSTOP
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(TIMEOUT_S)

    def close(self) -> None:
        """End it as its parent's end would."""
        if self._frozen:
            self._process.kill()
        self._process.communicate(timeout=TIMEOUT_S)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the node ended with {self._process.wait()}"
        return msgspec.json.decode(line)


async def until(node: Node, holds: Callable[[ClusterState], bool]) -> ClusterState:
    """The first state of the cluster that satisfies `holds`, as this node sees it."""
    async with contextlib.aclosing(node.changes()) as states:
        async for state in states:
            if holds(state):
                return state
    raise AssertionError("the node closed")


def facts_of(state: ClusterState, node: NodeId) -> NodeFacts | None:
    return next((facts for facts in state.nodes if facts.id == node), None)


def model_of(state: ClusterState, model: str) -> ModelFacts | None:
    return next((facts for facts in state.models if facts.id == model), None)


async def ready(node: Node, model: str, epoch: int = 1) -> ModelFacts:
    """Wait until this node sees the model ready in at least this epoch."""

    def is_ready(state: ClusterState) -> bool:
        facts = model_of(state, model)
        return facts is not None and facts.state == "ready" and facts.epoch >= epoch

    found = model_of(await until(node, is_ready), model)
    assert found is not None
    return found


def pid_of(node: Node, owner: NodeId) -> int:
    """The only worker of a node, as another one sees it."""
    facts = facts_of(node.state(), owner)
    assert facts is not None
    (worker,) = facts.workers
    return worker.pid


async def no_workers(node: Node) -> None:
    """Wait until no worker of any node is left."""
    await until(node, lambda state: not any(facts.workers for facts in state.nodes))


async def process_ended(pid: int) -> None:
    """Wait for a process that is nobody's child here, of which no event tells."""
    with contextlib.suppress(ProcessLookupError):  # it has ended: what was waited for
        while True:
            os.kill(pid, 0)
            await asyncio.sleep(0.01)
