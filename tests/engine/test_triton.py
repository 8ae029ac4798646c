"""The Triton kernels: values, in Triton's interpreter on a CPU, and that GPUs' compilers take them.

The interpreter is chosen when Triton is imported, so values need an environment of their own, in
which other tests run too: `make test-torch` has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.tensors import Tensor
from gangline.engine.operations import Attention, Batch
from tests.engine import formulas
from tests.engine.accelerated.operands import affine, agree, floats, normal
from tests.engine.steps import ints

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")
pytest.importorskip("triton", reason="Triton is not installed (Linux on x86-64 has it)")

from gangline.engine.backends.torch import Torch, fused  # noqa: E402
from gangline.engine.backends.torch.fused import Fused, tiles_of  # noqa: E402

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1",
    reason="kernels run on a CPU with TRITON_INTERPRET=1 only, as `make test-torch` sets it",
)
CPU = torch.device("cpu")
GROUPS = [16, 32, 64, 128]


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Torch:
    """With the kernels, without their comparison at the start."""
    kernels = Fused(CPU, torch.float32)
    monkeypatch.setattr(Fused, "of", staticmethod(lambda device: kernels))
    return Torch(1)


@interpreted
def test_the_comparison_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    Fused.of.cache_clear()
    assert Fused.of(CPU) is not None
    for deviation in (lambda self: float("nan"), lambda self: 1 / 0):
        Fused.of.cache_clear()
        monkeypatch.setattr(Fused, "deviation", deviation)
        assert Fused.of(CPU) is None
    Fused.of.cache_clear()


@interpreted
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_products(ops: Torch, bits: int, group: int) -> None:
    """One row, a tile, several; outputs and columns that fill no block; 384 are 3 groups of 128."""
    kind = {16: "f32", 32: "f16", 64: "bf16", 128: "f32"}[group]
    for n_outputs, n_columns in ((7, 128), (70, 384)):
        tensor, w = affine(n_outputs, n_columns, bits, group, kind)
        weight = ops.weight(tensor)
        for n_rows in (1, 3, 35):
            x = normal(n_rows, n_columns)
            agree(ops.to_numpy(ops.linear(ops.from_numpy(x), weight)), x @ w.T)


@interpreted
def test_products_of_more_words_than_a_block(ops: Torch) -> None:
    tensor, w = affine(5, 2048, 8, 64)
    for n_rows in (1, 2):
        x = normal(n_rows, 2048)
        agree(ops.to_numpy(ops.linear(ops.from_numpy(x), ops.weight(tensor))), x @ w.T)


@interpreted
@pytest.mark.parametrize(("bits", "group"), [(3, 16), (4, 32), (5, 64), (6, 16), (8, 128)])
@pytest.mark.parametrize("chosen", [[2], [0, 0], [3, 1, 4, 1, 5, 3], [2] * 18, [0, 5] * 20])
def test_products_with_chosen_matrices(
    ops: Torch, bits: int, group: int, chosen: list[int]
) -> None:
    """Each pair by itself and in tiles; two pairs of each row, or one."""
    tensors, values = zip(*(affine(9, 128, bits, group) for _ in range(6)), strict=True)
    matrices = ops.experts([[tensor] for tensor in tensors])
    assert matrices.fused is not None
    pairs = torch.tensor(chosen)
    for per_row in (1, 2) if len(chosen) % 2 == 0 else (1,):
        x = normal(len(chosen) // per_row, 128)
        expected = np.stack([values[m] @ x[p // per_row] for p, m in enumerate(chosen)])
        for tiles in (None, tiles_of(pairs, 6, 16)):
            y = matrices.fused.chosen_product(ops.from_numpy(x), matrices, pairs, tiles)
            agree(ops.to_numpy(y), expected)


RULES = {
    "grouped": Attention(6, 2, 16, 16, 0.25),
    "one key head": Attention(20, 1, 24, 16, 0.2),
    "window": Attention(4, 2, 80, 40, 0.12, window=40),
    "window of one": Attention(2, 2, 8, 8, 0.25, window=1),
    "soft cap": Attention(4, 2, 160, 160, 0.2, soft_cap=1.5),
    "latent": Attention(4, 1, 24, 18, 0.2, shared_values=True),
}


@interpreted
@pytest.mark.parametrize("sinks", [False, True], ids=["no sinks", "sinks"])
@pytest.mark.parametrize("name", RULES)
def test_attention(ops: Torch, name: str, sinks: bool) -> None:
    """Two lanes, one a hundred positions behind the other, a row at a time behind a prompt."""
    rules, lengths = RULES[name], {3: 130, 1: 30}
    lanes = {slot: normal(length, rules.width) for slot, length in lengths.items()}
    shares = normal(rules.n_heads) if sinks else None
    vector = None if shares is None else ops.vector(floats(shares))
    cache = ops.cache(4, 512, rules, "f32")

    def attend(*sequences: tuple[int, int, int]) -> np.ndarray:
        slots, starts, counts = (ints(*column) for column in zip(*sequences, strict=True))
        step = ops.batch(Batch.of(slots, starts, counts), 4, 512)
        rows = np.concatenate([lanes[slot][at : at + n] for slot, at, n in sequences])
        return ops.to_numpy(ops.attend(ops.from_numpy(rows), cache, step, rules, vector))

    attend((3, 0, 128), (1, 0, 28))
    found = [attend((3, 128, 1), (1, 28, 1)), attend((1, 29, 1), (3, 129, 1))]
    expected = {
        slot: formulas.attend(lane.astype(np.float64), rules, shares)
        for slot, lane in lanes.items()
    }
    agree(found[0], np.stack([expected[3][128], expected[1][28]]))
    agree(found[1], np.stack([expected[1][29], expected[3][129]]))


@interpreted
def test_heads_that_are_too_wide_are_gathered(ops: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent attention of DeepSeek has keys of 576 numbers."""
    rules = Attention(2, 1, 576, 512, 0.04, shared_values=True)
    lane = normal(3, rules.width)
    monkeypatch.setattr(fused, "launch", None)
    cache = ops.cache(1, 16, rules, "f32")
    step = ops.batch(Batch.of(ints(0), ints(0), ints(1)), 1, 16)
    found = ops.to_numpy(ops.attend(ops.from_numpy(lane[:1]), cache, step, rules))
    agree(found, formulas.attend(lane[:1].astype(np.float64), rules, None))


@interpreted
def test_mixtures_are_not_unpacked(ops: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    from gangline.engine.backends.torch.packed import Packed

    def refuse(self: Packed, *arguments: Any) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(Packed, "at", refuse)
    tensors: list[Tensor] = [affine(32, 64, 4, 32)[0] for _ in range(8)]
    downs = [affine(64, 16, 6, 16)[0] for _ in range(8)]
    gate_up, down = ops.experts([[t] for t in tensors]), ops.experts([[t] for t in downs])
    for n_rows in (1, 40):
        experts = torch.arange(2 * n_rows).reshape(n_rows, 2) % 8
        x, weights = torch.ones(n_rows, 64), torch.ones(n_rows, 2)
        y = ops.mixture(x, experts, weights, gate_up, down, "silu", None)
        assert y.shape == (n_rows, 64)


def test_compilers_of_gpus_take_the_kernels() -> None:
    """To machine code of NVIDIA and AMD, with the sizes of real models; no GPU is needed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.compile_kernels"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
