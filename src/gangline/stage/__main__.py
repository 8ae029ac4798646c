"""`python -m gangline.stage`: a worker that runs a span of layers on what the stage before sends.

Started by a node; speaks `stage.control` on stdin and stdout.
"""

from __future__ import annotations

from gangline.engine.operations import Batch
from gangline.stage.frames import FrameKind, wanted_rows
from gangline.stage.worker import Ring, Worker, run_worker


def run_stage(worker: Worker) -> None:
    """Load, open the ports, join the ring, run steps until a hop closes."""
    worker.load_weights()
    worker.open_ports({})
    ring = worker.join_ring()
    assert ring is not None, "a stage has neighbours; a model on one worker is a head alone"
    last = worker.load.index == worker.load.n_stages - 1
    while True:
        run_step(worker, ring, last)


def run_step(worker: Worker, ring: Ring, last: bool) -> None:
    """Take one step from the previous stage and pass on what this span makes of it."""
    decoder = worker.decoder
    frame = ring.receiver.receive()
    slots, starts, counts, _ = frame.layout
    batch = Batch.of(slots, starts, counts)
    if last:
        rows = decoder.forward(frame.hidden, batch, wanted_rows(frame.layout))
        ring.sender.send(FrameKind.RESULT, frame.step, frame.layout[:, :0], rows)
    else:
        hidden = decoder.forward(frame.hidden, batch)
        ring.sender.send(FrameKind.STEP, frame.step, frame.layout, hidden)


if __name__ == "__main__":
    run_worker(run_stage)
