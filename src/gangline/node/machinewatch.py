"""Keeps a node's own facts true: free memory often, cables and power now and then, speed rarely.

Measuring takes the whole machine for some seconds, so it waits until no model answers or loads, and
is broken off when one begins to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gangline.facts import Gpu, Hardware
from gangline.hardware.facts import read_disk_free, read_memory
from gangline.hardware.graphics import read_gpus
from gangline.hardware.measure import (
    TIMEOUT_S,
    Measurement,
    is_old,
    measure_command,
    measurement_key,
    timeout_s,
    today,
    write_cache,
)
from gangline.hardware.network import read_interfaces
from gangline.hardware.power import read_power
from gangline.node.folding import View

log = logging.getLogger(__name__)

MEMORY_EVERY_S = 5.0
GRAPHICS_EVERY_S = 15.0  # their free memory, which a tool of the driver tells
SURROUNDINGS_EVERY_S = 300.0  # interfaces, power, disk
AGE_EVERY_S = 900.0  # how often it is asked whether the measurement should be done again
_MEMORY_STEP_BYTES = 64 << 20  # published in steps, lest its noise be traffic
_DISK_STEP_BYTES = 1 << 30


class MachineWatch:
    """This machine's facts as they are now; `changed` is called when they differ.

    `fixed` facts are those of a test or of several nodes on one machine: only their memory moves.
    """

    def __init__(
        self,
        home: Path,
        hardware: Hardware,
        changed: Callable[[], None],
        *,
        threads: int | None = None,
        backend: str = "auto",
        fixed: bool,
    ) -> None:
        self.hardware = hardware
        self._home = home
        self._threads = threads  # of workers, and so of measurements
        self._backend = backend  # likewise
        self._changed = changed
        self._idle = asyncio.Event()
        self._busy = asyncio.Event()
        self._idle.set()
        work = [self._watch_memory()]
        if any(not gpu.shared for gpu in hardware.gpus):
            work.append(self._watch_graphics())
        if not fixed:
            work += [self._watch_surroundings(), self._watch_age()]
        self._tasks = [asyncio.create_task(one, name="machine") for one in work]

    def follow(self, view: View) -> None:
        """Note whether a model answers or loads anywhere."""
        quiet, noisy = (self._busy, self._idle) if view.working else (self._idle, self._busy)
        noisy.clear()
        quiet.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _replace(self, **changes: object) -> None:
        hardware = msgspec.structs.replace(self.hardware, **changes)
        if hardware != self.hardware:
            self.hardware = hardware
            self._changed()

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_EVERY_S)
            memory = await asyncio.to_thread(read_memory)
            if abs(memory.free_bytes - self.hardware.free_bytes) >= _MEMORY_STEP_BYTES:
                self._replace(free_bytes=memory.free_bytes)

    async def _watch_graphics(self) -> None:
        while True:
            await asyncio.sleep(GRAPHICS_EVERY_S)
            gpus = await asyncio.to_thread(read_gpus, self.hardware.memory_bytes)
            if gpus and _free_differs(gpus, self.hardware.gpus):
                self._replace(gpus=gpus)

    async def _watch_surroundings(self) -> None:
        while True:
            await asyncio.sleep(SURROUNDINGS_EVERY_S)
            interfaces = await asyncio.to_thread(read_interfaces)
            power = await asyncio.to_thread(read_power)
            free = await asyncio.to_thread(read_disk_free, self._home)
            known = self.hardware.disk_free_bytes
            if free is not None and known is not None and abs(free - known) < _DISK_STEP_BYTES:
                free = known
            self._replace(interfaces=interfaces, power=power, disk_free_bytes=free)

    async def _watch_age(self) -> None:
        while True:
            await asyncio.sleep(AGE_EVERY_S)
            known = _measurement_of(self.hardware)
            if known.measured_busy or is_old(known, today()):
                await self._idle.wait()
                command = measure_command(self._home, self._threads, self._backend)
                new = await measure_while(command, self._busy, timeout_s(self.hardware))
                if new is None or new.measured_at is None:
                    continue
                if new.measured_busy and not known.measured_busy:
                    continue  # old and right is better than new and disturbed
                key = measurement_key(self.hardware, self._threads, self._backend)
                await asyncio.to_thread(write_cache, self._home / "machine.json", key, new)
                self._replace(**msgspec.structs.asdict(new))


def _free_differs(new: Sequence[Gpu], known: Sequence[Gpu]) -> bool:
    """Whether the same cards have clearly more or less free memory, or there are others."""
    if [gpu.name for gpu in new] != [gpu.name for gpu in known]:
        return True
    return any(
        abs((a.free_bytes or 0) - (b.free_bytes or 0)) >= _MEMORY_STEP_BYTES
        for a, b in zip(new, known, strict=True)
    )


def _measurement_of(hardware: Hardware) -> Measurement:
    return Measurement(**{name: getattr(hardware, name) for name in Measurement.__struct_fields__})


async def measure_while(
    command: Sequence[str], busy: asyncio.Event, limit_s: float = TIMEOUT_S
) -> Measurement | None:
    """Measure in a process; None where it failed, or where `busy` was set before it ended."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        log.info("this machine was not measured: %s", error)
        return None
    answer = asyncio.create_task(process.communicate())
    interruption = asyncio.create_task(busy.wait())
    try:
        await asyncio.wait(
            {answer, interruption}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not answer.done():
            why = "a model works" if busy.is_set() else "it took too long"
            log.info("measuring this machine was broken off: %s", why)
            return None
        output, _ = answer.result()
        return msgspec.json.decode(output, type=Measurement)
    except msgspec.DecodeError as error:  # it failed, and its words went to nobody
        log.info("this machine was not measured: %s", error)
        return None
    finally:
        interruption.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends at this moment
                process.kill()
        await asyncio.gather(answer, interruption, return_exceptions=True)
