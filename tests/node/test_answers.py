"""A cluster with real heads and stages: it answers, and a lost part ends the answer clearly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from gangline.errors import GanglineError, WorkerLost
from gangline.facts import LoadRequest, ModelId
from gangline.head.requests import Accepted, Finished, Sampling, Submit, Tokens
from gangline.node.node import Node
from gangline.node.supervisor import worker_command
from tests.node.cluster import cluster_in, no_workers, pid_of, ready, run, until

pytestmark = pytest.mark.cluster

TINY = ModelId("tiny")
SPREAD = LoadRequest("tiny", spread=True)


async def answer(node: Node, prompt: str = "hello", n_tokens: int = 8) -> tuple[int, ...]:
    """The greedy tokens of one answer."""
    submit = Submit(0, Sampling(max_tokens=n_tokens, temperature=0.0), prompt=prompt)
    tokens: list[int] = []
    async with contextlib.aclosing(node.generate("tiny", submit)) as answers:
        async for message in answers:
            match message:
                case Accepted(prompt_tokens=prompt_tokens):
                    assert len(prompt_tokens) == len(prompt)
                case Tokens(tokens=new):
                    tokens.extend(new)
                case Finished(n_tokens=count):
                    assert count <= n_tokens
    return tuple(tokens)


def test_three_real_stages_answer_on_every_node_and_as_one_does(
    tiny_model: Path, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            nodes = await cluster.start_many(3, command=worker_command)
            await until(nodes[0], lambda state: all(facts.stored for facts in state.nodes))
            await nodes[0].load(SPREAD)
            await nodes[0].wait_ready(TINY)
            for node in nodes:
                await ready(node, "tiny")
            together = await asyncio.gather(*(answer(node) for node in nodes for _ in range(4)))
            assert len(set(together)) == 1
            await nodes[1].unload(TINY)
            await no_workers(nodes[0])
            await until(nodes[0], lambda state: not state.models)
            await nodes[0].load(LoadRequest("tiny"))
            facts = await nodes[0].wait_ready(TINY)
            assert len(facts.stages) == 1
            assert await answer(nodes[0]) == together[0]

    run(scene())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_stage_ends_the_answer_and_the_next_one_works(
    tiny_model: Path, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path, models=(str(tiny_model),)) as cluster:
            first, second = await cluster.start_many(2, command=worker_command)
            await until(first, lambda state: all(facts.stored for facts in state.nodes))
            await first.load(SPREAD)
            await first.wait_ready(TINY)
            await ready(second, "tiny")
            submit = Submit(0, Sampling(max_tokens=200, temperature=0.0), prompt="hello")
            with pytest.raises(WorkerLost):
                async for message in second.generate("tiny", submit):
                    if isinstance(message, Accepted):
                        os.kill(pid_of(second, second.id), signal.SIGSTOP)
                        os.kill(pid_of(second, second.id), signal.SIGKILL)
            await ready(second, "tiny", epoch=2)
            assert len(await answer(second)) == 8

    run(scene())


def test_a_damaged_file_fails_with_its_name_and_the_cluster_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    async def scene() -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "models" / "damaged")
        async with cluster_in(tmp_path, models=(str(folder), str(tiny_model))) as cluster:
            node = await cluster.start(worker_command)
            (folder / "tokenizer.json").write_text("{")
            await node.load(LoadRequest("damaged"))
            with pytest.raises(GanglineError, match=r"tokenizer\.json"):
                await node.wait_ready(ModelId("damaged"))
            await node.load(LoadRequest("tiny"))
            await node.wait_ready(TINY)
            assert len(await answer(node)) == 8

    run(scene())
