"""Two machines with addresses of their own: network namespaces joined by a virtual cable."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gangline.node.config import NodeConfig
from tests.node.cluster import HARDWARE, TIMEOUT_S, NodeProcess

pytestmark = [pytest.mark.cluster, pytest.mark.namespaces]

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces that reach each other at ADDRESSES, and nothing else."""
    tag = f"gl{os.getpid() % 10000}{secrets.token_hex(2)}"
    names = (f"{tag}a", f"{tag}b")
    made: list[str] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", f"{names[0]}v", "netns", names[0], "type", "veth",
               "peer", "name", f"{names[1]}v", "netns", names[1])  # fmt: skip
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}v")
                ip("-n", name, "link", "set", f"{name}v", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or error
            pytest.skip(f"network namespaces are not permitted here: {reason}".strip())
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


@pytest.mark.parametrize("way", ["peer", "scout"])
def test_two_machines_form_a_cluster_and_answer(
    namespaces: tuple[str, str], way: str, tiny_model: Path, tmp_path: Path
) -> None:
    cluster = f"test-{secrets.token_hex(4)}"

    def start(index: int) -> NodeProcess:
        config = NodeConfig(
            cluster=cluster,
            name=f"machine-{index}",
            home=tmp_path / str(index),
            listen=ADDRESSES[index],
            peers=(ADDRESSES[0],) if way == "peer" and index else (),
            scout=way == "scout",
            threads=1,
            models=(str(tiny_model),),
            hardware=HARDWARE,
        )
        return NodeProcess(config, None, "ip", "netns", "exec", namespaces[index])

    nodes: list[NodeProcess] = []
    try:
        nodes += [start(0)]
        nodes += [start(1)]
        state = wait_for_two(nodes[0])
        apis = sorted(facts["api"] for facts in state["nodes"])
        assert apis == [f"http://{address}:5454" for address in ADDRESSES]
        assert nodes[0].ask("load tiny")["state"] == "loading"
        facts = nodes[0].ask("ready tiny")
        assert {stage["node"] for stage in facts["stages"]} == {node.id for node in nodes}
        answers = [node.ask("answer tiny") for node in nodes]
        assert answers[0] == answers[1]
        assert len(answers[0]) == 8
    finally:
        for node in nodes:
            node.close()


def wait_for_two(node: NodeProcess) -> Any:
    """The state once both nodes are alive and store the model; over a pipe there are no events."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        state = node.ask("state")
        alive = [facts for facts in state["nodes"] if facts["alive"] and facts["stored"]]
        if len(alive) == 2:
            return state
        time.sleep(0.02)
    raise AssertionError("the nodes did not meet")
