"""Compile the Triton kernels for GPUs that are not here: `python -m tests.engine.compile_kernels`.

What `Fused` would launch is noted on tensors without values, then compiled to machine code for each
of `TARGETS`; prints what takes more memory of a multiprocessor than it has. Triton needs no GPU for
that, but must not be in the mode of its interpreter: the tests run this as a process of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_for

from gangline.engine.backends.torch import fused, kernels
from gangline.engine.backends.torch.attention import Cache, Group
from gangline.engine.backends.torch.fused import Fused
from gangline.engine.backends.torch.packed import PLANES, Packed
from gangline.engine.operations import Attention

# A100, H100, RTX 50; MI300, RX 7900: bytes that one program may have of shared memory.
TARGETS = {
    GPUTarget("cuda", 80, 32): 163 << 10,
    GPUTarget("cuda", 90, 32): 227 << 10,
    GPUTarget("cuda", 120, 32): 99 << 10,
    GPUTarget("hip", "gfx942", 64): 64 << 10,
    GPUTarget("hip", "gfx1100", 32): 64 << 10,
}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
META = torch.device("meta")

Launch = tuple[str, tuple[Any, ...], dict[str, int]]


def launches() -> list[Launch]:
    """The kernels with their arguments in a decode step and a prompt of some models."""
    noted: list[Launch] = []

    def note(name: str, grid: tuple[int, ...], *arguments: Any, **constants: int) -> None:
        noted.append((name, arguments, constants))

    fused.launch = note
    device = Fused(META, torch.bfloat16)
    for bits in (3, 4, 6, 8):
        matrix = packed(bits, 4096)
        for n_rows in (1, 16):
            device.product(torch.empty(n_rows, 2048, device=META), matrix)
    device.product(torch.empty(512, 2048, device=META), packed(4, 4096))
    experts = packed(6, 8, 512)
    chosen = torch.empty(40, dtype=torch.int64, device=META)
    tiles = device.tiles(chosen, 8)
    device.chosen_product(torch.empty(20, 2048, device=META), experts, chosen, tiles)
    device.chosen_product(torch.empty(1, 2048, device=META), experts, chosen[:2], None)
    for rules in (
        Attention(32, 8, 128, 128, 1.0),
        Attention(16, 8, 256, 256, 1.0, window=1024, soft_cap=50.0),
    ):
        cache = Cache(4, 4096, rules, "f16", META)
        slots = torch.empty(4, dtype=torch.int64, device=META)
        group = Group(0, 4, slots, slots[:, None], 4096)
        queries = torch.empty(4, rules.n_heads * rules.head_dim, device=META)
        device.attend(queries, cache, group, rules, torch.empty(rules.n_heads, device=META))
    return noted


def packed(bits: int, *outer: int) -> Packed:
    """Matrices of 2048 columns in groups of 64."""
    n_words = [2048 * width // 32 for width in PLANES[bits] if width]
    planes = [torch.empty(*outer, n, dtype=torch.int32, device=META) for n in n_words]
    affine = torch.empty(2, *outer, 2048 // 64, dtype=torch.bfloat16, device=META)
    return Packed([*planes, *affine], bits, None)


def compiled(launch: Launch, target: GPUTarget) -> Any:
    """The kernel in machine code; numbers and addresses that 16 divides are said to be so."""
    name, arguments, constants = launch
    kernel = getattr(kernels, name)
    options = {key: constants[key] for key in ("num_warps", "num_stages") if key in constants}
    constants = {key: value for key, value in constants.items() if key not in options}
    signature: dict[str, str] = dict.fromkeys(constants, "constexpr")
    divisible = {}
    for place, (argument, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        pointer = isinstance(value, torch.Tensor)
        number = "fp32" if isinstance(value, float) else "i32"
        signature[argument] = POINTERS[value.dtype] if pointer else number
        if pointer or (isinstance(value, int) and value % 16 == 0):
            divisible[(place,)] = [["tt.divisibility", 16]]
    ordered = {argument: signature[argument] for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, ordered, places, divisible)
    return compile_for(source, target=target, options=options)


def main() -> int:
    failed = 0
    for launch in launches():
        for target, shared_bytes in TARGETS.items():
            needed = compiled(launch, target).metadata.shared
            if needed > shared_bytes:
                failed += 1
                print(f"{launch[0]} {launch[2]} needs {needed} bytes on {target}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
