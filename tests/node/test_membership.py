"""Nodes meet, hear of each other, call each other and part: real zenoh sessions on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gangline.errors import Conflict, NotFound, Unavailable, UsageError
from gangline.facts import NodeId
from gangline.node.config import NodeConfig
from gangline.node.node import Node
from gangline.node.records import Done, GetSnapshot, Snapshot, UnloadModel
from tests.node.cluster import HARDWARE, Cluster, cluster_in, facts_of, run, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def test_nodes_meet_by_static_peers_and_through_each_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            nodes = await cluster.start_many(3)
            states = [
                await until(node, lambda state: all(len(f.links) == 2 for f in state.nodes))
                for node in nodes
            ]
            for state, node in zip(states, nodes, strict=True):
                assert state.node == node.id
                assert {facts.id for facts in state.nodes} == {other.id for other in nodes}
            first = states[0].nodes[0]
            assert first.hardware == HARDWARE
            assert first.pid == os.getpid()
            assert {link.to for link in first.links} == {node.id for node in nodes} - {first.id}
            assert all(link.rtt_us is not None and link.rtt_us > 0 for link in first.links)

    run(scene())


def test_nodes_meet_by_scouting(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, scout=True, peers=()) as cluster:
            await cluster.start_many(2)

    run(scene())


def test_other_clusters_are_ignored(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as ours, cluster_in(tmp_path) as theirs:
            (ours_1,) = await ours.start_many(1)
            (theirs_1,) = await theirs.start_many(1, peers=(ours_1.control_endpoint,))
            await theirs.start(peers=(theirs_1.control_endpoint,))
            await theirs.met()  # the link that they share with us works
            assert [facts.id for facts in ours_1.state().nodes] == [ours_1.id]

    run(scene())


def test_a_node_that_leaves_is_gone_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            staying, leaving = await cluster.start_many(2)
            await leaving.close()
            await leaving.close()
            state = await until(staying, lambda state: len(state.nodes) == 1)
            assert state.nodes[0].id == staying.id
            with pytest.raises(Unavailable):
                leaving.state()

    run(scene())


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_node_that_is_killed_or_frozen_is_seen_dead(tmp_path: Path, number: int) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            (node,) = await cluster.start_many(1)
            other = await cluster.start_process()
            await cluster.met()
            other.send_signal(number)

            def is_dead(state: object) -> bool:
                facts = facts_of(node.state(), other.id)
                return facts is not None and not facts.alive

            await until(node, is_dead)
            if number == signal.SIGSTOP:
                other.send_signal(signal.SIGCONT)
                await cluster.met()  # it comes back by itself

    run(scene())


def test_a_restarted_node_has_its_old_id_and_new_facts(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            (node,) = await cluster.start_many(1)
            home = tmp_path / "again"
            first = await cluster.start_process(home=home, name="first")
            await cluster.met()
            first.send_signal(signal.SIGTERM)
            first.wait()
            second = await cluster.start_process(home=home, name="second")
            assert first.id == second.id

            def is_back(state: object) -> bool:
                facts = facts_of(node.state(), second.id)
                return facts is not None and facts.alive and facts.name == "second"

            await until(node, is_back)

    run(scene())


def test_calls_answer_or_raise_what_the_other_side_raised(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            asking, answering = await cluster.start_many(2)
            assert asking._runtime is not None
            membership = asking._runtime.membership
            snapshot = await membership.call(answering.id, GetSnapshot(), Snapshot)
            assert snapshot.report.facts.id == answering.id
            with pytest.raises(NotFound) as caught:
                await membership.call(answering.id, UnloadModel("nothing"), Done)
            assert "`nothing` is not loaded" in caught.value.message
            with pytest.raises(Unavailable, match="did not answer"):
                await membership.call(NodeId("n-nobody"), GetSnapshot(), Snapshot, timeout_s=0.3)

    run(scene())


def test_a_control_port_in_use_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            (node,) = await cluster.start_many(1)
            port = int(node.control_endpoint.rpartition(":")[2])
            with pytest.raises(Conflict) as caught:
                await cluster.start(control_port=port)
            assert f"port {port}" in caught.value.message
            home = node.config.home
            with pytest.raises(Conflict, match=str(home)):
                await cluster.start(home=home)

    run(scene())


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            with pytest.raises(Unavailable) as caught:
                await cluster.start(listen="192.0.2.1")
            assert "192.0.2.1" in caught.value.message

    run(scene())


@pytest.mark.parametrize("n_turns", [0, 1, 2, 3, 5, 8, 20])
def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path, n_turns: int) -> None:
    """Ctrl-C during the start; a session that stayed open would hang this process at its end."""

    async def scene() -> None:
        cluster = Cluster(tmp_path)
        node = Node(cluster.config(home=tmp_path / "same"))
        starting = asyncio.create_task(node.start())
        for _ in range(n_turns):
            await asyncio.sleep(0.001)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await node.close()
        again = Node(cluster.config(home=tmp_path / "same"))
        await again.start()
        await again.close()

    run(scene())


def test_a_program_that_forgets_to_close_still_ends(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from gangline.node.node import Node
from gangline.node.config import NodeConfig
async def main():
    await Node(NodeConfig(home=pathlib.Path({str(tmp_path)!r}), port=0, scout=False)).start()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("scout", [False, True])
def test_nothing_listens_beyond_loopback(tmp_path: Path, scout: bool) -> None:
    """Every socket of the node, as the kernel lists them: loopback, or the group it scouts in."""

    async def scene() -> None:
        async with cluster_in(tmp_path, scout=scout) as cluster:
            node = await cluster.start_process()
            addresses = listening_addresses(node.pid)
            assert addresses, "the control port and the echo port at least"
            allowed = {"127.0.0.1", "224.0.0.224"} if scout else {"127.0.0.1"}
            assert addresses <= allowed

    run(scene())


def listening_addresses(pid: int) -> set[str]:
    """Addresses to which sockets of a process are bound, waiting for anybody."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == waiting and fields[9] in inodes:
                address = bytes.fromhex(fields[1].split(":")[0])
                found.add(".".join(str(byte) for byte in reversed(address)))
    return found


def test_configuration_is_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Node(NodeConfig(home=tmp_path / "unused", cluster="a/b"))
    assert not (tmp_path / "unused").exists()
