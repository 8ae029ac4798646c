"""A worker without a model: `worker_double.py BEHAVIOUR` speaks the control protocol of a worker.

A real process on real pipes, for tests of what supervises it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gangline.checkpoint.headers import read_entries
from gangline.checkpoint.safetensors import Maps
from gangline.errors import CheckpointError, WorkerLost
from gangline.stage.control import Connect, Connected, Failed, Load, Loaded, Progress
from gangline.stage.pipe import ControlPipe


def good(pipe: ControlPipe, load: Load) -> None:
    """Load, meet the neighbour, then wait for the end."""
    pipe.send(Progress(0.5))
    hop = f"127.0.0.1:{1000 + load.index}" if load.n_stages > 1 else ""
    front = "127.0.0.1:999" if load.role == "head" else ""
    pipe.send(Loaded(hop, front, 100, 200, "double"))
    while isinstance(message := pipe.receive(), Connect):
        expected = 1000 + (load.index + 1) % load.n_stages
        assert message.next == f"127.0.0.1:{expected}", message
        pipe.send(Connected())


def crash(pipe: ControlPipe, load: Load) -> None:
    """End as native code does."""
    print("about to dereference a null pointer", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGABRT)


def tear(pipe: ControlPipe, load: Load) -> None:
    """Cut the own weights short, as another program would, and read on in place."""
    maps = Maps()
    (entry,) = read_entries(Path(load.path)).values()
    octets = maps.octets(entry)
    pipe.send(Progress(0.5))
    os.truncate(entry.file, entry.start)
    octets.sum()


def fail(pipe: ControlPipe, load: Load) -> None:
    """Say what is wrong, and end."""
    pipe.send(Failed(CheckpointError("layer 3 is missing", hint="download it again").body()))
    sys.exit(1)


def lose(pipe: ControlPipe, load: Load) -> None:
    """Say that a neighbour is lost, which may be better next time."""
    pipe.send(Failed(WorkerLost("the hop broke").body()))
    sys.exit(1)


def hang(pipe: ControlPipe, load: Load) -> None:
    """Neither answer nor listen."""
    pipe.send(Progress(0.25))
    while True:
        time.sleep(60)


def babble(pipe: ControlPipe, load: Load) -> None:
    """Say what no worker says, and stay."""
    pipe._writing.write(b"\x05\x00\x00\x00hello")
    pipe._writing.flush()
    hang(pipe, load)


def boast(pipe: ControlPipe, load: Load) -> None:
    """Announce more than anybody may say, and stay."""
    pipe._writing.write(b"\xff\xff\xff\xff")
    pipe._writing.flush()
    hang(pipe, load)


def shout(pipe: ControlPipe, load: Load) -> None:
    """Write a line to the log that is longer than any buffer, then do well."""
    print("x" * 300_000, file=sys.stderr, flush=True)
    good(pipe, load)


BEHAVIOURS = {f.__name__: f for f in (good, crash, tear, fail, lose, hang, babble, boast, shout)}

if __name__ == "__main__":
    control = ControlPipe.of_process()
    first = control.receive()
    assert isinstance(first, Load)
    BEHAVIOURS[sys.argv[1]](control, first)
