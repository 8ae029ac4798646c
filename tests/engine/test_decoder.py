"""The decoder: promise 2 on small random models, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.model import open_checkpoint
from gangline.engine.backends import open_backend
from gangline.engine.decoder import Decoder
from gangline.engine.operations import Batch
from gangline.errors import CheckpointError, ContextTooLong, ProtocolError, UsageError
from gangline.facts import Span
from tests.engine.steps import Chain, ints
from tests.make_checkpoint import KINDS, make_checkpoint

pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")

WHOLE = Span(0, 3)
IDS = np.random.default_rng(2).integers(0, 97, 80).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_splits_do_not_change_a_bit(tmp_path: Path, kind: str) -> None:
    """Prefill whole == token by token == in chunks, on 1, 2, 3 spans and a head without layers."""
    folder = make_checkpoint(tmp_path, kind=kind)
    whole = Chain(folder).run(IDS)
    assert np.isfinite(whole).all() and np.ptp(whole) > 1
    for cuts in ((), (1,), (1, 2), (0, 2)):
        for chunks in ([1] * 80, [64, 16], [3, 70, 7]):
            assert (Chain(folder, cuts).run(IDS, chunks) == whole).all(), (cuts, chunks)


def test_lanes_do_not_change_each_other(tmp_path: Path) -> None:
    """Prompt chunks and decode rows of several lanes in one step, slots used out of order."""
    folder = make_checkpoint(tmp_path, kind="bf16")
    alone = [Chain(folder).run(ids) for ids in (IDS[:20], IDS[20:50], IDS[50:])]
    chain = Chain(folder, (2,))
    steps = [
        [(3, 0, IDS[:10])],
        [(0, 0, IDS[20:45]), (3, 10, IDS[10:11])],
        [(3, 11, IDS[11:12]), (1, 0, IDS[50:79]), (0, 25, IDS[45:49])],
        [(1, 29, IDS[79:]), (3, 12, IDS[12:20]), (0, 29, IDS[49:50])],
    ]
    rows: dict[int, list[Any]] = {3: [], 0: [], 1: []}
    for step in steps:
        for (slot, _, _), logits in zip(step, chain.step(step), strict=True):
            rows[slot].append(logits)
    for slot, expected in zip((3, 0, 1), alone, strict=True):
        assert (np.concatenate(rows[slot]) == expected).all(), slot


def test_a_slot_is_used_again(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    chain = Chain(folder)
    chain.run(IDS[40:], slot=2)
    assert (chain.run(IDS[:30], slot=2) == Chain(folder).run(IDS[:30])).all()


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "separate output": {"tied": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one head": {"n_heads": 1, "n_kv_heads": 1},
    "wide heads": {"head_dim": 48},
    "odd sizes": {"hidden": 60, "n_heads": 6, "n_kv_heads": 3, "head_dim": 10, "ffn": 77},
    "gelu": {"extra": {"hidden_act": "gelu"}},
    "gelu_tanh": {"extra": {"hidden_act": "gelu_pytorch_tanh"}},
    "relu2": {"extra": {"hidden_act": "relu2"}},
    "linear rope": {"extra": {"rope_scaling": {"type": "linear", "factor": 4.0}}},
    "llama3 rope": {
        "extra": {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 64,
            }
        }
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_cpu_agrees_with_reference(tmp_path: Path, variant: str, kind: str) -> None:
    folder = make_checkpoint(tmp_path, kind=kind, **VARIANTS[variant])
    cpu, reference = (Chain(folder, backend=name).run(IDS) for name in ("cpu", "reference"))
    np.testing.assert_allclose(cpu, reference, atol=3e-6 * np.abs(reference).max(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["q4", "q8", "f16"])
def test_cpu_agrees_with_reference_on_compressed_weights(tmp_path: Path, kind: str) -> None:
    folder = make_checkpoint(tmp_path, kind=kind, group_size=64, hidden=128, ffn=192, tied=False)
    cpu, reference = (Chain(folder, backend=name).run(IDS) for name in ("cpu", "reference"))
    if kind == "f16":
        largest = np.abs(reference).max()
        np.testing.assert_allclose(cpu, reference, atol=3e-6 * largest, rtol=1e-5)
    else:  # activations of 8 bits; tests/kernels/test_values.py has the bound of one product
        assert np.square(cpu - reference).mean() < 0.04**2 * np.square(reference).mean()


def test_variants_matter(tmp_path: Path) -> None:
    """Each variant gives other logits than the plain model: none is silently ignored."""
    folders = {
        name: make_checkpoint(tmp_path / name, **fields)
        for name, fields in VARIANTS.items()
        if fields.get("extra") or name == "plain"
    }
    found = {name: Chain(folder).run(IDS) for name, folder in folders.items()}
    for name, logits in found.items():
        if name != "plain":
            assert np.abs(logits - found["plain"]).max() > 1e-3, name


def decoder(folder: Path, span: Span = WHOLE, **options: Any) -> Decoder:
    fields = {"head": True, "context": 64, "lanes": 2, **options}
    return Decoder(open_checkpoint(folder), open_backend("cpu", 1), span, **fields)


def test_a_stage_loads_its_own_layers_only(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, kind="bf16")
    checkpoint = open_checkpoint(folder)
    asked: list[str] = []
    original = checkpoint.tensor
    checkpoint.tensor = lambda name: (asked.append(name), original(name))[1]
    fractions: list[float] = []
    stage = Decoder(
        checkpoint,
        open_backend("cpu", 1),
        Span(1, 2),
        head=False,
        context=64,
        lanes=2,
        progress=fractions.append,
    )
    assert asked and all(name.startswith("model.layers.1.") for name in asked)
    assert stage.weight_bytes == checkpoint.sizes.layers[1]
    assert stage.cache_bytes == 2 * 64 * 2 * 2 * 16 * 2
    assert fractions == [1.0]
    whole = decoder(folder)
    assert whole.weight_bytes == checkpoint.size_bytes


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    with pytest.raises(UsageError, match=r"layers \[2, 4\) of a model that has 3"):
        decoder(folder, Span(2, 4))
    with pytest.raises(ContextTooLong, match="257 tokens, the model was made for up to 256"):
        decoder(folder, context=257)
    with pytest.raises(UsageError, match="lanes"):
        decoder(folder, lanes=0)
    whole = decoder(folder)
    for id in (97, -1):
        with pytest.raises(UsageError, match=f"token id {id}, the vocabulary has 97"):
            whole.embed(ints(3, id))
    x = whole.embed(ints(1, 2))
    for batch in (
        Batch.of(ints(0), ints(63), ints(2)),
        Batch.of(ints(2), ints(0), ints(2)),
        Batch.of(ints(0), ints(0), ints(3)),
        Batch.of(ints(0), ints(0), ints(1)),
        Batch(ints(0), ints(0), ints(1), ints(0, 1)),  # positions that belong to other counts
        Batch(ints(0), ints(0), ints(), ints(0, 1)),
    ):
        with pytest.raises(ProtocolError):
            whole.forward(x, batch)
    with pytest.raises(ProtocolError, match="expected"):
        whole.forward(x[:, :32], Batch.of(ints(0), ints(0), ints(2)))


def test_config_and_weights_of_different_models_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, extra={"intermediate_size": 100})
    with pytest.raises(CheckpointError, match=r"gate_proj.weight` has shape \[96, 64\]"):
        decoder(folder)


def test_hidden_states_that_cannot_be_written_are_copied(tmp_path: Path) -> None:
    """A frame's buffer may be read-only."""
    whole = decoder(make_checkpoint(tmp_path))
    x = whole.embed(ints(5))
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)
    batch = Batch.of(ints(0), ints(0), ints(1))
    assert (whole.forward(frozen, batch) == whole.forward(x, batch)).all()
