"""Graphics processors, read from samples of systems' own words."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gangline.facts import Gpu
from gangline.hardware.graphics import (
    gpu_from_amdgpu,
    gpus_from_nvidia,
    gpus_from_profiler,
    read_amd_card,
)

GIB = 1 << 30
PROFILE = json.dumps(
    {
        "SPDisplaysDataType": [
            {
                "_name": "Apple M3 Ultra",
                "spdisplays_mtlgpufamilysupport": "spdisplays_metal4",
                "spdisplays_ndrvs": [{"_name": "Studio Display"}],
                "spdisplays_vendor": "sppci_vendor_Apple",
                "sppci_bus": "spdisplays_builtin",
                "sppci_cores": "80",
                "sppci_device_type": "spdisplays_gpu",
                "sppci_model": "Apple M3 Ultra",
            }
        ]
    }
)


def test_nvidia() -> None:
    text = "NVIDIA GeForce RTX 4090, 24564, 23800\nNVIDIA GeForce RTX 3060, 12288, [N/A]\n"
    assert gpus_from_nvidia(text, 64 * GIB) == (
        Gpu("NVIDIA GeForce RTX 4090", 24564 << 20, False, 23800 << 20),
        Gpu("NVIDIA GeForce RTX 3060", 12288 << 20),
    )
    assert gpus_from_nvidia("NVIDIA GB10, [N/A], [N/A]\n", 120 * GIB) == (
        Gpu("NVIDIA GB10", 120 * GIB, True),
    )
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    assert gpus_from_nvidia(failed, 64 * GIB) == ()


def test_amd() -> None:
    card = gpu_from_amdgpu("Radeon RX 7900 XTX\n", str(24 * GIB), str(32 * GIB))
    assert card == Gpu("Radeon RX 7900 XTX", 24 * GIB)
    used = gpu_from_amdgpu("Radeon RX 7900 XTX\n", str(24 * GIB), str(32 * GIB), str(2 * GIB))
    assert used == Gpu("Radeon RX 7900 XTX", 24 * GIB, False, 22 * GIB)
    halo = gpu_from_amdgpu("", str(GIB // 2), str(110 * GIB))
    assert halo == Gpu("AMD Radeon", 110 * GIB, True)
    carved = gpu_from_amdgpu("", str(96 * GIB), str(16 * GIB))
    assert carved == Gpu("AMD Radeon", 96 * GIB), "a large carve-out is its own memory"
    assert gpu_from_amdgpu("", "", "") is None


def test_amd_in_the_device_tree(tmp_path: Path) -> None:
    (tmp_path / "vendor").write_text("0x1002\n")
    (tmp_path / "mem_info_vram_total").write_text(f"{16 * GIB}\n")
    assert read_amd_card(tmp_path) == Gpu("AMD Radeon", 16 * GIB)
    (tmp_path / "vendor").write_text("0x8086\n")
    assert read_amd_card(tmp_path) is None


def test_apple() -> None:
    name = "Apple M3 Ultra (80-core GPU)"
    assert gpus_from_profiler(PROFILE, 512 * GIB, 0) == (Gpu(name, 384 * GIB, True),)
    assert gpus_from_profiler(PROFILE, 24 * GIB, 0) == (Gpu(name, 16 * GIB, True),)
    assert gpus_from_profiler(PROFILE, 512 * GIB, 480 << 10) == (Gpu(name, 480 * GIB, True),)
    intel = PROFILE.replace("Apple M3 Ultra", "AMD Radeon Pro 5500M")
    assert gpus_from_profiler(intel, 32 * GIB, 0) == ()


@given(st.text())
def test_nothing_they_say_raises(text: str) -> None:
    gpus_from_nvidia(text, GIB)
    gpu_from_amdgpu(text, text, text)
    gpus_from_profiler(text, GIB, 0)
