"""What only the `torch` back end has: recorded steps, its 4-bit kernel, memory untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gangline.engine.operations import Attention, Batch, DeltaNet, Routing
from tests.engine.steps import ints
from tests.engine.test_accelerated import affine, floats

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

# Imported only now (E402): without PyTorch, the line above skips this file before.
from torch._subclasses.fake_tensor import (  # noqa: E402
    DynamicOutputShapeException,
    FakeTensorMode,
)

from gangline.engine.backends.torch import Torch  # noqa: E402
from gangline.engine.backends.torch.attention import round_length  # noqa: E402
from gangline.engine.backends.torch.int4 import Kernel  # noqa: E402
from gangline.engine.backends.torch.recorder import Recorder  # noqa: E402
from gangline.engine.backends.torch.weights import unpack  # noqa: E402

HIDDEN, CONTEXT, LANES = 32, 600, 8
RULES = Attention(4, 2, 8, 8, 0.35, window=20)
DELTA = DeltaNet(2, 4, 4, 4, 4)
ROUTING = Routing(6, 2, renormalize=True)


def layers_of(ops: Torch, seed: int = 3) -> Callable[[Any, Any], Any]:
    """A layer with attention, a delta rule and a mixture, with caches of its own."""
    rng = np.random.default_rng(seed)

    def weight(n: int, k: int) -> Any:
        return floats((rng.standard_normal((n, k)) / k**0.5).astype(np.float32))

    def vector(n: int) -> Any:
        return ops.vector(floats(rng.standard_normal(n).astype(np.float32)))

    cos_sin = rng.standard_normal((CONTEXT, 2, 4)).astype(np.float32)
    norm, sinks, table = vector(HIDDEN), vector(4), ops.rope_table(cos_sin)
    qkv, out = ops.weight(weight(RULES.width, HIDDEN)), ops.weight(weight(HIDDEN, 32))
    mix, beta = ops.weight(weight(DELTA.width, HIDDEN)), ops.weight(weight(4, HIDDEN))
    back = ops.weight(weight(HIDDEN, 16))
    taps, log, bias = vector(DELTA.width * 4), vector(4), vector(4)
    router = ops.weight(weight(6, HIDDEN))
    gate_up = ops.experts([[weight(24, HIDDEN)] for _ in range(6)])
    down = ops.experts([[weight(HIDDEN, 12)] for _ in range(6)])
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


class Graph:
    """Counts; stands where a CUDA graph would, which needs a GPU."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run, self.n_replays = run, 0

    def replay(self) -> None:
        self.n_replays += 1
        self.run()


@pytest.mark.parametrize("recordable", [True, False])
def test_the_second_step_of_a_size_is_recorded(
    monkeypatch: pytest.MonkeyPatch, recordable: bool
) -> None:
    """With the layers called where a graph would be replayed; nothing runs while one is made."""
    from gangline.engine.backends.torch import recorder

    graphs: list[Graph] = []

    def record(buffers: Any, layers: Any, pool: Any) -> None:
        if not recordable:
            raise RuntimeError("this operation cannot be recorded")
        buffers.result = torch.empty_like(buffers.x)
        buffers.graph = Graph(lambda: buffers.result.copy_(layers(buffers.x, buffers.step())))
        graphs.append(buffers.graph)

    monkeypatch.setattr(recorder.Buffers, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    ops = Torch(1)
    run = Recorder(layers_of(ops), ops.device, graphs=True)
    expected = ops.runner(layers_of(ops))
    for batch, x in steps(3):
        step = ops.batch(batch, LANES, CONTEXT)
        np.testing.assert_allclose(run(x, step), expected(x, step), rtol=1e-5, atol=1e-6)
    assert [graph.n_replays for graph in graphs] == ([3] if recordable else [])


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
