"""A span's layers as one function; steps of decoding lanes run through fixed buffers.

The number of rows is rounded up to a power of two by repeating the first row: the copies write the
same keys, values and states to the same places, and their results are dropped. Steps of equal
size then do the very same work on the very same memory, so that with CUDA the second such step is
recorded as a graph, and every later one is a single launch. Without CUDA the layers are called.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from gangline.engine.backends.torch.attention import Group, Step
from gangline.engine.backends.torch.mixture import FEW_ROWS
from gangline.engine.operations import F32, Layers

log = logging.getLogger(__name__)


class Recorder:
    """`layers(x, step)` from NumPy to NumPy; with `graphs`, decode steps are recorded."""

    def __init__(self, layers: Layers, device: torch.device, *, graphs: bool) -> None:
        self._layers = layers
        self._device = device
        self._graphs = graphs
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._buffers: dict[tuple[int, int], Buffers] = {}  # by rows and keys

    def __call__(self, x: F32, step: Step) -> F32:
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
        if not self._graphs:
            return self._layers(buffers.x, buffers.step())
        if buffers.graph is None and buffers.n_runs:
            # Recording runs nothing: a failure leaves caches and states as they were.
            try:
                buffers.record(self._layers, self._pool)
            except RuntimeError as error:
                log.warning("decode steps run without CUDA graphs: %s", error)
                self._graphs = False
        buffers.n_runs += 1
        if buffers.graph is None:  # the first step of its size lets libraries set themselves up
            return self._layers(buffers.x, buffers.step())
        buffers.graph.replay()
        assert buffers.result is not None, "recorded together with the graph"
        return buffers.result


class Buffers:
    """The inputs of decode steps of one size, where they always lie."""

    def __init__(self, n_rows: int, length: int, width: int, device: torch.device) -> None:
        self.x = torch.zeros((n_rows, width), device=device)
        self._slots = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._positions = torch.zeros((n_rows, 1), dtype=torch.int64, device=device)
        self._length = length
        self.n_runs = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: torch.Tensor | None = None

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

    def record(self, layers: Layers, pool: tuple[int, int] | None) -> None:
        """Record the layers' work on these buffers as a CUDA graph.

        Graphs may share a pool of memory, since one runs at a time and its result is copied out.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = layers(self.x, self.step())
        self.graph, self.result = graph, result


def to_numpy(x: torch.Tensor) -> F32:
    """A copy, so that buffers may be used again."""
    copied: F32 = x.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return copied
