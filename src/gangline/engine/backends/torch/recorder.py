"""A span's layers as one function; steps of decoding lanes run through fixed buffers.

The number of rows is rounded up to a power of two by repeating the first row: the copies write the
same keys, values and states to the same places, and their results are dropped. Steps of equal
size then do the very same work on the very same memory, so that with CUDA the second such step is
recorded as a graph, and every later one is a single launch. Without CUDA the layers are called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from gangline.engine.backends.torch.attention import Group, Step
from gangline.engine.backends.torch.mixture import FEW_ROWS
from gangline.engine.operations import F32, Layers

log = logging.getLogger(__name__)

Run = Callable[[], torch.Tensor]  # the layers on the buffers of one size


class Recording(Protocol):
    """Work of the device that was recorded."""

    def replay(self) -> torch.Tensor:
        """Do it again; the result lies where it always does."""


class Graphs(Protocol):
    """How a device records work."""

    def first(self, run: Run) -> torch.Tensor:
        """Do the work once, so that what is set up with the first time is there."""

    def record(self, run: Run) -> Recording:
        """Note the work without doing it; RuntimeError where it cannot be recorded."""


class CudaGraphs:
    """CUDA's, and ROCm's, which PyTorch calls by the same names.

    Work is done first and recorded next on one stream, by one thread: libraries keep handles and
    memory for these, and a recording must neither make them nor compile a kernel. Graphs share
    their memory, since one runs at a time and its result is copied out before the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def first(self, run: Run) -> torch.Tensor:
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            result = run()
        now.wait_stream(self._stream)
        return result

    def record(self, run: Run) -> Recording:
        graph = torch.cuda.CUDAGraph()
        # What other threads ask of the device meanwhile is none of the recording's business.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = run()
        return _CudaRecording(graph, result)


class _CudaRecording:
    def __init__(self, graph: torch.cuda.CUDAGraph, result: torch.Tensor) -> None:
        self._graph, self._result = graph, result

    def replay(self) -> torch.Tensor:
        self._graph.replay()
        return self._result


class Recorder:
    """`layers(x, step)` from NumPy to NumPy; with `graphs`, decode steps are recorded."""

    def __init__(self, layers: Layers, device: torch.device, graphs: Graphs | None) -> None:
        self._layers = layers
        self._device = device
        self._graphs = graphs
        self._buffers: dict[tuple[int, int], Buffers] = {}  # by rows and keys

    def __call__(self, x: F32, step: Step) -> F32:
        with torch.inference_mode():
            return self._step(x, step)

    def _step(self, x: F32, step: Step) -> F32:
        (group, *others) = step.groups
        decodes = not others and group.positions.shape[1] == 1 and len(x) <= FEW_ROWS
        if not decodes:
            on_device = torch.from_numpy(np.array(x, np.float32)).to(self._device)
            return to_numpy(self._layers(on_device, step))
        form = 1 << (len(x) - 1).bit_length(), group.length
        if form not in self._buffers:
            self._buffers[form] = Buffers(*form, x.shape[1], self._device)
        buffers = self._buffers[form]
        buffers.fill(x, group)
        return to_numpy(self._run(buffers)[: len(x)])

    def _run(self, buffers: Buffers) -> torch.Tensor:
        def run() -> torch.Tensor:
            return self._layers(buffers.x, buffers.step())

        if self._graphs is None:
            return run()
        if not buffers.tried:
            buffers.tried = True
            return self._graphs.first(run)
        if buffers.recording is None:
            # Recording runs nothing: a failure leaves caches and states as they were.
            try:
                buffers.recording = self._graphs.record(run)
            except RuntimeError as error:
                log.warning("decode steps run without CUDA graphs: %s", error)
                self._graphs = None
                return run()
        return buffers.recording.replay()


class Buffers:
    """The inputs of decode steps of one size, where they always lie."""

    def __init__(self, n_rows: int, length: int, width: int, device: torch.device) -> None:
        self.x = torch.zeros((n_rows, width), device=device)
        self._slots = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._positions = torch.zeros((n_rows, 1), dtype=torch.int64, device=device)
        self._length = length
        self.tried = False
        self.recording: Recording | None = None

    def fill(self, x: F32, group: Group) -> None:
        """Copy a step in; rows that are missing repeat the first one."""
        n_rows = len(x)
        self.x[:n_rows] = torch.from_numpy(np.array(x, np.float32)).to(self.x.device)
        self._slots[:n_rows] = group.slots
        self._positions[:n_rows] = group.positions
        for buffer in (self.x, self._slots, self._positions):
            buffer[n_rows:] = buffer[0]

    def step(self) -> Step:
        """A new step on these buffers: what layers share is made anew in each run."""
        group = Group(0, len(self.x), self._slots, self._positions, self._length)
        return Step([group], self._slots)


def to_numpy(x: torch.Tensor) -> F32:
    """A copy, so that buffers may be used again."""
    copied: F32 = x.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return copied
