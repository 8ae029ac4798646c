"""A node with nothing loaded is small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.node.cluster import cluster_in, run


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_node_with_nothing_loaded_needs_little_memory(tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster_in(tmp_path) as cluster:
            await cluster.start()
            process = await cluster.start_process(scout=True)
            await cluster.met()
            assert resident_bytes(process.pid) < 80 << 20, "of 100 MB; the HTTP server has a part"

    run(scene())


def resident_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
