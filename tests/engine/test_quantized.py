"""Group-affine weights mean what MLX means by them (values recorded from MLX itself)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.backends import open_backend
from gangline.engine.backends.reference import BITS, dense, unpack
from gangline.errors import CheckpointError
from tests.make_checkpoint import pack

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mlx_quantized.npz"


each_form = pytest.mark.parametrize(
    ("bits", "group_size"), [(bits, group_size) for bits in BITS for group_size in (32, 64, 128)]
)


def recorded(bits: int, group_size: int) -> tuple[Tensor, NDArray[np.float32]]:
    """A quantized matrix (6, 256), and what MLX makes of it."""
    with np.load(FIXTURE) as of_all:
        packed, scales, biases, values = (
            of_all[f"{bits}.{group_size}.{name}"]
            for name in ("packed", "scales", "biases", "values")
        )
    scales, offsets = (Tensor("s", "f32", part.shape, part) for part in (scales, biases))
    form = GroupAffine(bits, group_size)
    return Tensor("w", "u32", (6, 256), packed, form, scales, offsets), values


@each_form
def test_values_are_those_of_mlx(bits: int, group_size: int) -> None:
    tensor, values = recorded(bits, group_size)
    np.testing.assert_allclose(dense(tensor), values, rtol=1e-6, atol=1e-6)


@each_form
def test_the_kernels_unpack_the_same_bits(bits: int, group_size: int) -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    tensor, _ = recorded(bits, group_size)
    cpu = open_backend("cpu", 1)
    rows = cpu.embed(cpu.table(tensor), np.arange(6, dtype=np.int32))
    assert (rows == dense(tensor)).all()


@pytest.mark.parametrize("bits", BITS)
def test_packing_is_undone(bits: int) -> None:
    q = np.random.default_rng(bits).integers(0, 2**bits, (5, 64)).astype(np.uint32)
    assert (unpack(pack(q, bits), bits) == q).all()
    assert pack(q, bits)[0, 0] & (2**bits - 1) == q[0, 0], "lowest bits come first"


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_bits_that_cannot_be_run_are_refused(backend: str) -> None:
    part = Tensor("s", "f16", (2, 1), np.zeros((2, 1), np.float16))
    packed = np.zeros((2, 14), np.uint32)
    tensor = Tensor("w", "u32", (2, 64), packed, GroupAffine(7, 64), part, part)
    with pytest.raises(CheckpointError, match="`w` has 7 bits"):
        open_backend(backend, 1).weight(tensor)
