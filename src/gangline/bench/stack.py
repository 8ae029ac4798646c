"""Layers of a random model, more of them than caches hold, timed as a worker runs them.

A plain buffer tells what memory could give; a model's layers are read in short pieces, multiplied
on the way, and by code that waited for the hop before. Only the real thing says what that costs.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from gangline.bench.layout import GROUP_SIZE, quantization_of
from gangline.bench.shapes import SHAPES
from gangline.bench.synth import write_checkpoint
from gangline.checkpoint.model import open_checkpoint
from gangline.engine.decoder import Decoder
from gangline.engine.operations import F32, Batch, Operations
from gangline.errors import GanglineError
from gangline.facts import Span
from gangline.hardware.facts import read_memory
from gangline.stage.frames import FrameKind, Limits, wanted_rows
from gangline.stage.transport import FrameReceiver, FrameSender

BITS = 4
GROUP_BITS = 2 * 16 / GROUP_SIZE  # scale and offset of each group, for each weight
LOAD_S = 0.4  # copies of the layers are loaded for so long
MAX_COPIES = 4  # 260 MB of the layers that `bench/machine.py` asks for
FREE_SHARE = 0.25  # of free memory, for the copies
PAUSE_S = 0.01  # before each step over a hop: stages wait while the others compute


class Stack:
    """`sizes` as in `config.json`; as many copies of these layers as there is time and room for."""

    def __init__(
        self,
        operations: Operations,
        folder: Path,
        sizes: dict[str, int],
        *,
        context: int,
        copies: int = 1,
    ) -> None:
        config: dict[str, Any] = SHAPES["llama-3.1-8b"].config | sizes | {"vocab_size": 64}
        form = quantization_of(config, BITS)
        config |= {"quantization": form, "quantization_config": form}
        self.width, self.context = sizes["hidden_size"], context
        self._decoders: list[Decoder] = []
        end_s = time.monotonic() + LOAD_S
        with tempfile.TemporaryDirectory(dir=folder, prefix="measure-") as place:
            path = Path(place) / "model"
            write_checkpoint(config, BITS, path)
            while len(self._decoders) < copies:
                self._decoders.append(
                    Decoder(
                        open_checkpoint(path),
                        operations,
                        Span(0, sizes["num_hidden_layers"]),
                        head=False,
                        context=context,
                        lanes=1,
                    )
                )
                room = FREE_SHARE * read_memory().free_bytes
                if time.monotonic() > end_s or self._decoders[0].weight_bytes > room:
                    break
        self.n_layers = len(self._decoders) * sizes["num_hidden_layers"]
        self.n_elements = self.n_layers * matrix_elements(sizes)
        self._random = np.random.default_rng(0)

    @property
    def matrix_bytes(self) -> float:
        """Of all quantized matrices, as they lie in a file."""
        return self.n_elements * (BITS + GROUP_BITS) / 8

    def forward(self, hidden: F32, batch: Batch) -> F32:
        for decoder in self._decoders:
            hidden = decoder.forward(hidden, batch)
        return hidden

    def pass_s(self, n_rows: int = 1, depth: int = 0) -> float:
        """Seconds of one step of `n_rows` rows behind `depth` tokens."""
        one = np.ones(1, np.int32)
        batch = Batch.of(one * 0, one * depth, one * n_rows)
        hidden = self._random.standard_normal((n_rows, self.width), np.float32)
        began_s = time.perf_counter()
        self.forward(hidden, batch)
        return time.perf_counter() - began_s

    def steps_s(self) -> Generator[float]:
        """Seconds of steps of one row that come over a hop and go on, from awake to sent.

        The other end waits `PAUSE_S` before each, so that cores sleep and caches forget as they do
        between tokens. GanglineError or OSError where there is no such hop.
        """
        near, far = _connected()
        with near, far:
            limits = Limits(1, 1, 1, self.width)
            sender, results = FrameSender(near, epoch=1), FrameReceiver(near, limits)
            back, steps = FrameSender(far, epoch=1), FrameReceiver(far, limits)
            layout = np.array([[0], [0], [1], [1]], np.int32)
            hidden = np.zeros((1, self.width), np.float32)

            def other_end() -> None:
                time.sleep(PAUSE_S)
                with contextlib.suppress(GanglineError):  # this end failed, and says so itself
                    sender.send(FrameKind.STEP, 1, layout, hidden)
                    results.receive()

            while True:
                thread = threading.Thread(target=other_end, daemon=True)
                thread.start()
                began_s = 0.0
                while (frame := steps.take()) is None:
                    steps.fill()
                    began_s = time.perf_counter()
                slots, starts, counts, _ = frame.layout
                made = self.forward(frame.hidden, Batch.of(slots, starts, counts))
                rows = made[wanted_rows(frame.layout)]
                back.send(FrameKind.RESULT, frame.step, frame.layout[:, :0], rows)
                took_s = time.perf_counter() - began_s
                thread.join()
                yield took_s


def _connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def matrix_elements(sizes: dict[str, int]) -> int:
    """Elements of the matrices of one layer: a row takes a multiplication and an addition each."""
    hidden, head_dim = sizes["hidden_size"], sizes["head_dim"]
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    return attention + 3 * hidden * sizes["intermediate_size"]


def pair_operations(sizes: dict[str, int], n_layers: int) -> int:
    """Operations of attention for one row and one row before it, in all layers."""
    return 4 * sizes["num_attention_heads"] * sizes["head_dim"] * n_layers


def cache_token_bytes(sizes: dict[str, int], n_layers: int) -> int:
    """Bytes of keys and values of one token in all layers, in half precision."""
    return 4 * sizes["num_key_value_heads"] * sizes["head_dim"] * n_layers
