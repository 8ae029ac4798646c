"""Messages between a node and its worker processes, over the worker's stdin and stdout.

Framed by `stage/messages.py`. A worker ends when its standard input does, so a node that dies takes
its workers along. A worker's stderr is its log.
The order is: node sends `Load`, worker answers `Progress`… `Loaded`; node sends `Connect`, worker
answers `Connected`; then a head sends `Stats`. At any time a worker may send `Failed` and exit.
"""

from __future__ import annotations

import msgspec

from gangline.errors import ErrorBody
from gangline.facts import ModelId, Role, Span, WorkerStats

MAX_MESSAGE_BYTES = 4 * 1024 * 1024


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Everything a worker needs to know of its stage, before it meets the others."""

    model: ModelId
    path: str
    epoch: int
    role: Role
    span: Span
    index: int  # of this stage in the ring; the head is 0
    n_stages: int
    secret: bytes  # of this model and epoch; proves membership in handshakes
    listen: str  # address to listen on, for the previous stage and for entry nodes
    advertise: str  # address at which other nodes reach this machine
    context: int  # tokens per lane
    lanes: int
    threads: int
    backend: str = "cpu"


class Connect(msgspec.Struct, frozen=True, tag="connect"):
    """Open the hop to the next stage (the last stage's next is the head); "host:port"."""

    next: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Close everything and exit with 0."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """Weights are in memory and the ports are open; addresses are "host:port"."""

    hop_address: str  # where the previous stage connects ("" when there is one stage only)
    front_address: str  # where entry nodes connect ("" unless head)
    weight_bytes: int
    cache_bytes: int
    backend: str


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """Both hops of this worker (from the previous stage, to the next) are open."""


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """What a head has counted; about once a second while it changes."""

    stats: WorkerStats


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot go on and exits: a file is broken, a hop is lost."""

    error: ErrorBody
    knock_on: bool = False  # a neighbour closed its hop: what became of that one says more


ToWorker = Load | Connect | Stop
FromWorker = Progress | Loaded | Connected | Stats | Failed
