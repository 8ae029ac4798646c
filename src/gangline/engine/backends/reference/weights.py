"""What stored numbers mean: floats of any width, quantized matrices, rounded activations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.tensors import Tensor
from gangline.engine.operations import F32
from gangline.errors import CheckpointError

LARGEST = np.float32(120)  # of rounded activations; kernels/winograd.h says why not 127
BITS = (2, 3, 4, 5, 6, 8)  # of quantized weights


def quantize_rows(x: F32, group_size: int) -> tuple[NDArray[np.int8], F32]:
    """What back ends with integer kernels make of activations (T, K) before quantized weights.

    Codes (T, K) from -120 to 120 and factors (T, K / group_size): `x ≈ factor * code`, rounded to
    nearest even; groups that are tiny count as zero. `linear` here does without: the difference,
    at most half a factor per number, is what such a back end may deviate by.
    """
    groups = x.reshape(len(x), -1, group_size)
    largest = np.abs(groups).max(-1)
    tiny = largest < np.float32(1e-30)
    safe = np.where(tiny, np.float32(1), largest)
    inverse = np.where(tiny, np.float32(0), LARGEST / safe)
    codes = np.rint(groups * inverse[..., None]).astype(np.int8)
    factors = np.where(tiny, np.float32(0), largest / LARGEST).astype(np.float32)
    return codes.reshape(x.shape), factors


def dense(tensor: Tensor) -> F32:
    """Any tensor of floats as float32, quantized ones by their definition `scale q + offset`."""
    if tensor.quantized is not None:
        assert tensor.scales is not None and tensor.offsets is not None, tensor.name
        bits, group_size = tensor.quantized.bits, tensor.quantized.group_size
        if bits not in BITS:
            raise cannot_run_bits(tensor.name, bits)
        q = unpack(tensor.data.astype(np.uint32), bits).astype(np.float32)
        groups = q.reshape(len(q), -1, group_size)  # (N, K / group, group)
        scales, offsets = dense(tensor.scales), dense(tensor.offsets)
        # Exact in float64, rounded once: what a fused multiply-add gives.
        exact = scales[..., None].astype(np.float64) * groups + offsets[..., None]
        return exact.astype(np.float32).reshape(tensor.shape)
    if tensor.dtype == "bf16":
        return (tensor.data.astype(np.uint32) << 16).view(np.float32)
    if tensor.dtype not in ("f32", "f16"):
        raise CheckpointError(f"tensor `{tensor.name}` is {tensor.dtype}, expected floats")
    return tensor.data.astype(np.float32)


def unpack(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """uint32 (N, W) -> (N, 32 W / bits): a row is one stream of bits, lowest first."""
    if 32 % bits == 0:
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        numbers = (words[..., None] >> shifts) & np.uint32((1 << bits) - 1)
        return numbers.reshape(len(words), -1)
    stream = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    places = np.uint32(1) << np.arange(bits, dtype=np.uint32)
    spread: NDArray[np.uint32] = stream.reshape(len(words), -1, bits) @ places
    return spread


def cannot_run_bits(name: str, bits: int) -> CheckpointError:
    """What a back end says to a tensor of other bits than `BITS`."""
    return CheckpointError(
        f"tensor `{name}` has {bits} bits per weight, which cannot be run",
        hint=f"Use a conversion with one of {', '.join(map(str, BITS))} bits.",
    )
