"""The life of a worker process, the same for a head and a stage: load, connect, run, end.

What runs is given by the caller; what the messages between the stages mean is not known here.
The process ends with the node: when stdin closes or `Stop` arrives it exits at once, wherever it
is, since a worker holds nothing that has to be saved.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.errors import GanglineError, ProtocolError, WorkerLost
from gangline.stage import handshake
from gangline.stage.control import Connect, Connected, Failed, FromWorker, Load, Loaded, Progress
from gangline.stage.frames import Limits
from gangline.stage.handshake import Hello, Kind, join_address
from gangline.stage.listener import Listener, Receiver
from gangline.stage.pipe import ControlPipe
from gangline.stage.transport import FrameReceiver, FrameSender, HopClosed

log = logging.getLogger(__name__)

STEP_ROWS = 256  # rows of one step at most: prompt chunks and decoding lanes together
_CONNECT_WITHIN_S = 20.0
_PROGRESS_EVERY_S = 0.2


class Ring(NamedTuple):
    """A worker's two hops."""

    receiver: FrameReceiver
    sender: FrameSender


class NodeLink:
    """The worker's side of the pipe to its node, watched by a thread from the first message on."""

    def __init__(self, pipe: ControlPipe) -> None:
        self._pipe = pipe
        self._connects: queue.SimpleQueue[Connect] = queue.SimpleQueue()

    def receive_load(self) -> Load:
        """Wait for the first message, then watch for the others."""
        load = self._pipe.receive()
        if load is None:
            end_process(0)
        if not isinstance(load, Load):
            raise ProtocolError("the node's first message is not Load")
        threading.Thread(target=self._watch, name="control", daemon=True).start()
        return load

    def await_connect(self) -> str:
        """The address of the next stage, once the node knows it."""
        return self._connects.get().next

    def send(self, message: FromWorker) -> None:
        """Tell the node; if it is gone, so are we."""
        try:
            self._pipe.send(message)
        except OSError:
            end_process(0)

    def _watch(self) -> None:
        try:
            while isinstance(message := self._pipe.receive(), Connect):
                self._connects.put(message)
        except ProtocolError as error:
            log.error("%s", error.message)
        end_process(0)


class Worker:
    """A worker that has been told its stage and has opened the checkpoint; made by `run_worker`."""

    decoder: Decoder  # once `load_weights` has returned

    def __init__(self, node: NodeLink, load: Load) -> None:
        self.node, self.load = node, load
        self.checkpoint = open_checkpoint(load.path)
        self._upstream: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def load_weights(self) -> None:
        """Bring the weights of the span into memory: what may take minutes, after all else."""
        node, load = self.node, self.load
        self.decoder = Decoder(
            self.checkpoint,
            open_backend(load.backend, load.threads),
            load.span,
            head=load.role == "head",
            context=load.context,
            lanes=load.lanes,
            progress=_throttled(lambda fraction: node.send(Progress(fraction))),
        )

    def open_ports(self, receivers: Mapping[Kind, Receiver]) -> None:
        """Listen for the previous stage and for `receivers`, and tell the node the addresses."""
        load = self.load
        kinds = dict(receivers)
        if load.n_stages > 1:
            kinds[Kind.HOP] = self._take_upstream
        address = ""
        if kinds:
            listener = Listener(load.listen, load.secret, load.epoch, kinds)
            address = join_address(load.advertise, listener.port)
        self.node.send(
            Loaded(
                hop_address=address if Kind.HOP in kinds else "",
                front_address=address if Kind.FRONT in kinds else "",
                weight_bytes=self.decoder.weight_bytes,
                cache_bytes=self.decoder.cache_bytes,
                backend=self.decoder.operations.name,
            )
        )

    def join_ring(self) -> Ring | None:
        """Open the hop to the next stage and await the previous one's; None for a single stage."""
        load = self.load
        if load.n_stages == 1:
            return None
        address = self.node.await_connect()
        try:
            out = handshake.connect_hop(address, load.secret, load.epoch, load.index)
            into = self._upstream.get(timeout=_CONNECT_WITHIN_S)
        except (OSError, queue.Empty) as error:
            raise WorkerLost(
                f"stage {load.index} could not join its neighbours (next: {address}): "
                f"{str(error) or 'the previous stage did not connect'}",
                hint="check that the machines reach each other on all ports",
            ) from error
        self.node.send(Connected())
        return Ring(self._receiver(into), FrameSender(out, load.epoch))

    @property
    def step_rows(self) -> int:
        """Rows of one step at most."""
        return max(STEP_ROWS, self.load.lanes)

    def _receiver(self, into: socket.socket) -> FrameReceiver:
        """Room for one step at a stage; at the head, for every result that can be under way."""
        load, width = self.load, self.checkpoint.shape.hidden
        if load.role == "head":
            limits = Limits(load.epoch, load.lanes, load.lanes, width)
            return FrameReceiver(into, limits, n_frames=load.n_stages)
        return FrameReceiver(into, Limits(load.epoch, load.lanes, self.step_rows, width))

    def _take_upstream(self, connection: socket.socket, hello: Hello) -> None:
        if hello.stage == (self.load.index - 1) % self.load.n_stages:
            self._upstream.put(connection)
        else:
            log.warning("stage %d connected here, which is not our neighbour", hello.stage)
            connection.close()


def run_worker(run: Callable[[Worker], None]) -> NoReturn:
    """Be a worker process: `run` opens the ports, joins the ring and works until an error."""
    logging.basicConfig(level=os.environ.get("GANGLINE_LOG", "WARNING"), stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides; it sees the same Ctrl-C
    node = NodeLink(ControlPipe.of_process())
    try:
        run(Worker(node, node.receive_load()))
    except GanglineError as error:
        failure = error
    except MemoryError:
        failure = GanglineError("the worker ran out of memory")
    except Exception as error:  # the node has to hear of every end
        log.exception("the worker failed")
        failure = GanglineError(f"the worker failed: {error!r}", hint="its log says where")
    else:
        end_process(0)
    node.send(Failed(failure.body(), knock_on=isinstance(failure, HopClosed)))
    end_process(1)


def end_process(status: int) -> NoReturn:
    """End now: other threads may be in native code or in a blocking read."""
    with contextlib.suppress(OSError, ValueError):  # the node's end of it is closed, or ours
        sys.stderr.flush()
    os._exit(status)


def _throttled(report: Callable[[float], None]) -> Callable[[float], None]:
    last = 0.0

    def throttled(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S:
            last = now
            report(fraction)

    return throttled
