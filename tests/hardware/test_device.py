"""What a plan sees of machines with graphics, by the back end that computes there."""

from __future__ import annotations

import msgspec
import pytest

from gangline.facts import Gpu, Hardware
from gangline.hardware.device import computing_gpu, seen_by
from gangline.plan.live import GIB

HOST = Hardware("Ryzen 9", "x86_64", "linux", 16, 64 * GIB, 50 * GIB)
RTX = Gpu("NVIDIA GeForce RTX 4090", 24 * GIB, False, 20 * GIB)
RTX_3060 = Gpu("NVIDIA GeForce RTX 3060", 12 * GIB, False, 11 * GIB)
GRAPHICS = Gpu("AMD Radeon", 30 * GIB, True)
ON_GPU = {
    "backend": "torch",
    "device": RTX.name,
    "read_bytes_per_s": 8e11,
    "operations_per_s": 1e14,
    "layer_s": 2e-5,
    "disk_read_bytes_per_s": 3e9,
}


def machine(*gpus: Gpu, **changes: object) -> Hardware:
    return msgspec.structs.replace(HOST, gpus=gpus, **changes)


@pytest.mark.parametrize("backend", [None, "auto", "torch"])
def test_a_card_is_planned_with_its_own_memory(backend: str | None) -> None:
    seen = seen_by(machine(RTX_3060, RTX, **ON_GPU), backend)
    assert (seen.memory_bytes, seen.free_bytes) == (24 * GIB, 20 * GIB)
    assert (seen.read_bytes_per_s, seen.operations_per_s, seen.layer_s) == (8e11, 1e14, 2e-5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_load_on_the_processor_gets_its_memory_and_not_the_cards_speed(backend: str) -> None:
    seen = seen_by(machine(RTX, **ON_GPU), backend)
    assert (seen.memory_bytes, seen.free_bytes) == (64 * GIB, 50 * GIB)
    assert seen.read_bytes_per_s is seen.operations_per_s is seen.layer_s is None
    assert seen.disk_read_bytes_per_s == 3e9


def test_a_node_that_was_started_for_the_processor() -> None:
    """`gangline up --backend cpu` measures with it, and loads that name no back end follow."""
    measured = machine(RTX, backend="cpu", device="", read_bytes_per_s=5e10)
    assert seen_by(measured, None) == measured
    seen = seen_by(measured, "torch")
    assert (seen.memory_bytes, seen.read_bytes_per_s) == (24 * GIB, None)


def test_a_card_that_no_back_end_uses_is_not_counted() -> None:
    """PyTorch is not installed: `auto` was found to be the processor's."""
    assert seen_by(machine(RTX, backend="cpu"), None).memory_bytes == 64 * GIB
    assert seen_by(machine(RTX), None).memory_bytes == 64 * GIB, "not measured yet"


@pytest.mark.parametrize(
    ("gpu", "memory", "free"),
    [
        (GRAPHICS, 30, 30),  # Strix Halo: as much as graphics can reach
        (Gpu("NVIDIA GB10", 64 * GIB, True), 64, 50),  # DGX Spark: all of it
        (Gpu("Apple M3 Max", 48 * GIB, True), 48, 48),
    ],
)
def test_shared_memory_is_counted_once(gpu: Gpu, memory: int, free: int) -> None:
    seen = seen_by(machine(gpu, backend="torch", device=gpu.name), None)
    assert (seen.memory_bytes, seen.free_bytes) == (memory * GIB, free * GIB)


def test_a_name_that_is_spelt_otherwise_means_the_largest_card() -> None:
    both = machine(GRAPHICS, RTX_3060, RTX, backend="torch", device="RTX 4090 (CUDA)")
    assert computing_gpu(both, None) == RTX
    assert (
        computing_gpu(machine(GRAPHICS, backend="torch", device="Radeon 8060S"), None) == GRAPHICS
    )


def test_a_card_of_unknown_use_counts_as_free() -> None:
    unknown = Gpu("Radeon RX 7900 XTX", 24 * GIB)
    seen = seen_by(machine(unknown, backend="torch", device=unknown.name), None)
    assert seen.free_bytes == 24 * GIB
