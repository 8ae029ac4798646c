"""What a worker computes on: the processor with the machine's memory, or a graphics processor.

Pure: facts of a machine in, the same facts as a plan must see them out.
"""

from __future__ import annotations

import msgspec

from gangline.facts import Gpu, Hardware

PROCESSOR_BACKENDS = ("cpu", "reference")

# What was measured with one back end says nothing of another; the disk is the same for all.
_OF_EVERY_BACKEND = {"disk_read_bytes_per_s"}


def computing_gpu(hardware: Hardware, backend: str | None) -> Gpu | None:
    """The graphics processor on which workers with this back end compute; None: the processor.

    `backend` is what a load names; None: what the node was started with. Which one `auto` is was
    found when the machine was measured, and on which device.
    """
    if not hardware.gpus or backend in PROCESSOR_BACKENDS:
        return None
    as_measured = backend in (None, "auto", hardware.backend)
    if as_measured and not hardware.device:
        return None
    # Drivers and systems may spell a card's name differently; then it is the largest.
    named = (gpu for gpu in hardware.gpus if as_measured and gpu.name == hardware.device)
    return next(named, max(hardware.gpus, key=lambda gpu: (not gpu.shared, gpu.memory_bytes)))


def seen_by(hardware: Hardware, backend: str | None) -> Hardware:
    """The machine's facts for a plan whose workers have this back end.

    Memory is that of the graphics processor if they compute on one; memory that it shares with the
    machine is counted once, as far as graphics can reach it. What was measured with another back
    end counts as not measured.
    """
    gpu = computing_gpu(hardware, backend)
    if hardware.backend and backend not in (None, "auto", hardware.backend):
        hardware = _without_speeds(hardware)
    if gpu is None:
        return hardware
    if gpu.shared:
        total = min(hardware.memory_bytes, gpu.memory_bytes)
        free = min(hardware.free_bytes, total)
    else:
        total = gpu.memory_bytes
        free = total if gpu.free_bytes is None else gpu.free_bytes
    return msgspec.structs.replace(hardware, memory_bytes=total, free_bytes=free)


def _without_speeds(hardware: Hardware) -> Hardware:
    measured = {
        name: None
        for name in hardware.__struct_fields__
        if name.endswith("_s") and name not in _OF_EVERY_BACKEND
    }
    return msgspec.structs.replace(hardware, **measured)
