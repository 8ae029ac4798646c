"""Malformed bytes at every door of the data plane: no crash, no hang, no leak.

    python -m tests.fuzz_frames [--count 10000] [--seed 0]

A third of the attempts meets the ports of two real workers (junk instead of a handshake, good
handshakes damaged or cut short), a third the front of a real head after a good handshake (broken
lengths, broken msgpack, valid messages with odd contents), a third is damaged frames into a
receiver. In between and at the end the workers answer as they did before, and hold as many file
descriptors and threads, and about as much memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from gangline.errors import ProtocolError
from gangline.head.requests import Cancel, Sampling, Submit
from gangline.stage import handshake
from gangline.stage.frames import HEADER_BYTES, FrameKind, Limits, pack_header
from gangline.stage.handshake import Hello, split_address
from gangline.stage.transport import FrameReceiver, HopClosed
from tests.make_checkpoint import make_checkpoint
from tests.make_tokenizer import VOCABULARY, make_tokenizer
from tests.ring import EPOCH, SECRET, Ring

CHECK_EVERY = 1000
LEAK_BYTES = 64 << 20  # far below one leaked frame buffer per attempt, far above noise
PROBE = Submit(0, Sampling(max_tokens=8, temperature=0), prompt="probe", logits_digest=True)
LIMITS = Limits(epoch=3, lanes=8, rows=64, width=16)


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw malformed bytes at real workers")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_checkpoint(Path(folder) / "model", n_layers=2, vocab=VOCABULARY)
        with Ring(make_tokenizer(path), [1], 2) as ring:
            attack(ring, arguments.count, random.Random(arguments.seed))
    print(f"{arguments.count} malformed inputs: no crash, no hang, no leak")


def attack(ring: Ring, count: int, dice: random.Random) -> None:
    """`count` attempts; raises AssertionError where the workers do not bear them."""
    expected = probe(ring)
    before = [usage(worker.process.pid) for worker in ring.workers]
    for attempt in range(count):
        (attack_port, attack_front, attack_receiver)[attempt % 3](ring, dice)
        if attempt % CHECK_EVERY == CHECK_EVERY - 1:
            assert probe(ring) == expected, "the answer changed"
            print(f"  {attempt + 1} of {count}", file=sys.stderr)
    assert probe(ring) == expected, "the answer changed"
    for worker, (files, threads, resident) in zip(ring.workers, before, strict=True):
        assert worker.process.poll() is None, "a worker has ended"
        now_files, now_threads, now_resident = settled(worker.process.pid, files, threads)
        # Fewer where the first probe's connection was still being closed when they were counted.
        assert now_files <= files and now_threads <= threads, "descriptors or threads leak"
        assert now_resident - resident < LEAK_BYTES, "memory leaks"


def probe(ring: Ring) -> tuple[list[int], str]:
    """A greedy answer's tokens and logits."""

    async def ask() -> tuple[list[int], str]:
        async with asyncio.timeout(30), ring.client() as client:
            answer = await client.answer(PROBE)
            assert answer.finished is not None
            return answer.tokens, answer.finished.logits_digest or ""

    return asyncio.run(ask())


def attack_port(ring: Ring, dice: random.Random) -> None:
    """Junk or a damaged hello at the port of a random worker."""
    address = split_address(dice.choice([ring.front, *ring.hops]))
    with socket.create_connection(address, timeout=10) as connection:
        challenge = handshake.receive_exactly(connection, 38)
        hello = Hello(dice.choice([0, 1, 2, 77]), dice.choice([EPOCH, 0, 2**63]), dice.randrange(9))
        secret = dice.choice([SECRET, bytes(32)])
        data = bytearray(handshake.answer_challenge(challenge, secret, hello))
        damage(data, dice)
        if dice.random() < 0.3:
            data = bytearray(dice.randbytes(dice.randrange(200)))
        with contextlib.suppress(OSError):  # it may hang up on us at any byte
            connection.sendall(data[: dice.randrange(len(data) + 1)])
            if dice.random() < 0.8:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass  # until it is closed on us


def attack_front(ring: Ring, dice: random.Random) -> None:
    """A good handshake, then nonsense."""

    async def talk() -> None:
        async with asyncio.timeout(30), ring.client() as client:
            for _ in range(dice.randrange(4)):
                client.send_raw(front_junk(dice))

    asyncio.run(talk())


def front_junk(dice: random.Random) -> bytes:
    odd = Submit(
        dice.randrange(3),
        Sampling(dice.choice([None, -5, 0, 10**9]), dice.choice([0.0, -1.0, 1e300, 1e-300])),
        prompt=dice.choice([None, "", "x" * 300, (1, 2), (-1,), (10**12,), "\ud7ff"]),
    )
    message = dice.choice([odd, Cancel(dice.randrange(5))])
    data = bytearray(msgspec.msgpack.encode(message))
    if dice.random() < 0.7:
        damage(data, dice)
    n_bytes = len(data) if dice.random() < 0.8 else dice.choice([0, 3, 2**20, 2**32 - 1])
    return struct.pack("<I", n_bytes) + data


def attack_receiver(ring: Ring, dice: random.Random) -> None:
    """Damaged frames into a receiver: a frame or an error, at once."""
    del ring
    counts = [dice.randrange(1, 5) for _ in range(dice.randrange(1, 5))]
    n = len(counts)
    layout = np.array([range(n), [0] * n, counts, [1] * n], dtype=np.int32)
    hidden = np.zeros((sum(counts), LIMITS.width), dtype=np.float32)
    header = pack_header(FrameKind.STEP, LIMITS.epoch, 1, layout, hidden)
    data = bytearray(header + layout.tobytes() + hidden.tobytes())
    damage(data, dice, within=HEADER_BYTES + 16 * n)
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(10)
        left.sendall(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.3 else data)
        left.shutdown(socket.SHUT_WR)
        receiver = FrameReceiver(right, LIMITS)
        try:
            for _ in range(3):
                receiver.receive()
        except (ProtocolError, HopClosed):
            return
        raise AssertionError("a stream that has ended gave three frames")


def damage(data: bytearray, dice: random.Random, within: int | None = None) -> None:
    for _ in range(dice.randrange(4)):
        data[dice.randrange(min(len(data), within or len(data)))] = dice.randrange(256)


def usage(pid: int) -> tuple[int, int, int]:
    """Open files, threads and resident bytes of a process; zeros where /proc is not there."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return 0, 0, 0
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    resident = int(status["VmRSS"].split()[0]) * 1024
    return len(list((folder / "fd").iterdir())), int(status["Threads"]), resident


def settled(pid: int, files: int, threads: int) -> tuple[int, int, int]:
    """Usage once the last connections' threads have ended (they have 5 s to say hello)."""
    deadline = time.monotonic() + 15
    while True:
        now = usage(pid)
        if (now[0] <= files and now[1] <= threads) or time.monotonic() > deadline:
            return now
        time.sleep(0.05)


if __name__ == "__main__":
    main()
