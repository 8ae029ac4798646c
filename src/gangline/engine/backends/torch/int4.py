"""PyTorch's built-in products with 4-bit matrices, trusted only after a comparison.

All is bf16: in float32 the operator for CPUs is a hundred times slower. The operators belong to no
documented interface (`torch.ops.aten._weight_int4pack_mm`), differ between devices, and refuse some
shapes. `Kernel.of` therefore multiplies a small random matrix with them once per process and
compares; a kernel that fails or deviates is not used.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

log = logging.getLogger(__name__)

GROUP_SIZES = (32, 64, 128, 256)
MIDDLE = 8  # the kernels mean (q - 8) * scale + zero
TOLERANCE = 0.02  # of the largest result; bf16 has 8 bits


class Int4Matrix:
    """A matrix (N, K) as the kernel of its device wants it."""

    def __init__(self, kernel: Kernel, packed: torch.Tensor, affine: torch.Tensor) -> None:
        self._kernel, self._packed, self._affine = kernel, packed, affine

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x (T, K) -> (T, N) float32."""
        return self._kernel.multiply(x, self._packed, self._affine)


class Kernel:
    """The operators for one kind of device: CUDA (with ROCm's where it has them) or a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_cpu = device.type == "cpu"

    @staticmethod
    @cache
    def of(device: torch.device) -> Kernel | None:
        """The kernel for a device, or None where it has none that works."""
        if device.type not in ("cpu", "cuda"):
            return None
        kernel = Kernel(device)
        try:
            deviation = kernel.deviation()
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            log.info("no built-in 4-bit kernel on %s: %s", device, error)
            return None
        if deviation > TOLERANCE:
            log.warning(
                "the 4-bit kernel on %s deviates by %.3g, it is not used", device, deviation
            )
            return None
        return kernel

    def fits(self, shape: tuple[int, ...], scales_shape: torch.Size) -> bool:
        """Whether a matrix (N, K) with scales (N, K / group) can be packed."""
        n_rows, n_columns = shape
        group_size = n_columns // scales_shape[-1]
        row_multiple, column_multiple = (16, 32) if self._on_cpu else (8, 128)
        return (
            group_size in GROUP_SIZES
            and n_rows % row_multiple == 0
            and n_columns % column_multiple == 0
        )

    def matrix(
        self, numbers: torch.Tensor, scales: torch.Tensor, offsets: torch.Tensor
    ) -> Int4Matrix:
        """numbers uint8 (N, K) below 16, scales and offsets (N, K / group)."""
        if self._on_cpu:
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers.to(torch.int32), 1)
        else:
            pairs = numbers[:, ::2] << 4 | numbers[:, 1::2]
            packed = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8)
        zeros = offsets.float() + MIDDLE * scales.float()
        affine = torch.stack([scales.float(), zeros], -1).transpose(0, 1)  # (K / group, N, 2)
        return Int4Matrix(self, packed, affine.to(torch.bfloat16).contiguous())

    def multiply(self, x: torch.Tensor, packed: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
        group_size = x.shape[-1] // affine.shape[0]
        aten = torch.ops.aten
        operator = aten._weight_int4pack_mm_for_cpu if self._on_cpu else aten._weight_int4pack_mm
        y: torch.Tensor = operator(x.to(torch.bfloat16).contiguous(), packed, group_size, affine)
        return y.float()

    def deviation(self) -> float:
        """Of a small product from what it should be, as a part of the largest result."""
        generator = torch.Generator().manual_seed(0)
        n_rows, n_columns, group_size = 64, 256, 64
        numbers = torch.randint(0, 16, (n_rows, n_columns), generator=generator)
        scales, offsets = torch.rand(2, n_rows, n_columns // group_size, generator=generator) - 0.5
        groups = numbers.view(n_rows, -1, group_size) * scales[..., None] + offsets[..., None]
        x = torch.randn(3, n_columns, generator=generator)
        expected = x @ groups.view(n_rows, n_columns).T
        on_device = [part.to(self._device) for part in (numbers.to(torch.uint8), scales, offsets)]
        found = self.matrix(*on_device).product(x.to(self._device)).cpu()
        return float((found - expected).abs().max() / expected.abs().max())
