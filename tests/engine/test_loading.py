"""The forms in which checkpoints have the same weights: names, stacks, quantized rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gangline.checkpoint.model import open_checkpoint
from gangline.checkpoint.tensors import GroupAffine, Tensor
from gangline.engine.backends.reference import dense
from gangline.errors import CheckpointError
from tests.described import describe
from tests.engine.fixtures import NAMES, Weights, family_of, from_bf16, read_fixture, write_model
from tests.engine.steps import Chain
from tests.make_checkpoint import pack, quantize

GROUP = 32
IDS = [3, 41, 7, 7, 20, 1, 33, 12, 5]


def run(folder: Path) -> Any:
    return Chain(folder, (1,), backend="reference").run(IDS)


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def stacked(weights: Weights) -> Weights:
    """Each matrix of all experts as one tensor: `model.layers.0.mlp/gate_proj`."""
    found: dict[tuple[str, str], dict[int, Any]] = {}
    others = {}
    for name, array in weights.items():
        if match := re.fullmatch(EXPERTS, name):
            before, expert, kind = match.groups()
            found.setdefault((before, kind), {})[int(expert)] = array
        else:
            others[name] = array
    return others | {
        f"{before}/{kind}": np.stack([of_one[e] for e in sorted(of_one)])
        for (before, kind), of_one in found.items()
    }


EXPERTS = r"(.*\.(?:mlp|block_sparse_moe))\.experts\.(\d+)\.(\w+)\.weight"
KINDS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "deepseek_v3"])
def test_experts_load_from_each_form(tmp_path: Path, name: str) -> None:
    """One tensor per expert, MLX's stacks, and the fused ones of transformers 5."""
    config, weights, _ = read_fixture(name)
    stacks = stacked(weights)
    assert len(stacks) < len(weights)
    mlx, fused = {}, {}
    for path, array in stacks.items():
        before, _, kind = path.partition("/")
        kind = KINDS.get(kind, kind)
        if not kind:
            mlx[path] = array
            fused[path.replace("block_sparse_moe", "mlp")] = array
            continue
        mlx[f"{before}.switch_mlp.{kind}.weight"] = array
        layer = before.rpartition(".")[0] + "."
        if kind == "down_proj":
            fused[f"{layer}mlp.experts.down_proj"] = array
        else:
            fused[f"{layer}mlp.experts.{kind}"] = array
    for path in [path for path in fused if path.endswith("experts.gate_proj")]:
        gate, up = fused.pop(path), fused.pop(path.replace("gate_proj", "up_proj"))
        fused[path.replace("gate_proj", "gate_up_proj")] = np.concatenate([gate, up], axis=1)
    expected = run(write_model(tmp_path / "separate", config, weights))
    for form in ("mlx", "fused"):
        folder = write_model(tmp_path / form, config, {"mlx": mlx, "fused": fused}[form])
        same(run(folder), expected)
        sizes = open_checkpoint(folder).sizes
        assert sizes == open_checkpoint(tmp_path / "separate").sizes


def gpt_oss_as_mlx(weights: Weights) -> Weights:
    """Rows of one expert after the other, gate and up apart."""
    changed = {}
    for path, array in weights.items():
        module, _, kind = path.partition("experts.")
        if not kind:
            changed[path] = array
        elif kind == "down_proj":
            changed[f"{module}experts.down_proj.weight"] = array.transpose(0, 2, 1)
        elif kind == "down_proj_bias":
            changed[f"{module}experts.down_proj.bias"] = array
        else:
            rows = array if kind.endswith("_bias") else array.transpose(0, 2, 1)
            end = "bias" if kind.endswith("_bias") else "weight"
            changed[f"{module}experts.gate_proj.{end}"] = rows[:, 0::2]
            changed[f"{module}experts.up_proj.{end}"] = rows[:, 1::2]
    return changed


def test_mlx_has_norms_of_qwen3_next_as_they_are(tmp_path: Path) -> None:
    """Its conversion adds the 1 that Hugging Face's leaves out, and turns the convolution."""
    config, weights, _ = read_fixture("qwen3_next")
    expected = run(write_model(tmp_path / "hf", config, weights))
    mlx = {}
    for path, array in stacked(weights).items():
        before, _, kind = path.partition("/")
        if kind:
            mlx[f"{before}.switch_mlp.{kind}.weight"] = array
        elif path.endswith("norm.weight") and "linear_attn" not in path:
            mlx[path] = from_bf16(array) + 1
        else:
            mlx[path] = array.transpose(0, 2, 1) if "conv1d" in path else array
    same(run(write_model(tmp_path / "mlx", config, mlx)), expected)


def test_latent_attention_loads_from_both_forms(tmp_path: Path) -> None:
    """One matrix that makes keys and values of the latent, or MLX's two."""
    config, weights, _ = read_fixture("deepseek_v3")
    n_heads, plain, value = 4, config["qk_nope_head_dim"], config["v_head_dim"]
    split = {}
    for path, array in weights.items():
        before, found, _ = path.partition("kv_b_proj.weight")
        if not found:
            split[path] = array
            continue
        heads = array.reshape(n_heads, plain + value, -1)
        split[f"{before}embed_q.weight"] = heads[:, :plain].transpose(0, 2, 1)
        split[f"{before}unembed_out.weight"] = heads[:, plain:]
    expected = run(write_model(tmp_path / "one", config, weights))
    same(run(write_model(tmp_path / "two", config, split)), expected)


def test_gpt_oss_loads_from_each_form(tmp_path: Path) -> None:
    config, weights, _ = read_fixture("gpt_oss")
    expected = run(write_model(tmp_path / "hf", config, weights))
    mlx = gpt_oss_as_mlx(weights)
    same(run(write_model(tmp_path / "mlx", config, mlx)), expected)
    separate = {}
    for path, array in mlx.items():
        module, _, kind = path.partition("experts.")
        if not kind:
            separate[path] = array
        for expert, rows in enumerate(array if kind else ()):
            separate[f"{module}experts.{expert}.{kind}"] = rows
    same(run(write_model(tmp_path / "separate", config, separate)), expected)


def quantized(weights: Weights) -> tuple[Weights, Weights]:
    """Every matrix of whole groups at 4 bits, and the dense matrices that this means."""
    packed, meant = {}, {}
    for path, array in weights.items():
        fits = path.endswith(".weight") and array.ndim in (2, 3) and array.shape[-1] % GROUP == 0
        if not fits or "conv1d" in path:
            packed[path] = meant[path] = array
            continue
        values = from_bf16(array)
        rows = values.reshape(-1, values.shape[-1])
        outer = array.shape[:-1]
        words, scales, offsets = (part.reshape(*outer, -1) for part in quantize(rows, 4, GROUP))
        module = path.removesuffix(".weight")
        packed |= {path: words, f"{module}.scales": scales, f"{module}.biases": offsets}
        parts = (Tensor("", "f16", part.shape, part) for part in (scales, offsets))
        tensor = Tensor(path, "u32", array.shape, words, GroupAffine(4, GROUP), *parts)
        stacks = array.ndim == 3
        meant[path] = (
            np.stack([dense(tensor.at(e)) for e in range(len(array))]) if stacks else dense(tensor)
        )
    return packed, meant


@pytest.mark.parametrize("name", NAMES)
def test_quantized_rows_are_sorted_and_cut_like_dense_ones(tmp_path: Path, name: str) -> None:
    config, weights, _ = read_fixture(name)
    packed, meant = quantized(gpt_oss_as_mlx(weights) if name == "gpt_oss" else weights)
    assert len(packed) > len(meant)
    form = {"quantization": {"group_size": GROUP, "bits": 4}}
    folder = write_model(tmp_path / "packed", config | form, packed)
    same(run(folder), run(write_model(tmp_path / "dense", config, meant)))
    stages = Chain(folder, (1,), backend="reference").stages
    sizes = open_checkpoint(folder).sizes
    expected = sum(sizes.layers) + sizes.embedding + sizes.output
    assert sum(stage.weight_bytes for stage in stages) == expected


def test_rows_of_a_quantized_tensor() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (2, 6, 64)).astype(np.uint32)
    words = np.stack([pack(matrix, 4) for matrix in codes])
    numbers = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    scales, offsets = (Tensor(name, "f32", (2, 6, 2), numbers) for name in "so")
    whole = Tensor("w", "u32", (2, 6, 64), words, GroupAffine(4, 32), scales, offsets)
    second = whole.at(1)
    assert second.shape == (6, 64) and np.shares_memory(second.data, words)
    chosen = np.array([4, 0, 5])
    assert (dense(second.rows(chosen)) == dense(second)[chosen]).all()
    assert (dense(second.rows(slice(1, None, 2))) == dense(second)[1::2]).all()
    assert second.rows(chosen).shape == (3, 64)


def test_the_text_part_of_a_model_that_sees(tmp_path: Path) -> None:
    """Under another prefix, its config inside another, beside tensors that are not for text."""
    config, weights, _ = read_fixture("gemma3")
    expected = run(write_model(tmp_path / "text", config, weights))
    config.pop("architectures")
    seeing = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": config}
    vision = {"vision_tower.vision_model.encoder.layers.0.fc1.weight": np.ones((9, 9), np.float32)}
    for prefix in ("language_model.", "model.language_model."):
        folder = tmp_path / prefix
        start = "model." if prefix.startswith("model.") else ""
        changed = {prefix + path.removeprefix(start): array for path, array in weights.items()}
        write_model(folder, seeing, changed | vision)
        same(run(folder), expected)
        found, text = describe(folder), describe(tmp_path / "text")
        assert (found.family, found.layer_bytes) == ("gemma3", text.layer_bytes)
        assert found.embedding_bytes == text.embedding_bytes
        assert found.output_bytes == text.output_bytes


def test_layers_for_drafting_are_left_alone(tmp_path: Path) -> None:
    config, weights, _ = read_fixture("deepseek_v3")
    draft = {"model.layers.3.eh_proj.weight": np.zeros((32, 64), np.float32)}
    folder = write_model(tmp_path, config, weights | draft)
    sizes = open_checkpoint(folder).sizes
    assert len(sizes.layers) == 3
    assert np.isfinite(run(folder)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if family_of(name) == name])
def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path, name: str) -> None:
    """Whichever it is; biases may be missing, since a checkpoint says by having them."""
    config, weights, _ = read_fixture(name)
    layer = {path for path in weights if path.startswith("model.layers.1.")}
    for number, path in enumerate(sorted(layer | {"model.norm.weight"})):
        if path.endswith((".bias", "_bias")):
            continue
        rest = {other: array for other, array in weights.items() if other != path}
        folder = write_model(tmp_path / f"{number}", config, rest)
        with pytest.raises(CheckpointError, match="no tensor `model"):
            run(folder)
        wider = np.concatenate([weights[path]] * 2)
        folder = write_model(tmp_path / f"{number}", config, rest | {path: wider})
        with pytest.raises(CheckpointError, match=re.escape(f"`{path}` has shape")):
            run(folder)
