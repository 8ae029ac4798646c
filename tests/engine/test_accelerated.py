"""The operations of `mlx` and `torch`, each against a formula in float64."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.operations import Attention, Batch, DeltaNet, Operations, Routing
from gangline.errors import ProtocolError
from tests.engine import formulas
from tests.engine.steps import Chain, ints
from tests.make_checkpoint import cast, make_checkpoint

RNG = np.random.default_rng(7)
F32_BOUND = 2e-5  # of the largest result: sums of a few hundred products
BF16_BOUND = 2e-2


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same numbers, whichever ran before."""
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


@pytest.fixture(params=["mlx", "torch"])
def ops(request: pytest.FixtureRequest) -> Iterator[Any]:
    pytest.importorskip(request.param, reason=f"the extra `{request.param}` is not installed")
    module = importlib.import_module(f"gangline.engine.backends.{request.param}")
    return getattr(module, request.param.capitalize())()


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def floats(values: np.ndarray, kind: str = "f32", name: str = "w") -> Tensor:
    return Tensor(name, kind, values.shape, cast(values, kind))


def values_of(tensor: Tensor) -> np.ndarray:
    """A dense tensor's values in float64."""
    data = tensor.data
    if tensor.dtype == "bf16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float64)


def affine(
    rows: int, columns: int, bits: int, group: int, kind: str = "f32"
) -> tuple[Tensor, np.ndarray]:
    """A random quantized matrix and its values; numbers are packed as one stream of bits."""
    q = RNG.integers(0, 2**bits, (rows, columns))
    scales, offsets = (
        floats(normal(rows, columns // group, scale=0.1), kind, name) for name in "so"
    )
    stream = (q[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(rows, -1)
    words = np.packbits(stream, axis=-1, bitorder="little").view(np.uint32)
    w = q.reshape(rows, -1, group) * values_of(scales)[..., None] + values_of(offsets)[..., None]
    form = GroupAffine(bits, group)
    tensor = Tensor("w", "u32", (rows, columns), words, form, scales, offsets)
    return tensor, w.reshape(rows, columns)


def agree(found: Any, expected: np.ndarray, bound: float = F32_BOUND) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (33, 96), (64, 130)])
def test_dense_products(ops: Operations, kind: str, rows: int, columns: int) -> None:
    parts = [floats(normal(n, columns), kind) for n in (rows, 5)]
    w = np.concatenate([values_of(part) for part in parts])
    weight, x, bias = ops.weight(*parts), normal(3, columns), normal(rows + 5)
    bound = {"f32": F32_BOUND, "f16": 2e-3, "bf16": 1.5e-2}[kind]  # one rounding of x and of y
    y = ops.linear(ops.from_numpy(x), weight, ops.vector(floats(bias)))
    agree(ops.to_numpy(y), x @ w.T + bias, bound)
    residual = normal(3, rows + 5)
    y = ops.linear_add(ops.from_numpy(x), weight, ops.from_numpy(residual))
    agree(ops.to_numpy(y), x @ w.T + residual, bound)


@pytest.mark.parametrize("group", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_quantized_products(ops: Operations, bits: int, group: int) -> None:
    """64 rows suit PyTorch's 4-bit kernel, 7 rows nobody's; MLX has no kernel for groups of 16."""
    rounded = 2e-3 if ops.name == "mlx" and group == 16 else F32_BOUND
    bound = BF16_BOUND if ops.name == "torch" else rounded
    for rows in (64, 7):
        tensor, w = affine(rows, 256, bits, group)
        x = normal(3, 256)
        y = ops.linear(ops.from_numpy(x), ops.weight(tensor))
        agree(ops.to_numpy(y), x @ w.T, bound)
        chosen = ints(3, 0, 6, 3)
        agree(ops.to_numpy(ops.embed(ops.table(tensor), chosen, 3.0)), 3.0 * w[chosen], rounded)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_scales_of_half_precision(ops: Operations, kind: str) -> None:
    """MLX computes with bf16 where the scales are; its kernel for CPUs even sums in bf16."""
    bound = {"torch": BF16_BOUND, "mlx": 0.1 if kind == "bf16" else F32_BOUND}[ops.name]
    tensor, w = affine(48, 128, 4, 64, kind)
    x = normal(2, 128)
    agree(ops.to_numpy(ops.linear(ops.from_numpy(x), ops.weight(tensor))), x @ w.T, bound)
    agree(ops.to_numpy(ops.embed(ops.table(tensor), ints(7, 1))), w[[7, 1]])


def test_parts_of_different_forms(ops: Operations) -> None:
    """Queries at 4 bits, keys at 6, values dense, as mixed conversions have them."""
    first, second = affine(32, 128, 4, 64), affine(16, 128, 4, 64)
    third, fourth = affine(16, 128, 6, 64), floats(normal(8, 128), "f16")
    weight = ops.weight(first[0], second[0], third[0], fourth)
    w = np.concatenate([first[1], second[1], third[1], values_of(fourth)])
    x = normal(3, 128)
    bound = BF16_BOUND if ops.name == "torch" else 2e-3
    agree(ops.to_numpy(ops.linear(ops.from_numpy(x), weight)), x @ w.T, bound)


def test_products_by_head(ops: Operations) -> None:
    w, x = normal(3 * 10, 8), normal(4, 3 * 8)
    expected = np.einsum("thk,hnk->thn", x.reshape(4, 3, 8), w.reshape(3, 10, 8)).reshape(4, 30)
    y = ops.linear_heads(ops.from_numpy(x), ops.head_weight(floats(w), 3))
    agree(ops.to_numpy(y), expected)


def test_norms(ops: Operations) -> None:
    x, w = normal(5, 40, scale=3), normal(40)
    weight = ops.vector(floats(w))
    found = ops.to_numpy(ops.rms_norm(ops.from_numpy(x), weight, 1e-5))
    agree(found, formulas.rms_norm(x.astype(np.float64), w, 1e-5))
    centred = x - x.mean(-1, keepdims=True, dtype=np.float64)
    found = ops.to_numpy(ops.layer_norm(ops.from_numpy(x), weight, 1e-5))
    agree(found, formulas.rms_norm(centred, w, 1e-5))


def test_norms_of_heads(ops: Operations) -> None:
    rules = Attention(4, 2, 10, 7, 1.0)
    qkv = normal(3, rules.width)
    ends = [40, 60]
    for q_size, k_size in ((10, 10), (40, 20)):
        q, k = normal(q_size), normal(k_size)
        queries, keys, values = np.split(qkv.astype(np.float64), ends, axis=1)
        normed = [
            formulas.rms_norm(part.reshape(3, -1, len(w)), w, 1e-6).reshape(3, -1)
            for part, w in ((queries, q), (keys, k))
        ]
        vectors = ops.vector(floats(q)), ops.vector(floats(k))
        found = ops.head_norm(ops.from_numpy(qkv), *vectors, rules, 1e-6)
        agree(ops.to_numpy(found), np.concatenate([*normed, values], axis=1))
    x, gate, w = normal(3, 40), normal(3, 40), normal(10)
    found = ops.gated_norm(ops.from_numpy(x), ops.from_numpy(gate), ops.vector(floats(w)), 1e-6)
    normed = formulas.rms_norm(x.reshape(3, 4, 10).astype(np.float64), w, 1e-6).reshape(3, 40)
    agree(ops.to_numpy(found), normed * gate * formulas.sigmoid(gate))


def test_elementwise(ops: Operations) -> None:
    x, y = normal(3, 24), normal(3, 24)
    a, b = ops.from_numpy(x), ops.from_numpy(y)
    agree(ops.to_numpy(ops.add(a, b, 0.25)), x + 0.25 * y)
    a = ops.from_numpy(x)
    agree(ops.to_numpy(ops.sigmoid_gate(a, b)), x * formulas.sigmoid(y))
    a = ops.from_numpy(x)
    gate = ops.from_numpy(np.ascontiguousarray(y[:, :1]))
    agree(ops.to_numpy(ops.sigmoid_gate(a, gate)), x * formulas.sigmoid(y[:, :1]))
    agree(ops.to_numpy(ops.soft_cap(ops.from_numpy(5 * x), 2.0)), 2 * np.tanh(5 * x / 2.0))


def test_split_and_join(ops: Operations) -> None:
    x = normal(3, 4 * 9)
    parts = ops.split(ops.from_numpy(x), (2, 6, 1), 4)
    heads = x.reshape(3, 4, 9)
    for part, (start, end) in zip(parts, ((0, 2), (2, 8), (8, 9)), strict=True):
        assert (ops.to_numpy(part) == heads[:, :, start:end].reshape(3, -1)).all()
    assert (ops.to_numpy(ops.join(parts, 4)) == x).all()


def lanes_step(ops: Any, *sequences: tuple[int, int, int], context: int = 700) -> Any:
    """A prepared batch of (slot, start, count)."""
    slots, starts, counts = (ints(*column) for column in zip(*sequences, strict=True))
    return ops.batch(Batch.of(slots, starts, counts), 4, context)


@pytest.mark.parametrize("rotating", [8, 6])
def test_rotation(ops: Operations, rotating: int) -> None:
    rules = Attention(4, 2, 8, 5, 1.0)
    table, qkv = normal(700, 2, rotating // 2), normal(4, rules.width)
    step = lanes_step(ops, (2, 30, 3), (0, 5, 1))
    expected = formulas.rope(qkv.astype(np.float64), table, np.array([30, 31, 32, 5]), rules)
    rotated = ops.rope(ops.from_numpy(qkv), ops.rope_table(table), step, rules)
    agree(ops.to_numpy(rotated), expected)
    again = ops.rope(ops.from_numpy(qkv), ops.rope_table(2 * table), step, rules)
    agree(
        ops.to_numpy(again),
        formulas.rope(qkv.astype(np.float64), 2 * table, np.array([30, 31, 32, 5]), rules),
    )


def test_rotations_of_tables_that_come_and_go(ops: Operations) -> None:
    """A table may lie where one lay that is gone: the step must not take it for that one."""
    rules = Attention(1, 1, 2, 2, 1.0)
    qkv = np.ones((1, rules.width), np.float32)
    step = lanes_step(ops, (0, 0, 1))
    for factor in range(20):
        table = np.full((700, 2, 1), factor, np.float32)
        rotated = ops.rope(ops.from_numpy(qkv), ops.rope_table(table), step, rules)
        expected = formulas.rope(qkv.astype(np.float64), table, np.array([0]), rules)
        agree(ops.to_numpy(rotated), expected)


RULES = {
    "plain": Attention(4, 4, 16, 16, 0.25),
    "grouped": Attention(6, 2, 16, 16, 0.25),
    "one key head": Attention(4, 1, 24, 16, 0.2),
    "window": Attention(4, 2, 16, 16, 0.25, window=9),
    "window of one": Attention(4, 2, 16, 16, 0.25, window=1),
    "soft cap": Attention(4, 2, 16, 16, 0.8, soft_cap=1.5),
    "window and soft cap": Attention(4, 2, 16, 16, 0.8, window=20, soft_cap=1.5),
    "latent": Attention(4, 1, 24, 18, 0.2, shared_values=True),
}
SCHEDULES = {
    "decode": [[(slot, position, 1)] for position in range(20) for slot in (3, 1)],
    "together": [[(1, position, 1), (3, position, 1)] for position in range(20)],
    "chunks": [[(3, 0, 13)], [(1, 0, 20)], [(3, 13, 7)]],
    "mixed": [
        [(1, 0, 5)],
        [(3, 0, 2), (1, 5, 1)],
        [(1, 6, 3), (3, 2, 3)],
        [(3, 5, 1), (1, 9, 10)],
        [(1, 19, 1), (3, 6, 14)],
    ],
}


@pytest.mark.parametrize("sinks", [False, True], ids=["no sinks", "sinks"])
@pytest.mark.parametrize("name", RULES)
def test_attention(ops: Operations, name: str, sinks: bool) -> None:
    """Two lanes of 20 rows, in every order in which steps may bring them."""
    rules = RULES[name]
    lanes = {slot: normal(20, rules.width) for slot in (1, 3)}
    shares = normal(rules.n_heads) if sinks else None
    expected = {
        slot: formulas.attend(lane.astype(np.float64), rules, shares)
        for slot, lane in lanes.items()
    }
    for schedule in SCHEDULES.values():
        cache = ops.cache(4, 700, rules, "f32")
        for sequences in schedule:
            rows = np.concatenate([lanes[slot][at : at + n] for slot, at, n in sequences])
            out = ops.attend(
                ops.from_numpy(rows),
                cache,
                lanes_step(ops, *sequences),
                rules,
                None if shares is None else ops.vector(floats(shares)),
            )
            wanted = [expected[slot][at : at + n] for slot, at, n in sequences]
            agree(ops.to_numpy(out), np.concatenate(wanted))


def test_a_long_lane_and_one_that_is_used_again(ops: Operations) -> None:
    """Beyond the sizes by which memory grows and lengths are rounded."""
    rules = Attention(2, 1, 8, 8, 0.35)
    cache = ops.cache(4, 700, rules, "f32")
    long, short = normal(650, rules.width), normal(30, rules.width)
    for lane in (long, short):
        expected = formulas.attend(lane.astype(np.float64), rules, None)
        cuts = [0, 250, 251, 600, len(lane)] if len(lane) > 600 else [0, 7, 30]
        for start, end in pairwise(cuts):
            step = lanes_step(ops, (2, start, end - start))
            out = ops.attend(ops.from_numpy(lane[start:end]), cache, step, rules)
            agree(ops.to_numpy(out), expected[start:end])


def test_a_cache_of_half_precision(ops: Operations) -> None:
    rules = RULES["grouped"]
    lane = normal(20, rules.width)
    cache = ops.cache(4, 700, rules)
    out = ops.attend(ops.from_numpy(lane), cache, lanes_step(ops, (0, 0, 20)), rules)
    agree(ops.to_numpy(out), formulas.attend(lane.astype(np.float64), rules, None), 3e-3)


@pytest.mark.parametrize("kernel", [1, 4])
def test_delta_rule(ops: Operations, kernel: int) -> None:
    rules = DeltaNet(2, 4, 12, 8, kernel)
    taps, log, bias = normal(rules.width * kernel), normal(4), normal(4)
    vectors = [ops.vector(floats(part)) for part in (taps, log, bias)]
    lanes = {slot: (normal(20, rules.width), normal(20, 4), normal(20, 4)) for slot in (1, 3)}
    expected = {
        slot: formulas.delta_net(*(p.astype(np.float64) for p in lane), rules, taps, log, bias)
        for slot, lane in lanes.items()
    }
    for schedule in SCHEDULES.values():
        state = ops.delta_state(4, rules)
        for _ in range(2):  # the second time in lanes that remember the first
            for sequences in schedule:
                parts = [
                    np.concatenate([lanes[slot][part][at : at + n] for slot, at, n in sequences])
                    for part in range(3)
                ]
                out = ops.delta_net(
                    *map(ops.from_numpy, parts),
                    state,
                    lanes_step(ops, *sequences),
                    rules,
                    *vectors,
                )
                wanted = [expected[slot][at : at + n] for slot, at, n in sequences]
                agree(ops.to_numpy(out), np.concatenate(wanted), 1e-4)


ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "swiglu_clamped")


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gated_mlp(ops: Operations, act: Any) -> None:
    gate_up, down = normal(2 * 24, 32), normal(32, 24)
    biases = normal(48), normal(32)
    x, residual = normal(3, 32), normal(3, 32)
    gate, up = np.split(x.astype(np.float64) @ gate_up.T + biases[0], 2, axis=1)
    expected = formulas.activate(gate, up, act) @ down.T + biases[1]
    weights = ops.weight(floats(gate_up[:24]), floats(gate_up[24:])), ops.weight(floats(down))
    vectors = [ops.vector(floats(bias)) for bias in biases]
    y = ops.gated_mlp(ops.from_numpy(x), *weights, act, None, *vectors)
    agree(ops.to_numpy(y), expected)
    y = ops.gated_mlp(ops.from_numpy(x), *weights, act, ops.from_numpy(residual), *vectors)
    agree(ops.to_numpy(y), residual + expected)


ROUTINGS = [
    Routing(12, 3, scoring, renormalize, scale, *groups)
    for scoring, (renormalize, scale), groups in product(
        ("softmax", "softmax_chosen", "sigmoid"), ((False, 1.0), (True, 2.5)), ((1, 1), (4, 2))
    )
]


@pytest.mark.parametrize("rules", ROUTINGS, ids=repr)
def test_routes(ops: Operations, rules: Routing) -> None:
    router, x = normal(12, 16), normal(9, 16)
    bias, correction = normal(12, scale=0.3), normal(12, scale=0.3)
    weight = ops.weight(floats(router))
    scores = x.astype(np.float64) @ router.T
    for with_bias, with_correction in ((False, False), (True, True)):
        given = bias if with_bias else None, correction if with_correction else None
        vectors = [None if part is None else ops.vector(floats(part)) for part in given]
        experts, weights = formulas.route(scores, rules, *given)
        found = ops.route(ops.from_numpy(x), weight, rules, *vectors)
        assert (ops.to_numpy(found[0]) == experts).all()
        agree(ops.to_numpy(found[1]), weights)


def test_of_equal_scores_the_lower_expert_wins(ops: Operations) -> None:
    router = np.ones((64, 4), np.float32)
    router[40:] *= 2
    experts, _ = ops.route(
        ops.from_numpy(np.ones((2, 4), np.float32)),
        ops.weight(floats(router)),
        Routing(64, 30, "sigmoid"),
    )
    assert (ops.to_numpy(experts) == [*range(40, 64), *range(6)]).all()


@pytest.mark.parametrize("form", ["f32", "bf16", "q4", "q6 of 16", "mixed"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_mixtures(ops: Operations, form: str, rows: int) -> None:
    """One row, few, and so many that products are sorted by expert."""
    n_experts, hidden, inner = 6, 64, 32

    def matrix(n: int, k: int, form: str) -> tuple[Tensor, np.ndarray]:
        if form.startswith("q"):
            return affine(n, k, 4, 32) if form == "q4" else affine(n, k, 6, 16)
        tensor = floats(normal(n, k), form)
        return tensor, values_of(tensor)

    forms = ("q4", "f32", "f32") if form == "mixed" else (form,) * 3
    gates, ups = ([matrix(inner, hidden, one) for _ in range(n_experts)] for one in forms[:2])
    downs = [matrix(hidden, inner, forms[2]) for _ in range(n_experts)]
    biases = normal(n_experts * 2 * inner), normal(n_experts * hidden)
    x, residual = normal(rows, hidden, scale=0.2), normal(rows, hidden)
    router, rules = normal(n_experts, hidden), Routing(n_experts, 3, renormalize=True)
    experts, weights = formulas.route(x.astype(np.float64) @ router.T, rules, None, None)
    expected = residual.astype(np.float64)
    for row, column in product(range(rows), range(3)):
        expert = experts[row, column]
        gate, up = (part[expert][1] @ x[row] for part in (gates, ups))
        both = np.concatenate([gate, up]) + biases[0].reshape(n_experts, -1)[expert]
        hidden_row = formulas.activate(*np.split(both, 2), "silu")
        y = downs[expert][1] @ hidden_row + biases[1].reshape(n_experts, -1)[expert]
        expected[row] += weights[row, column] * y
    given = ops.from_numpy(x)
    chosen = ops.route(given, ops.weight(floats(router)), rules)
    found = ops.mixture(
        given,
        *chosen,
        ops.experts([[gates[e][0], ups[e][0]] for e in range(n_experts)]),
        ops.experts([[downs[e][0]] for e in range(n_experts)]),
        "silu",
        ops.from_numpy(residual),
        *(ops.vector(floats(bias)) for bias in biases),
    )
    bound = {"f32": F32_BOUND, "q4": F32_BOUND, "bf16": BF16_BOUND}.get(form, 3e-3)
    if ops.name == "torch" and form != "f32":
        bound = BF16_BOUND
    agree(ops.to_numpy(found), expected, bound)


@pytest.mark.parametrize("kind", ["q4", "q8"])
def test_compressed_models_agree_with_reference(ops: Operations, tmp_path: Path, kind: str) -> None:
    """Scales in f16, with which MLX computes in float32."""
    folder = make_checkpoint(tmp_path, kind=kind, group_size=64, hidden=128, ffn=192, tied=False)
    ids = RNG.integers(0, 97, 20).tolist()
    found, expected = (
        Chain(folder, backend=backend).run(ids, [12, *[1] * 8])
        for backend in (ops.name, "reference")
    )
    agree(found, expected, 1e-4 if ops.name == "mlx" else 5e-2)


@pytest.mark.parametrize("kind", ["f32", "bf16", "q4"])
def test_splits_do_not_change_a_bit(ops: Operations, tmp_path: Path, kind: str) -> None:
    """Where the steps are the same: a hop carries what the layers compute, in float32."""
    folder = make_checkpoint(tmp_path, kind=kind, group_size=32)
    ids = RNG.integers(0, 97, 20).tolist()
    whole, *split = (
        Chain(folder, cuts, backend=ops.name).run(ids, [12, *[1] * 8])
        for cuts in ((), (1,), (1, 2), (0, 2))
    )
    assert all((logits == whole).all() for logits in split)


def test_batches_that_do_not_fit_are_refused(ops: Operations) -> None:
    for sequences in (
        [(4, 0, 1)],
        [(-1, 0, 1)],
        [(0, 0, 0)],
        [(0, -1, 1)],
        [(0, 690, 11)],
        [(1, 0, 1), (1, 5, 1)],
    ):
        with pytest.raises(ProtocolError):
            lanes_step(ops, *sequences)
    with pytest.raises(ProtocolError, match="without sequences"):
        ops.batch(Batch.of(ints(), ints(), ints()), 4, 700)


def test_arrays_of_numpy_are_left_alone(ops: Operations) -> None:
    """A frame's buffer may be read-only and used again; a result is nobody else's memory."""
    x = normal(2, 8)
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(2, 8)
    given = ops.from_numpy(frozen)
    first = ops.to_numpy(given)
    first[:] = 0
    assert (ops.to_numpy(given) == x).all() and (frozen == x).all()
