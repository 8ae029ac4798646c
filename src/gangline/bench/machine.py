"""What this machine can do, measured with the engine itself in two to four seconds.

`python -m gangline.bench.machine FOLDER [THREADS [BACKEND]]` prints a `Measurement` as JSON. Nodes
run it as a process of its own (`hardware/measure.py`), so that they never load the engine nor
NumPy. Threads are those of a worker; one for each core where none are given. All of it is timed on
layers of random models (`bench/stack.py`), because that is what a step pays: kernels, threads and
Python together. What cannot be measured stays `None`.
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
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from gangline.bench.stack import MAX_COPIES, Stack, cache_token_bytes, pair_operations
from gangline.bench.watch import device_name, vector_path
from gangline.engine.backends import open_backend
from gangline.engine.operations import Operations
from gangline.errors import GanglineError
from gangline.hardware.facts import count_cores
from gangline.hardware.measure import Measurement

T = TypeVar("T")

PREFILL_ROWS = 256  # of a step of a prompt, as workers take them
DEPTH = 512  # tokens behind which attention is timed, as of an ordinary conversation
MEASURE_S = 0.4  # of each kind of step
ROUNDS = 40  # at most
DISTURBED_FROM = 1.3  # times the fastest pass; alone on a machine, the median is within 1.1
DISK_BYTES = 32 << 20  # written and read back: two seconds on a slow memory card
_BLOCK_BYTES = 1 << 20
_F_NOCACHE = 48  # fcntl.h of macOS: do not keep what is read of this file

# Layers that are large enough for arithmetic and memory to decide, and many so small that nothing
# else does. The deep ones take 66 MB; copies of them take more than caches hold.
_WIDE = {
    "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 4096,
}  # fmt: skip
_DEEP = _WIDE | {"num_hidden_layers": 8}
_THIN = {
    "hidden_size": 64, "num_hidden_layers": 16, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
}  # fmt: skip


def measure(folder: Path, threads: int, backend: str = "auto") -> Measurement:
    """Measure here and now with as many threads; `folder` is on the disk that is to be read."""
    operations = open_backend(backend, threads)
    prompt = _attempt(lambda: _measure_prompt(operations, folder))
    layer_s = _attempt(lambda: _measure_layer(operations, folder))
    decode = _attempt(lambda: _measure_decode(operations, folder, layer_s or 0.0))
    return Measurement(
        read_bytes_per_s=decode.read_bytes_per_s if decode else None,
        vector=vector_path(operations),
        measured_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        operations_per_s=prompt.operations_per_s if prompt else None,
        layer_s=layer_s,
        disk_read_bytes_per_s=_attempt(lambda: read_disk(folder)),
        measured_busy=is_disturbed(prompt.passes_s if prompt else []),
        cache_bytes_per_s=decode.cache_bytes_per_s if decode else None,
        attention_operations_per_s=prompt.attention_operations_per_s if prompt else None,
        step_s=decode.step_s if decode else None,
        backend=operations.name,
        device=device_name(operations),
    )


class Prompt(NamedTuple):
    """What steps of many rows reach."""

    operations_per_s: float
    attention_operations_per_s: float | None  # None: not asked for, or lost in noise
    passes_s: list[float]


def _measure_prompt(operations: Operations, folder: Path) -> Prompt:
    """A step of rows behind nothing and one behind many: the difference is attention's.

    Of several copies, since weights come from memory in a prompt too: 2 percent of its time.
    """
    stack = Stack(operations, folder, _WIDE, context=DEPTH + PREFILL_ROWS, copies=MAX_COPIES)
    works = [lambda: stack.pass_s(PREFILL_ROWS), lambda: stack.pass_s(PREFILL_ROWS, DEPTH)]
    if is_slow_definition(operations):
        works.pop()  # takes it seconds
    first, *behind = _alternate(*works)
    attending_s = _difference(behind[0], first) if behind else 0.0
    pairs = pair_operations(_WIDE, stack.n_layers) * PREFILL_ROWS
    attention = pairs * DEPTH / attending_s if attending_s > 0 else None
    own_s = pairs * PREFILL_ROWS / 2 / attention if attention else 0.0
    total_s = statistics.median(first)
    rate = 2.0 * PREFILL_ROWS * stack.n_elements / max(total_s - own_s, total_s / 2)
    return Prompt(rate, attention, first)


def _measure_layer(operations: Operations, folder: Path) -> float:
    """Seconds that a layer of one row takes whatever its size."""
    stack = Stack(operations, folder, _THIN, context=PREFILL_ROWS)
    (passes_s,) = _alternate(stack.pass_s)
    return statistics.median(passes_s) / stack.n_layers


class Decode(NamedTuple):
    """What steps of one row reach."""

    read_bytes_per_s: float
    cache_bytes_per_s: float | None  # None: the difference was lost in noise
    step_s: float


def _measure_decode(operations: Operations, folder: Path, layer_s: float) -> Decode | None:
    """Steps behind nothing, behind many tokens, and over a hop, by turns.

    None where memory is never what limits.
    """
    if is_slow_definition(operations):
        return None
    stack = Stack(operations, folder, _DEEP, context=DEPTH + 1, copies=MAX_COPIES)
    over_hop = stack.steps_s()
    first, behind, hops = _alternate(
        stack.pass_s, lambda: stack.pass_s(depth=DEPTH), lambda: next(over_hop)
    )
    over_hop.close()
    pass_s = statistics.median(first)
    reading_s = max(pass_s - stack.n_layers * layer_s, pass_s / 2)
    attending_s = _difference(behind, first)
    cached = cache_token_bytes(_DEEP, stack.n_layers) * DEPTH
    return Decode(
        stack.matrix_bytes / reading_s,
        cached / attending_s if attending_s > 0 else None,
        max(0.0, _difference(hops, first)),
    )


def _alternate(*works: Callable[[], float]) -> list[list[float]]:
    """The results of each work, done by turns so that a drift of the machine meets all alike."""
    for work in works:
        work()  # warm-up, not counted
    found: list[list[float]] = [[] for _ in works]
    end_s = time.perf_counter() + MEASURE_S * len(works)
    while len(found[0]) < ROUNDS and (not found[0] or time.perf_counter() < end_s):
        for results, work in zip(found, works, strict=True):
            results.append(work())
    return found


def _difference(some: list[float], others: list[float]) -> float:
    """The median difference of measurements that were made in pairs."""
    return statistics.median(a - b for a, b in zip(some, others, strict=True))


def is_slow_definition(operations: Operations) -> bool:
    """Whether these are NumPy's, which say what operations mean."""
    return operations.name == "reference"


def is_disturbed(seconds: list[float]) -> bool:
    """Whether something else ran meanwhile: equal passes took unequal times."""
    return bool(seconds) and statistics.median(seconds) > DISTURBED_FROM * min(seconds)


def _attempt(work: Callable[[], T]) -> T | None:
    """One measurement; a machine on which it fails has the others."""
    try:
        return work()
    except (GanglineError, OSError, RuntimeError) as error:  # the last: a GPU's driver
        print(f"not measured: {error}", file=sys.stderr)
        return None


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
