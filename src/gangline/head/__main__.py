"""`python -m gangline.head`: the worker that holds a model's language and forms its steps.

Started by a node; speaks `stage.control` on stdin and stdout, `head.requests` with entry nodes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gangline.head.front import Counts, Front
from gangline.head.loop import StepLoop
from gangline.head.scheduler import Scheduler
from gangline.head.text import Language
from gangline.stage.control import Stats
from gangline.stage.handshake import Kind
from gangline.stage.worker import Worker, run_worker

# Tokenizing a long prompt must not keep the step loop from its next step for long.
_SWITCH_INTERVAL_S = 0.001


def run_head(worker: Worker) -> None:
    """Load, open the front, join the ring, answer requests until a hop closes."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    load, shape = worker.load, worker.checkpoint.shape
    # Before the weights: a model without a tokenizer is refused at once, not after minutes.
    language = Language(Path(load.path), shape.vocab, frozenset(shape.eos_ids))
    worker.load_weights()
    front = Front(language, load.context)
    worker.open_ports({Kind.FRONT: front.take_connection})
    ring = worker.join_ring()
    scheduler = Scheduler(load.lanes, load.n_stages, worker.step_rows)
    loop = StepLoop(worker.decoder, scheduler, ring, language.end_tokens, front.emit)
    front.start(loop.mailbox)
    front.report_stats(
        lambda: Counts(
            scheduler.n_active,
            scheduler.n_waiting,
            loop.n_steps,
            loop.pace.tokens_per_s,
            loop.pace.n_steps,
        ),
        lambda stats: worker.node.send(Stats(stats)),
    )
    loop.run()


if __name__ == "__main__":
    run_worker(run_head)
