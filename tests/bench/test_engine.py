"""The measurement of the engine: every field, whichever lanes, depth and back end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gangline.bench.engine import Engine, Settings, bytes_per_step, measure_engine
from gangline.bench.memory import peak_resident_bytes
from gangline.bench.synth import synthesize
from gangline.bench.watch import KernelWatch
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.operations import Batch
from gangline.errors import ContextTooLong, NotFound

SMALL = {"prompt": 20, "tokens": 4}


@pytest.fixture
def model(tmp_path: Path) -> str:
    return synthesize("tiny", "q4", tmp_path / "model").path


@pytest.mark.parametrize(("lanes", "depth"), [(1, 0), (3, 30)])
def test_a_report(model: str, lanes: int, depth: int) -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    settings = Settings(model, threads=1, lanes=lanes, context_depth=depth, **SMALL)
    report = measure_engine(settings)
    assert (report.model, report.family, report.backend) == (model, "llama", "cpu")
    assert (report.threads, report.prompt, report.tokens) == (1, 20, 4)
    assert (report.lanes, report.context_depth) == (lanes, depth)
    assert report.vector
    assert 0 < report.decode_tps_min <= report.decode_tps <= report.decode_tps_max
    assert report.prefill_tps > 0 and report.load_s > 0 and report.read_gbps > 0
    assert report.bandwidth_gbps is not None and report.bandwidth_gbps > 0
    assert report.bandwidth_share == pytest.approx(
        report.read_gbps / report.bandwidth_gbps, abs=0.01
    )
    assert report.python_share is not None and 0 < report.python_share < 1
    assert report.peak_rss_mb is not None and report.peak_rss_mb > 10


def test_without_kernels_nothing_is_made_up(model: str) -> None:
    report = measure_engine(Settings(model, threads=1, backend="reference", **SMALL))
    assert (report.backend, report.vector) == ("reference", "")
    assert report.bandwidth_gbps is report.bandwidth_share is report.python_share is None
    assert report.decode_tps > 0


def test_errors_are_those_of_the_checkpoint(model: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model folder"):
        measure_engine(Settings(str(tmp_path / "none")))
    with pytest.raises(ContextTooLong, match="600 tokens are to be measured"):
        measure_engine(Settings(model, threads=1, prompt=600))


@pytest.mark.parametrize("shape", ["tiny", "tiny-tied"])
def test_a_step_reads_each_matrix_once(tmp_path: Path, shape: str) -> None:
    checkpoint = open_checkpoint(synthesize(shape, "q4", tmp_path / shape).path)
    embedding = checkpoint.tensor("model.embed_tokens.weight").n_bytes
    expected = checkpoint.size_bytes - (0 if shape == "tiny-tied" else embedding)
    assert bytes_per_step(checkpoint) == expected


def test_the_loops_do_what_a_head_does(model: str) -> None:
    """A prompt in one piece or in chunks, and decoding behind it, leave the same cache."""
    last = []
    for chunk_rows in (256, 7):
        engine = Engine(open_checkpoint(model), open_backend("auto", 1), context=64, lanes=2)
        assert engine.prefill(20, 1, chunk_rows) > 0
        seconds = engine.decode(5, 2, 20)
        assert len(seconds) == 5 and min(seconds) > 0
        hidden = engine.decoder.embed(np.array([3], np.int32))
        batch = _batch(slot=1, start=25)
        last.append(engine.decoder.forward(hidden, batch).tobytes())
    assert last[0] == last[1]


def _batch(slot: int, start: int) -> Batch:
    return Batch.of(*(np.array([n], np.int32) for n in (slot, start, 1)))


def test_the_watch_counts_and_leaves_no_trace(model: str) -> None:
    kernels = pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    before = dict(vars(kernels))
    engine = Engine(open_checkpoint(model), open_backend("cpu", 1), context=64, lanes=1)
    with KernelWatch() as watch:
        assert kernels.linear is not before["linear"]
        (step_s,) = engine.decode(1)
    assert watch.n_calls > 3 * 5
    assert 0 < watch.inside_s < step_s
    assert dict(vars(kernels)) == before


def test_peak_memory_only_grows() -> None:
    before = peak_resident_bytes()
    assert before is not None
    block = np.ones(before // 8 + (1 << 22))  # more than all that there ever was
    after = peak_resident_bytes()
    assert after is not None and after >= block.nbytes
