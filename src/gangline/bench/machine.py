"""What this machine can do, measured with the engine itself in about two seconds.

`python -m gangline.bench.machine FOLDER [THREADS [BACKEND]]` prints a `Measurement` as JSON. Nodes
run it as a process of its own (`hardware/measure.py`), so that they never load the engine nor
NumPy. Threads are those of a worker; one for each core where none are given. Prefill and the fixed
cost of a layer are those of two small random models, because that is what a step pays: kernels,
threads and Python together. What cannot be measured stays `None`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from gangline.bench.layout import GROUP_SIZE, quantization_of
from gangline.bench.shapes import SHAPES
from gangline.bench.synth import write_checkpoint
from gangline.bench.watch import device_name, read_bandwidth, vector_path
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import Batch, Operations
from gangline.errors import GanglineError
from gangline.facts import Span
from gangline.hardware.facts import count_cores
from gangline.hardware.measure import Measurement

T = TypeVar("T")

BITS = 4
PREFILL_ROWS = 128
MEASURE_S = 0.4  # of each of the two models
ROUNDS = 40  # at most
GROUP_BITS = 2 * 16 / GROUP_SIZE  # scale and offset of each group, for each weight
DEEP_LAYERS = 8  # of the wide model: 75 MB, beyond the caches of graphics
DISTURBED_FROM = 1.3  # times the fastest pass; alone on a machine, the median is within 1.1
DISK_BYTES = 32 << 20  # written and read back: two seconds on a slow memory card
_BLOCK_BYTES = 1 << 20
_F_NOCACHE = 48  # fcntl.h of macOS: do not keep what is read of this file

# One layer that is large enough for arithmetic to decide, and many so small that nothing else does.
_WIDE = {
    "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 4096,
}  # fmt: skip
_THIN = {
    "hidden_size": 64, "num_hidden_layers": 16, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
}  # fmt: skip


def measure(folder: Path, threads: int, backend: str = "auto") -> Measurement:
    """Measure here and now with as many threads; `folder` is on the disk that is to be read."""
    operations = open_backend(backend, threads)
    wide = _attempt(lambda: _passes(operations, folder, _WIDE, PREFILL_ROWS))
    thin = _attempt(lambda: _passes(operations, folder, _THIN, 1))
    layer_s = statistics.median(thin) / _THIN["num_hidden_layers"] if thin else None
    return Measurement(
        read_bytes_per_s=_attempt(lambda: _read_bytes_per_s(operations, threads, folder, layer_s)),
        vector=vector_path(operations),
        measured_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        operations_per_s=_prefill_rate(wide) if wide else None,
        layer_s=layer_s,
        disk_read_bytes_per_s=_attempt(lambda: read_disk(folder)),
        measured_busy=is_disturbed(wide or []),
        backend=operations.name,
        device=device_name(operations),
    )


def _prefill_rate(seconds: list[float]) -> float:
    """Operations per second of passes of the wide model."""
    return 2.0 * PREFILL_ROWS * matrix_elements(_WIDE) / statistics.median(seconds)


def is_disturbed(seconds: list[float]) -> bool:
    """Whether something else ran meanwhile: equal passes took unequal times."""
    return bool(seconds) and statistics.median(seconds) > DISTURBED_FROM * min(seconds)


def _read_bytes_per_s(
    operations: Operations, threads: int, folder: Path, layer_s: float | None
) -> float | None:
    """What memory gives: to the kernels from a plain buffer, to other back ends while they decode.

    None for the slow definition of what operations mean, which memory never limits.
    """
    if operations.name == "reference":
        return None
    speed = read_bandwidth(operations, threads)
    if speed is not None or layer_s is None:
        return speed
    sizes = _WIDE | {"num_hidden_layers": DEEP_LAYERS}
    pass_s = statistics.median(_passes(operations, folder, sizes, 1))
    reading_s = pass_s - DEEP_LAYERS * layer_s
    n_bytes = DEEP_LAYERS * matrix_elements(sizes) * (BITS + GROUP_BITS) / 8
    return n_bytes / reading_s if reading_s > 0 else None


def matrix_elements(sizes: dict[str, int]) -> int:
    """Elements of the matrices of one layer: a row takes a multiplication and an addition each."""
    hidden, head_dim = sizes["hidden_size"], sizes["head_dim"]
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    return attention + 3 * hidden * sizes["intermediate_size"]


def _attempt(work: Callable[[], T]) -> T | None:
    """One measurement; a machine on which it fails has the others."""
    try:
        return work()
    except (GanglineError, OSError, RuntimeError) as error:  # the last: a GPU's driver
        print(f"not measured: {error}", file=sys.stderr)
        return None


def _passes(
    operations: Operations, folder: Path, sizes: dict[str, int], n_rows: int
) -> list[float]:
    """Seconds of passes of the first `n_rows` rows through all layers of a random model."""
    config: dict[str, Any] = SHAPES["llama-3.1-8b"].config | sizes | {"vocab_size": 64}
    form = quantization_of(config, BITS)
    config |= {"quantization": form, "quantization_config": form}
    with tempfile.TemporaryDirectory(dir=folder, prefix="measure-") as place:
        path = Path(place) / "model"
        write_checkpoint(config, BITS, path)
        decoder = Decoder(
            open_checkpoint(path),
            operations,
            Span(0, sizes["num_hidden_layers"]),
            head=False,
            context=PREFILL_ROWS,
            lanes=1,
        )
    one = np.ones(1, np.int32)
    batch = Batch.of(one * 0, one * 0, one * n_rows)
    hidden = np.random.default_rng(0).standard_normal((n_rows, sizes["hidden_size"]), np.float32)
    decoder.forward(hidden.copy(), batch)  # warm-up, not counted
    seconds: list[float] = []
    end_s = time.perf_counter() + MEASURE_S
    while len(seconds) < ROUNDS and (not seconds or time.perf_counter() < end_s):
        rows = hidden.copy()
        began_s = time.perf_counter()
        decoder.forward(rows, batch)
        seconds.append(time.perf_counter() - began_s)
    return seconds


def read_disk(folder: Path) -> float | None:
    """Bytes per second at which a file is read that the system does not keep in memory.

    None where the system cannot be told to forget it.
    """
    if not hasattr(os, "posix_fadvise") and sys.platform != "darwin":
        return None
    descriptor, name = tempfile.mkstemp(dir=folder, prefix="measure-")
    try:
        block = np.random.default_rng(0).bytes(_BLOCK_BYTES)
        for _ in range(DISK_BYTES // _BLOCK_BYTES):
            os.write(descriptor, block)
        os.fsync(descriptor)
        _forget_cached(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        began_s = time.perf_counter()
        n_read = 0
        while chunk := os.read(descriptor, _BLOCK_BYTES):
            n_read += len(chunk)
        return n_read / (time.perf_counter() - began_s)
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # a scratch file left behind spoils no measurement
            Path(name).unlink()


def _forget_cached(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, _F_NOCACHE, 1)
    elif hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    given = int(sys.argv[2]) if len(sys.argv) > 2 else count_cores()
    backend = sys.argv[3] if len(sys.argv) > 3 else "auto"
    sys.stdout.buffer.write(msgspec.json.encode(measure(Path(sys.argv[1]), given, backend)))
