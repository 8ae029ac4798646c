"""A node in a process of its own, for tests that kill or freeze one.

    node_process.py CONFIG [BEHAVIOUR]

CONFIG is a NodeConfig as JSON. Prints `{"id", "control_endpoint", "pid"}` once it is in its
cluster, then a line for each command on stdin: `load MODEL`, `ready MODEL`, `answer MODEL`,
`state`. Ends when stdin does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from gangline.errors import GanglineError
from gangline.facts import LoadRequest, ModelId, Role
from gangline.head.requests import Sampling, Submit, Tokens
from gangline.node.config import NodeConfig
from gangline.node.node import Node
from gangline.node.supervisor import Command, worker_command

DOUBLE = Path(__file__).with_name("worker_double.py")


def double_command(behaviour: str) -> Command:
    """Workers without models."""

    def command(role: Role) -> list[str]:
        return [sys.executable, str(DOUBLE), behaviour]

    return command


def say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


async def obey(node: Node, command: str, model: str = "") -> object:
    match command:
        case "load":
            return await node.load(LoadRequest(model, spread=True))
        case "ready":
            return await node.wait_ready(ModelId(model))
        case "answer":
            submit = Submit(0, Sampling(max_tokens=8, temperature=0.0), prompt="hello")
            answers = [answer async for answer in node.generate(model, submit)]
            return [token for a in answers if isinstance(a, Tokens) for token in a.tokens]
        case _:
            return node.state()


async def main(config: NodeConfig, command: Command) -> None:
    node = Node(config, command)
    await node.start()
    try:
        say({"id": node.id, "control_endpoint": node.control_endpoint, "pid": os.getpid()})
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            try:
                say(await obey(node, *line))
            except GanglineError as error:
                say(error.body())
    finally:
        await node.close()


if __name__ == "__main__":
    asyncio.run(
        main(
            msgspec.json.decode(
                sys.argv[1], type=NodeConfig, dec_hook=lambda _, value: Path(value)
            ),
            double_command(sys.argv[2]) if len(sys.argv) > 2 else worker_command,
        )
    )
