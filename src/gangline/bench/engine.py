"""How fast this machine runs a stored model: the engine alone, in this process, no network.

Lanes are filled and decoded as a head does it: embed, layers, logits, the largest one is the next
token. Knows no tokenizer, so a checkpoint from `gangline synth` will do.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import msgspec
import numpy as np

from gangline.bench.memory import peak_resident_bytes
from gangline.bench.watch import KernelWatch, read_bandwidth, vector_path
from gangline.checkpoint.model import Checkpoint, open_checkpoint
from gangline.checkpoint.shape import Mixture
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import I32, Batch, Operations
from gangline.errors import ContextTooLong
from gangline.facts import Span
from gangline.hardware.facts import count_cores

CHUNK_ROWS = 256  # of a prompt per step, as a worker does it
ROUNDS = 3  # of each measurement; the median counts
WARM_STEPS = 2
WATCHED_STEPS = 16  # of one lane, for Python's share
_SLACK_TOKENS = WATCHED_STEPS + WARM_STEPS


class Settings(msgspec.Struct, frozen=True):
    """What to measure. Decoding starts behind `context_depth` tokens in every lane."""

    model: str
    threads: int | None = None  # None: one per core
    prompt: int = 512  # tokens
    tokens: int = 32  # of each lane and round
    lanes: int = 1
    context_depth: int = 0
    backend: str = "auto"


class Report(msgspec.Struct, frozen=True):
    """The JSON of `gangline bench engine`; GB and MB are powers of ten, `None` is not measured.

    `prefill_tps` is of one prompt, `decode_tps` of all lanes together, both after a warm-up.
    `read_gbps` counts the bytes of weights on disk that a decode step needs (all layers, of experts
    those that are asked, and the output matrix; of an embedding that is not the output, nothing)
    times the steps per second;
    `bandwidth_gbps` is what the kernels read from a plain buffer with as many threads, measured
    between the rounds, and `bandwidth_share` the first over the second. `python_share` is the
    part of a one-lane step outside of the kernels. `peak_rss_mb` is of this process up to the
    end of the first round, interpreter and mapped files included.
    """

    model: str
    family: str
    backend: str
    vector: str
    threads: int
    prompt: int
    tokens: int
    lanes: int
    context_depth: int
    weight_mb: float
    cache_mb: float
    load_s: float
    prefill_tps: float
    decode_tps: float
    decode_tps_min: float
    decode_tps_max: float
    read_gbps: float
    bandwidth_gbps: float | None
    bandwidth_share: float | None
    python_share: float | None
    peak_rss_mb: float | None


class Engine:
    """A whole model in memory, and the loops that are timed; `context` tokens in each lane."""

    def __init__(
        self, checkpoint: Checkpoint, operations: Operations, *, context: int, lanes: int
    ) -> None:
        shape = checkpoint.shape
        if context > shape.context:
            raise ContextTooLong(
                f"{context} tokens are to be measured, the model was made for {shape.context}",
                hint="use a smaller --prompt, --tokens or --context-depth",
            )
        self.decoder = Decoder(
            checkpoint,
            operations,
            Span(0, shape.n_layers),
            head=True,
            context=context,
            lanes=lanes,
        )
        self.step_bytes = bytes_per_step(checkpoint, lanes)
        self._random = np.random.default_rng(0)

    def prefill(self, n_tokens: int, slot: int = 0, chunk_rows: int = CHUNK_ROWS) -> float:
        """Fill a lane from its start; seconds until the logits of the last token are there."""
        decoder = self.decoder
        ids = self._random.integers(0, decoder.shape.vocab, n_tokens).astype(np.int32)
        began_s = time.perf_counter()
        for start in range(0, n_tokens, chunk_rows):
            chunk = ids[start : start + chunk_rows]
            batch = Batch.of(_ints(slot), _ints(start), _ints(len(chunk)))
            last = np.arange(len(chunk), dtype=np.int32)[n_tokens - 1 - start :]
            hidden = decoder.forward(decoder.embed(chunk), batch, last)
        decoder.logits(hidden)
        return time.perf_counter() - began_s

    def decode(self, n_steps: int, lanes: int = 1, depth: int = 0) -> list[float]:
        """Seconds of each of `n_steps` steps of slots 0 to `lanes`, from position `depth` on."""
        decoder = self.decoder
        rows = np.arange(lanes, dtype=np.int32)
        ones = np.ones(lanes, np.int32)
        ids = self._random.integers(0, decoder.shape.vocab, lanes).astype(np.int32)
        seconds = []
        for step in range(n_steps):
            began_s = time.perf_counter()
            batch = Batch.of(rows, np.full(lanes, depth + step, np.int32), ones)
            logits = decoder.logits(decoder.forward(decoder.embed(ids), batch))
            ids = logits.argmax(axis=1).astype(np.int32)
            seconds.append(time.perf_counter() - began_s)
        return seconds


def measure_engine(settings: Settings) -> Report:
    """Load, fill, decode, watch; the memory bandwidth is measured between the rounds."""
    threads = settings.threads or count_cores()
    began_s = time.perf_counter()
    checkpoint = open_checkpoint(Path(settings.model))
    operations = open_backend(settings.backend, threads)
    depth = settings.context_depth
    last = max(settings.prompt, depth + max(settings.tokens, _SLACK_TOKENS))
    engine = Engine(checkpoint, operations, context=last, lanes=settings.lanes)
    load_s = time.perf_counter() - began_s

    engine.prefill(min(settings.prompt, CHUNK_ROWS))  # warm-up
    if depth:
        for slot in range(settings.lanes):  # once: decoding only overwrites what lies behind it
            engine.prefill(depth, slot)
    prefills_s, rounds_s, bandwidths = [], [], []
    peak_bytes: int | None = None
    for number in range(ROUNDS):
        prefills_s.append(engine.prefill(settings.prompt))
        engine.decode(WARM_STEPS, settings.lanes, depth)
        rounds_s.append(sum(engine.decode(settings.tokens, settings.lanes, depth)))
        if number == 0:
            peak_bytes = peak_resident_bytes()
        bandwidths.append(read_bandwidth(operations, threads))

    tps = [settings.lanes * settings.tokens / seconds for seconds in rounds_s]
    steps_per_s = statistics.median(tps) / settings.lanes
    read = engine.step_bytes * steps_per_s
    bandwidth = statistics.median(b for b in bandwidths if b) if all(bandwidths) else None
    return Report(
        model=settings.model,
        family=checkpoint.shape.family,
        backend=operations.name,
        vector=vector_path(operations),
        threads=threads,
        prompt=settings.prompt,
        tokens=settings.tokens,
        lanes=settings.lanes,
        context_depth=depth,
        weight_mb=round(engine.decoder.weight_bytes / 1e6, 1),
        cache_mb=round(engine.decoder.cache_bytes / 1e6, 1),
        load_s=round(load_s, 3),
        prefill_tps=round(settings.prompt / statistics.median(prefills_s), 2),
        decode_tps=round(statistics.median(tps), 2),
        decode_tps_min=round(min(tps), 2),
        decode_tps_max=round(max(tps), 2),
        read_gbps=round(read / 1e9, 2),
        bandwidth_gbps=None if bandwidth is None else round(bandwidth / 1e9, 2),
        bandwidth_share=None if bandwidth is None else round(read / bandwidth, 3),
        python_share=python_share(engine, operations, depth),
        peak_rss_mb=None if peak_bytes is None else round(peak_bytes / 1e6, 1),
    )


def python_share(engine: Engine, operations: Operations, depth: int = 0) -> float | None:
    """The part of a one-lane decode step that is spent outside of the kernels.

    In some steps every function of `gangline._kernels` is wrapped by two readings of the clock;
    what is left of a step's time, less what the wrapping itself costs (measured beforehand on a
    function that does nothing), is Python, NumPy and the crossing into C++ and back. The median
    of the steps counts. `None` for a back end without the kernels.
    """
    if operations.name != "cpu":
        return None
    shares = []
    with KernelWatch() as watch:
        engine.decode(WARM_STEPS, 1, depth)
        for _ in range(WATCHED_STEPS):
            watch.clear()
            (step_s,) = engine.decode(1, 1, depth)
            outside_s = step_s - watch.inside_s - watch.n_calls * watch.cost_s
            shares.append(outside_s / step_s)
    return round(max(0.0, statistics.median(shares)), 4)


def bytes_per_step(checkpoint: Checkpoint, lanes: int = 1) -> int:
    """Bytes of weights, as they lie on disk, that one decode step has to read.

    Of experts, as many as `lanes` rows ask for on average if they choose independently.
    """
    sizes = checkpoint.sizes
    unread = 0.0
    for layer, expert_bytes in zip(checkpoint.shape.layers, sizes.experts, strict=True):
        if isinstance(layer.mlp, Mixture):
            routing = layer.mlp.routing
            unread += expert_bytes * (1 - routing.n_active / routing.n_experts) ** lanes
    embedding = sizes.embedding if checkpoint.shape.tied else 0
    return sum(sizes.layers) - round(unread) + sizes.output + embedding


def _ints(*values: int) -> I32:
    return np.array(values, np.int32)
