"""Two machines with addresses of their own: network namespaces joined by a virtual cable."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gangline.facts import Interface
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


def test_of_two_cables_the_faster_one_is_taken(
    namespaces: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """The address that a node names leads over a slow cable; another one leads over a fast one."""
    first, second = namespaces
    fast = ("10.78.0.1", "10.78.0.2")
    ip("link", "add", f"{first}w", "netns", first, "type", "veth",
       "peer", "name", f"{second}w", "netns", second)  # fmt: skip
    for name, address in zip(namespaces, fast, strict=True):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}w")
        ip("-n", name, "link", "set", f"{name}w", "up")
        throttle(name, f"{name}v")
    interfaces = [
        (
            Interface("slow", "wifi", None, False, (f"{ADDRESSES[index]}/24",)),
            Interface("fast", "ethernet", 10.0, False, (f"{fast[index]}/24",)),
        )
        for index in range(2)
    ]

    def start(index: int) -> NodeProcess:
        config = NodeConfig(
            cluster=f"cables-{first}",
            name=f"machine-{index}",
            home=tmp_path / str(index),
            listen="0.0.0.0",
            advertise=ADDRESSES[index],
            peers=(ADDRESSES[0],) if index else (),
            scout=False,
            threads=1,
            models=(str(tiny_model),),
            hardware=msgspec.structs.replace(HARDWARE, interfaces=interfaces[index]),
        )
        return NodeProcess(config, None, "ip", "netns", "exec", namespaces[index])

    nodes: list[NodeProcess] = []
    try:
        nodes += [start(0)]
        nodes += [start(1)]
        wait_for_two(nodes[0])
        links = wait_for_links(nodes[0])
        assert {link["address"] for link in links} <= set(fast)
        assert {link["kind"] for link in links} == {"ethernet"}
        for link in links:
            assert [path["kind"] for path in link["paths"]] == ["ethernet", "wifi"]
            assert link["paths"][1]["gbps"] < 0.15 < link["gbps"]
        nodes[0].ask("load tiny")
        nodes[0].ask("ready tiny")
        assert len(nodes[1].ask("answer tiny")) == 8
        used = subprocess.run(
            ["ip", "netns", "exec", first, "cat", "/proc/net/tcp"],
            check=True, capture_output=True, text=True, timeout=10,
        ).stdout  # fmt: skip
        assert re.search(r": 01004E0A:\w+ 02004E0A:\w+ 01 ", used), "the hops take the fast cable"
    finally:
        for node in nodes:
            node.close()


def throttle(namespace: str, interface: str) -> None:
    """Let 100 Mbit/s leave by this interface."""
    form = ["tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms"]
    command = ["tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", *form]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"links cannot be throttled here: {getattr(error, 'stderr', '') or error}")


def wait_for_links(node: NodeProcess) -> list[Any]:
    """The links of both nodes to each other, measured by both ways."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        links = [link for facts in node.ask("state")["nodes"] for link in facts["links"]]
        if len(links) == 2 and all(len(link["paths"]) == 2 for link in links):
            return links
        time.sleep(0.02)
    raise AssertionError("the links were not measured")
