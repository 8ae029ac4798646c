"""What only the `torch` back end has: recorded steps, its 4-bit kernel, memory untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.bench import machine
from gangline.engine.operations import Attention, Batch, DeltaNet, Routing
from tests.engine.accelerated.operands import affine, floats
from tests.engine.steps import ints

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

# Imported only now (E402): without PyTorch, the line above skips this file before.
from torch._subclasses.fake_tensor import (  # noqa: E402
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from gangline.engine.backends.torch import Torch, backend  # noqa: E402
from gangline.engine.backends.torch.attention import round_length  # noqa: E402
from gangline.engine.backends.torch.fused import Fused, has_tensor_cores, tiles_of  # noqa: E402
from gangline.engine.backends.torch.int4 import Kernel  # noqa: E402
from gangline.engine.backends.torch.packed import unpack  # noqa: E402
from gangline.engine.backends.torch.recorder import Recorder  # noqa: E402

HIDDEN, CONTEXT, LANES = 32, 600, 8
RULES = Attention(4, 2, 8, 8, 0.35, window=20)
DELTA = DeltaNet(2, 4, 4, 4, 4)
N_EXPERTS = 6
ROUTING = Routing(N_EXPERTS, 2, renormalize=True)


def layers_of(ops: Torch, seed: int = 3, *, quantized: bool = False) -> Callable[[Any, Any], Any]:
    """A layer with attention, a delta rule and a mixture, with caches of its own."""
    rng = np.random.default_rng(seed)

    def weight(n: int, k: int) -> Any:
        return floats((rng.standard_normal((n, k)) / k**0.5).astype(np.float32))

    def packed(n: int, k: int, bits: int) -> Any:
        return affine(n, k, bits, 16)[0] if quantized else weight(n, k)

    def vector(n: int) -> Any:
        return ops.vector(floats(rng.standard_normal(n).astype(np.float32)))

    cos_sin = rng.standard_normal((CONTEXT, 2, 4)).astype(np.float32)
    norm, sinks, table = vector(HIDDEN), vector(4), ops.rope_table(cos_sin)
    qkv, out = ops.weight(packed(RULES.width, HIDDEN, 6)), ops.weight(packed(HIDDEN, 32, 4))
    mix, beta = ops.weight(weight(DELTA.width, HIDDEN)), ops.weight(weight(4, HIDDEN))
    back = ops.weight(weight(HIDDEN, 16))
    taps, log, bias = vector(DELTA.width * 4), vector(4), vector(4)
    router = ops.weight(weight(N_EXPERTS, HIDDEN))
    gate_up = ops.experts([[packed(32, HIDDEN, 3)] for _ in range(N_EXPERTS)])
    down = ops.experts([[packed(HIDDEN, 16, 8)] for _ in range(N_EXPERTS)])
    cache, state = ops.cache(LANES, CONTEXT, RULES, "f32"), ops.delta_state(LANES, DELTA)

    def layers(x: Any, step: Any) -> Any:
        normed = ops.rms_norm(x, norm, 1e-5)
        rows = ops.rope(ops.linear(normed, qkv), table, step, RULES)
        x = ops.linear_add(ops.attend(rows, cache, step, RULES, sinks), out, x)
        normed = ops.rms_norm(x, norm, 1e-5)
        strength = ops.linear(normed, beta)
        mixed = ops.linear(normed, mix)
        y = ops.delta_net(mixed, strength, strength, state, step, DELTA, taps, log, bias)
        x = ops.linear_add(y, back, x)
        normed = ops.rms_norm(x, norm, 1e-5)
        return ops.mixture(normed, *ops.route(normed, router, ROUTING), gate_up, down, "silu", x)

    return layers


def steps(n_lanes: int) -> list[tuple[Batch, np.ndarray]]:
    """A prompt for each lane, then steps of all of them, and of some."""
    rng = np.random.default_rng(5)
    slots = np.arange(n_lanes, dtype=np.int32)[::-1] + 1
    prompts = 3 + slots
    batches = [Batch.of(slots, 0 * slots, prompts)]
    batches += [Batch.of(slots, prompts + i, np.ones_like(slots)) for i in range(4)]
    batches += [Batch.of(slots[:1], prompts[:1] + 4, ints(1))]
    return [
        (batch, rng.standard_normal((len(batch.positions), HIDDEN)).astype(np.float32))
        for batch in batches
    ]


@pytest.mark.parametrize("n_lanes", [1, 3, 4])
def test_steps_through_buffers_are_those_without(n_lanes: int) -> None:
    """Rows that are there twice change nothing, not even the states of their lanes."""
    ops = Torch(1)
    run, plain = ops.runner(layers_of(ops)), layers_of(ops)
    for batch, x in steps(n_lanes):
        found = run(x, ops.batch(batch, LANES, CONTEXT))
        expected = ops.to_numpy(plain(ops.from_numpy(x), ops.batch(batch, LANES, CONTEXT)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_decode_step_asks_the_host_nothing() -> None:
    """What a CUDA graph records must not depend on values: tensors here have none at all."""
    ops = Torch(1)
    batch = Batch.of(ints(2, 5), ints(7, 30), ints(1, 1))
    layers, step = layers_of(ops), ops.batch(batch, LANES, CONTEXT)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = layers(mode.from_tensor(torch.zeros(2, HIDDEN)), step)
    assert y.shape == (2, HIDDEN)
    rows = Batch.of(ints(1), ints(0), ints(60))  # a prompt does ask: how many rows an expert has
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        pytest.raises((DynamicOutputShapeException, RuntimeError)),
    ):
        layers(mode.from_tensor(torch.zeros(60, HIDDEN)), ops.batch(rows, LANES, CONTEXT))


class Only(TorchDispatchMode):
    """Refuses operations that take or make tensors on another device than one."""

    def __init__(self, device: Any) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, made)):
            if isinstance(one, torch.Tensor):
                assert one.device == self.device, f"{func} on {one.device}"
        return made


@pytest.mark.parametrize("n_rows", [1, 2, 32])
@pytest.mark.parametrize("with_kernels", [True, False])
def test_a_decode_step_on_a_gpu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, n_rows: int, with_kernels: bool
) -> None:
    """Tensors of the device `meta` have no values: whatever asks for one fails, as does what takes
    or makes anything elsewhere. Kernels are not run: it is seen what they are given.
    """
    gpu = torch.device("meta")
    launched: list[str] = []

    def launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
        assert all(one.device == gpu for one in tensors), name
        assert all(one.is_contiguous() for one in tensors if one.dim() < 4), name
        assert min(grid) > 0 and max(grid[1:], default=1) < 1 << 16, "CUDA's limits of a grid"
        launched.append(name)

    fused = Fused(gpu, torch.bfloat16) if with_kernels else None
    monkeypatch.setattr(backend, "find_device", lambda: gpu)
    monkeypatch.setattr(Fused, "of", staticmethod(lambda device: fused))
    monkeypatch.setattr(Kernel, "of", staticmethod(lambda device: None))
    monkeypatch.setattr("gangline.engine.backends.torch.fused.launch", launch)
    slots = np.arange(n_rows, dtype=np.int32)
    batch = Batch.of(slots, slots + 3, np.ones_like(slots))
    ops = Torch(1)
    layers = layers_of(ops, quantized=True)
    x = ops.from_numpy(np.zeros((n_rows, HIDDEN), np.float32))
    step = ops.batch(batch, n_rows, CONTEXT)
    with Only(gpu):
        assert layers(x, step).shape == (n_rows, HIDDEN)
    of_rows = ["multiply_alone" if n_rows == 1 else "multiply_tiles", "attend_part", "attend_join"]
    pairs = "multiply_alone" if 2 * n_rows <= N_EXPERTS // 2 else "multiply_tiles"
    assert launched == ([*of_rows, of_rows[0], pairs, pairs] if with_kernels else [])


class Graphs:
    """Stands where CUDA graphs would, which need a GPU: runs what it was asked to record."""

    def __init__(self, recordable: bool = True) -> None:
        self.recordable = recordable
        self.done: list[str] = []

    def first(self, run: Callable[[], Any]) -> Any:
        self.done.append("first")
        return run()

    def record(self, run: Callable[[], Any]) -> Any:
        if not self.recordable:
            raise RuntimeError("this operation cannot be recorded")
        self.done.append("record")

        class Recording:
            def replay(recording) -> Any:
                self.done.append("replay")
                return run()

        return Recording()


@pytest.mark.parametrize("recordable", [True, False])
def test_the_second_step_of_a_size_is_recorded(recordable: bool) -> None:
    """Each size once, after it ran once; nothing runs while it is recorded."""
    ops, graphs = Torch(1), Graphs(recordable)
    run = Recorder(layers_of(ops), ops.device, graphs)
    expected = ops.runner(layers_of(ops))
    for batch, x in steps(3):
        step = ops.batch(batch, LANES, CONTEXT)
        np.testing.assert_allclose(run(x, step), expected(x, step), rtol=1e-5, atol=1e-6)
    replayed = ["record", "replay", "replay", "replay"]
    assert graphs.done == ["first", *(replayed if recordable else ()), *["first"] * recordable]


@given(st.data())
def test_tiles_hold_each_pair_once(data: st.DataObject) -> None:
    """And in each tile are only pairs of its matrix, in their order."""
    n_matrices = data.draw(st.integers(1, 9))
    chosen = data.draw(st.lists(st.integers(0, n_matrices - 1), min_size=1, max_size=90))
    n_rows = data.draw(st.sampled_from([1, 3, 16]))
    tiles = tiles_of(torch.tensor(chosen), n_matrices, n_rows)
    found = []
    table = zip(tiles.matrices.tolist(), tiles.firsts.tolist(), tiles.ends.tolist(), strict=True)
    for matrix, first, end in table:
        pairs = tiles.order[first : min(first + n_rows, end)].tolist() if first < end else []
        assert all(chosen[pair] == matrix for pair in pairs) and pairs == sorted(pairs)
        found += pairs
    assert sorted(found) == list(range(len(chosen)))


def test_a_machine_is_measured_with_this_back_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device is a GPU by name, or the processor: "", as here."""
    monkeypatch.setattr(machine, "ROUNDS", 1)
    monkeypatch.setattr(machine, "DISK_BYTES", 1 << 20)
    monkeypatch.setattr(backend, "find_device", lambda: torch.device("cpu"))
    found = machine.measure(tmp_path, 1, "torch")
    assert (found.backend, found.device) == ("torch", "")
    assert found.operations_per_s and found.layer_s


@pytest.mark.parametrize(
    ("kind", "hip", "capability", "expected"),
    [
        ("cpu", None, (9, 0), False),
        ("xpu", None, (9, 0), False),
        ("cuda", None, (7, 5), False),
        ("cuda", None, (8, 6), True),
        ("cuda", "7.2", (11, 0), True),
    ],
)
def test_which_devices_get_kernels(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    hip: str | None,
    capability: tuple[int, int],
    expected: bool,
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_tensor_cores(torch.device(kind, 0)) == expected


def test_lengths_are_few() -> None:
    assert [round_length(n, 5000) for n in (1, 256, 257, 4096, 4097)] == [256, 256, 512, 4096, 5000]


@pytest.mark.parametrize("bits", range(1, 9))
def test_unpacking(bits: int) -> None:
    numbers = np.random.default_rng(bits).integers(0, 2**bits, (3, 64))
    stream = (numbers[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(3, -1)
    packed = torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little"))
    assert (unpack(packed, bits).numpy() == numbers).all()


def test_the_built_in_kernel_is_compared_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert Kernel.of(device) is not None, "this build of PyTorch has it"
    tensor, _ = affine(64, 256, 4, 64)
    assert type(Torch(1).weight(tensor).parts[0]).__name__ == "Int4Matrix"
    for deviation in (lambda self: 0.5, lambda self: torch.ops.aten.there_is_no_such_operator):
        Kernel.of.cache_clear()
        monkeypatch.setattr(Kernel, "deviation", deviation)
        assert Kernel.of(device) is None
        assert type(Torch(1).weight(tensor).parts[0]).__name__ == "Packed"
    Kernel.of.cache_clear()
