"""Group-affine weights mean what MLX means by them (values recorded from MLX itself)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.backends import open_backend
from gangline.engine.backends.reference import BITS, dense, unpack
from gangline.errors import CheckpointError
from tests.make_checkpoint import pack

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mlx_quantized.npz"


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", BITS)
def test_values_are_those_of_mlx(bits: int, group_size: int) -> None:
    with np.load(FIXTURE) as recorded:
        part = {
            name: recorded[f"{bits}.{group_size}.{name}"]
            for name in ("packed", "scales", "biases", "values")
        }
    scales, offsets = (
        Tensor(name, "f32", part[name].shape, part[name]) for name in ("scales", "biases")
    )
    form = GroupAffine(bits, group_size)
    tensor = Tensor("w", "u32", (6, 256), part["packed"], form, scales, offsets)
    np.testing.assert_allclose(dense(tensor), part["values"], rtol=1e-6, atol=1e-6)
    cpu = pytest.importorskip("gangline.engine.backends.cpu").Cpu(1)
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
