"""A cluster loads, loses parts and recovers; its workers are processes without a model."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from gangline.errors import (
    CheckpointError,
    Conflict,
    GanglineError,
    NotFound,
    Unavailable,
    UsageError,
    WorkerLost,
)
from gangline.facts import LoadRequest, ModelId
from gangline.node import reconcile
from tests.node.cluster import (
    cluster_in,
    model_of,
    no_workers,
    pid_of,
    process_ended,
    ready,
    run,
    until,
)
from tests.node.node_process import double_command

pytestmark = pytest.mark.cluster
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

TINY = ModelId("tiny")
SPREAD = LoadRequest("tiny", spread=True)


def test_load_ready_unload_and_load_again(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            nodes = await cluster.start_many(3)
            first, last = nodes[0], nodes[-1]
            begun = await last.load(SPREAD)
            assert (begun.state, begun.epoch, begun.steward) == ("loading", 1, last.id)
            with pytest.raises(Unavailable, match="loading"):
                last.resolve("tiny")
            facts = await last.wait_ready(TINY)
            assert facts.progress == 1.0
            assert [stage.role for stage in facts.stages] == ["head", "stage", "stage"]
            assert facts.stages[0].node == last.id, "the asked node is the head"
            assert (await ready(first, "tiny")).stages == facts.stages
            assert first.resolve("tiny").state == "ready"
            with pytest.raises(Conflict, match="already ready"):
                await first.load(SPREAD)

            await first.unload(TINY)  # by a node that is not the steward
            await no_workers(first)
            await until(last, lambda state: not state.models)
            for node in (first, last):
                with pytest.raises(NotFound):
                    node.resolve("tiny")
                with pytest.raises(NotFound):
                    await node.unload(TINY)
            assert (await first.load(SPREAD)).epoch == 2
            await first.wait_ready(TINY)
            for _ in range(2):  # again, while it ends: what was asked is done
                await first.unload(TINY)
            await until(first, lambda state: not state.models)

    run(scene())


def test_the_fewest_nodes_are_used_unless_asked(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            first, second, third = await cluster.start_many(3)
            await until(first, lambda state: all(facts.stored for facts in state.nodes))
            plan = await first.plan(LoadRequest("tiny"))
            assert [stage.node for stage in plan.stages] == [first.id]
            assert {out.node for out in plan.left_out} == {second.id, third.id}
            named = (second.id, third.config.name)
            facts = await first.load(LoadRequest("tiny", nodes=named))
            assert [stage.node for stage in facts.stages] == sorted([second.id, third.id])
            await first.wait_ready(TINY)

    run(scene())


def test_a_node_without_the_files_asks_those_that_have_them(
    tiny_model: Path, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            bare = await cluster.start()
            storing = await cluster.start(models=(str(tiny_model),))
            await cluster.met()
            await until(bare, lambda state: any(s.id == TINY for s in bare.models()))
            facts = await bare.load(SPREAD)
            assert [stage.node for stage in facts.stages] == [storing.id]
            assert [out.why for out in facts.left_out] == ["does not store the model"]
            await bare.wait_ready(TINY)

    run(scene())


def test_a_model_by_its_path(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            node = await cluster.start()
            for name in ("nothing", str(tmp_path / "nowhere")):
                with pytest.raises(NotFound):
                    await node.load(LoadRequest(name))
            assert (await node.load(LoadRequest(str(tiny_model)))).id == "tiny"
            await node.wait_ready(TINY)
            with pytest.raises(UsageError, match="context"):
                await node.plan(LoadRequest("tiny", context=100_000))

    run(scene())


@posix
def test_a_crashed_worker_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            first, second = await cluster.start_many(2)
            await first.load(SPREAD)
            await first.wait_ready(TINY)
            await ready(second, "tiny")
            pids = {pid_of(second, node.id) for node in (first, second)}
            os.kill(pid_of(second, second.id), signal.SIGKILL)
            facts = await ready(second, "tiny", epoch=2)
            assert len(facts.stages) == 2
            assert not pids & {pid_of(second, node.id) for node in (first, second)}

    run(scene())


@posix
@pytest.mark.parametrize("victim", ["steward", "other"])
def test_a_killed_node_is_replaced_whoever_it_was(
    tiny_model: Path, tmp_path: Path, victim: str
) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            nodes = await cluster.start_many(2)
            process = await cluster.start_process(models=(str(tiny_model),))
            await cluster.met()
            await until(nodes[0], lambda state: all(len(f.stored) > 0 for f in state.nodes))
            if victim == "steward":
                await asyncio.to_thread(process.ask, "load tiny")
            else:
                await nodes[0].load(SPREAD)
            before = await ready(nodes[1], "tiny")
            assert len(before.stages) == 3
            assert (before.steward == process.id) is (victim == "steward")
            orphan = pid_of(nodes[0], process.id)
            process.send_signal(signal.SIGKILL)
            process.wait()
            after = await ready(nodes[1], "tiny", epoch=2)
            assert [stage.node for stage in after.stages] == [node.id for node in nodes]
            assert after.steward == nodes[0].id, "the smallest id that lives"
            await process_ended(orphan)

    run(scene())


@posix
def test_a_steward_that_slept_follows_what_the_others_decided(
    tiny_model: Path, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            nodes = await cluster.start_many(2)
            sleeper = await cluster.start_process(models=(str(tiny_model),))
            await cluster.met()
            await until(nodes[0], lambda state: all(len(f.stored) > 0 for f in state.nodes))
            await asyncio.to_thread(sleeper.ask, "load tiny")
            assert (await ready(nodes[0], "tiny")).steward == sleeper.id
            sleeper.send_signal(signal.SIGSTOP)
            decided = await ready(nodes[0], "tiny", epoch=2)
            assert [stage.node for stage in decided.stages] == [node.id for node in nodes]
            sleeper.send_signal(signal.SIGCONT)
            await cluster.met()
            workers: list[object] = [None]
            while workers:  # its own of the older epoch end
                state = await asyncio.to_thread(sleeper.ask, "state")
                (workers,) = (f["workers"] for f in state["nodes"] if f["id"] == sleeper.id)
            (model,) = state["models"]
            assert (model["epoch"], model["state"]) == (2, "ready")
            assert nodes[0].resolve("tiny").stages == decided.stages

    run(scene())


def test_it_gives_up_at_last_and_says_why(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "BACKOFF_S", (0.0, 0.01))

    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            node = await cluster.start(double_command("lose"))
            await node.load(SPREAD)
            with pytest.raises(WorkerLost, match=r"gave up after 2 attempts; .*: the hop broke"):
                await node.wait_ready(TINY)
            facts = model_of(node.state(), "tiny")
            assert facts is not None
            assert (facts.state, facts.epoch) == ("failed", 2)
            await no_workers(node)
            with pytest.raises(Unavailable, match="failed"):
                node.resolve("tiny")
            assert (await node.load(SPREAD)).epoch == 3, "it may be tried again"

    run(scene())


def test_what_no_attempt_can_mend_fails_at_once(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            node = await cluster.start(double_command("fail"))
            await node.load(SPREAD)
            with pytest.raises(CheckpointError, match="layer 3 is missing") as caught:
                await node.wait_ready(TINY)
            assert caught.value.hint == "download it again"
            facts = model_of(node.state(), "tiny")
            assert facts is not None
            assert facts.epoch == 1

    run(scene())


def test_closing_while_loading_leaves_no_worker(tiny_model: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            node = await cluster.start(double_command("hang"))
            await node.load(SPREAD)
            state = await until(node, lambda state: any(w.pid for w in state.nodes[0].workers))
            waiting = asyncio.create_task(node.wait_ready(TINY))
            await asyncio.sleep(0)
            await node.close()
            with pytest.raises(ProcessLookupError):
                os.kill(state.nodes[0].workers[0].pid, 0)
            with pytest.raises(GanglineError):
                await waiting

    run(scene())
