"""Quantized safetensors: each format's published definition, written down here in float64.

GPTQ: https://github.com/AutoGPTQ/AutoGPTQ; AWQ: https://github.com/casper-hansen/AutoAWQ;
compressed-tensors: https://github.com/vllm-project/compressed-tensors; FP8 blocks:
https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/inference/kernel.py; MXFP4: OCP
Microscaling Formats 1.0. MLX's numbers are recorded (tools/record_mlx_quantized.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gangline.checkpoint.affine import ROUNDED_BOUND, values
from gangline.checkpoint.convert_quantized import E4M3
from gangline.checkpoint.model import Checkpoint, open_checkpoint
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError
from tests.make_checkpoint import Arrays, make_checkpoint, to_bf16, write_safetensors

ROWS, COLUMNS = 48, 256
MODULE = "model.layers.0.mlp.up_proj"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "mlx_quantized.npz"
Codes = NDArray[np.int64]

# Numbers of FP4 and of FP8, from their definitions.
FP4 = [sign * number for sign in (1, -1) for number in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]


def fp8(code: int) -> float:
    """E4M3: bias 7, no infinities, all ones is not a number."""
    sign, exponent, fraction = -1 if code & 128 else 1, code >> 3 & 15, code & 7
    if exponent == 15 and fraction == 7:
        return float("nan")
    if exponent == 0:
        return float(sign * fraction * 2.0**-9)
    return float(sign * (8 + fraction) * 2.0 ** (exponent - 10))


def words_along(codes: Codes, bits: int, order: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Codes (N, K) -> int32 (N, K bits / 32); `order`: the column in each place of a word."""
    per_word = 32 // bits
    groups = codes.reshape(len(codes), -1, per_word)[..., order or range(per_word)]
    shifts = np.arange(per_word) * bits
    return (groups << shifts).sum(-1).astype(np.uint32).view(np.int32)


def opened(folder: Path, arrays: Arrays, quantization: dict[str, Any]) -> Checkpoint:
    """A model of which one module is replaced by quantized arrays."""
    make_checkpoint(folder, n_layers=1, extra={"quantization_config": quantization})
    write_safetensors(folder / "model.safetensors", arrays)
    return open_checkpoint(folder)


def only(checkpoint: Checkpoint, name: str = f"{MODULE}.weight") -> Tensor:
    """The one tensor; its size was known before it was read."""
    assert checkpoint.names == (name,)
    tensor = checkpoint.tensor(name)
    own = checkpoint.sizes.layers[0] + checkpoint.sizes.embedding + checkpoint.sizes.output
    assert tensor.n_bytes == own
    return tensor


def parts(seed: int, bits: int, groups: int) -> tuple[Codes, Codes, NDArray[np.float16]]:
    """Codes (ROWS, COLUMNS), zero points and scales (ROWS, groups)."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << bits, (ROWS, COLUMNS))
    zeros = random.integers(1, 1 << bits, (ROWS, groups))
    scales = (random.standard_normal((ROWS, groups)) * 0.1).astype(np.float16)
    return codes, zeros, scales


def meant(codes: Codes, zeros: Codes, scales: NDArray[Any], groups: Codes) -> NDArray[np.float64]:
    """scale (code - zero), the group of each column given."""
    return scales.astype(np.float64)[:, groups] * (codes - zeros[:, groups])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group_size", [32, 128, COLUMNS])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq(tmp_path: Path, bits: int, group_size: int, version: str) -> None:
    groups = np.arange(COLUMNS) // group_size
    codes, zeros, scales = parts(bits, bits, COLUMNS // group_size)
    stored = zeros - 1 if version == "gptq" else zeros
    arrays = {
        f"{MODULE}.qweight": np.ascontiguousarray(words_along(codes, bits).T),
        f"{MODULE}.qzeros": words_along(np.ascontiguousarray(stored.T), bits),
        f"{MODULE}.scales": np.ascontiguousarray(scales.T),
        f"{MODULE}.g_idx": groups.astype(np.int32),
    }
    config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": version}
    found = only(opened(tmp_path, arrays, config))
    assert found.shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(values(found), meant(codes, zeros, scales, groups))


def test_gptq_with_scattered_groups_is_rounded_within_the_stated_bound(tmp_path: Path) -> None:
    """desc_act: no order of columns makes groups of neighbours without moving the inputs."""
    groups = np.random.default_rng(0).permutation(np.arange(COLUMNS) // 64)
    codes, zeros, scales = parts(1, 4, COLUMNS // 64)
    arrays = {
        f"{MODULE}.qweight": np.ascontiguousarray(words_along(codes, 4).T),
        f"{MODULE}.qzeros": words_along(np.ascontiguousarray(zeros.T - 1), 4),
        f"{MODULE}.scales": np.ascontiguousarray(scales.T),
        f"{MODULE}.g_idx": groups.astype(np.int32),
    }
    checkpoint = opened(tmp_path, arrays, {"quant_method": "gptq", "bits": 4, "desc_act": True})
    expected = meant(codes, zeros, scales, groups)
    check_rounded(values(only(checkpoint)), expected)


def test_compressed_tensors_with_actorder_is_rounded_within_the_stated_bound(
    tmp_path: Path,
) -> None:
    """`actorder: group` of earlier releases (0.9): columns stay in place, g_idx has groups."""
    groups = np.random.default_rng(0).permutation(np.arange(COLUMNS) // 64)
    codes, zeros, scales = parts(2, 4, COLUMNS // 64)
    zeros = np.full_like(zeros, 8)
    arrays = {
        f"{MODULE}.weight_packed": words_along(codes, 4),
        f"{MODULE}.weight_scale": scales,
        f"{MODULE}.weight_g_idx": groups.astype(np.int32),
    }
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "actorder": "group"}}},
    }
    found = only(opened(tmp_path, arrays, config))
    check_rounded(values(found), meant(codes, zeros, scales, groups))


def test_gptq_modules_may_have_bits_of_their_own(tmp_path: Path) -> None:
    """GPTQModel's `dynamic`: the config has the bits of most modules."""
    groups = np.arange(COLUMNS) // 64
    codes, zeros, scales = parts(1, 8, COLUMNS // 64)
    arrays = {
        f"{MODULE}.qweight": np.ascontiguousarray(words_along(codes, 8).T),
        f"{MODULE}.qzeros": words_along(np.ascontiguousarray(zeros.T - 1), 8),
        f"{MODULE}.scales": np.ascontiguousarray(scales.T),
    }
    found = only(opened(tmp_path, arrays, {"quant_method": "gptq", "bits": 4}))
    np.testing.assert_array_equal(values(found), meant(codes, zeros, scales, groups))


def test_gptq_that_names_groups_it_does_not_have_is_refused(tmp_path: Path) -> None:
    codes, zeros, scales = parts(1, 4, 2)
    arrays = {
        f"{MODULE}.qweight": np.ascontiguousarray(words_along(codes, 4).T),
        f"{MODULE}.qzeros": words_along(np.ascontiguousarray(zeros.T), 4),
        f"{MODULE}.scales": np.ascontiguousarray(scales.T),
        f"{MODULE}.g_idx": np.full(COLUMNS, 2, np.int32),
    }
    checkpoint = opened(tmp_path, arrays, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(CheckpointError, match=r"g_idx` of 256 columns names group 2"):
        checkpoint.tensor(f"{MODULE}.weight")


def check_rounded(found: NDArray[Any], expected: NDArray[np.float64]) -> None:
    """The documented bound: of the largest magnitude of 64 neighbours."""
    errors = np.abs(found - expected).reshape(len(found), -1, 64)
    largest = np.abs(expected).reshape(errors.shape).max(-1, keepdims=True)
    assert (errors <= largest * (ROUNDED_BOUND + 1e-6)).all()
    assert errors.max() > 0
    assert (found[expected == 0] == 0).all()


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_awq(tmp_path: Path, group_size: int) -> None:
    order = (0, 2, 4, 6, 1, 3, 5, 7)  # the column in each place of a word
    groups = np.arange(COLUMNS) // group_size
    codes, zeros, scales = parts(group_size, 4, COLUMNS // group_size)
    arrays = {
        f"{MODULE}.qweight": words_along(np.ascontiguousarray(codes.T), 4, order),
        f"{MODULE}.qzeros": words_along(np.ascontiguousarray(zeros.T), 4, order),
        f"{MODULE}.scales": np.ascontiguousarray(scales.T),
    }
    config = {"quant_method": "awq", "bits": 4, "group_size": group_size, "version": "gemm"}
    found = only(opened(tmp_path, arrays, config))
    np.testing.assert_array_equal(values(found), meant(codes, zeros, scales, groups))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 128, COLUMNS])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(tmp_path: Path, bits: int, group_size: int, symmetric: bool) -> None:
    groups = np.arange(COLUMNS) // group_size
    codes, zeros, scales = parts(bits + 1, bits, COLUMNS // group_size)
    if symmetric:
        zeros = np.full_like(zeros, 1 << (bits - 1))
    arrays = {
        f"{MODULE}.weight_packed": words_along(codes, bits),
        f"{MODULE}.weight_scale": scales,
        f"{MODULE}.weight_shape": np.array([ROWS, COLUMNS]),
    }
    if not symmetric:
        packed = words_along(np.ascontiguousarray(zeros.T), bits)
        arrays[f"{MODULE}.weight_zero_point"] = np.ascontiguousarray(packed.T)
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group"}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    found = only(opened(tmp_path, arrays, config))
    np.testing.assert_array_equal(values(found), meant(codes, zeros, scales, groups))


def test_fp8_blocks(tmp_path: Path) -> None:
    """Blocks of 128 x 128, the last of the rows not whole."""
    random = np.random.default_rng(5)
    codes = random.integers(0, 256, (200, COLUMNS), np.uint8)
    codes[codes & 127 == 127] = 0
    scales = np.exp(random.standard_normal((2, 2))).astype(np.float32)
    arrays = {f"{MODULE}.weight": codes, f"{MODULE}.weight_scale_inv": scales}
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    make_checkpoint(tmp_path, n_layers=1, extra={"quantization_config": config})
    write_safetensors(tmp_path / "model.safetensors", arrays, {f"{MODULE}.weight": "F8_E4M3"})
    found = only(open_checkpoint(tmp_path))
    by_block = np.kron(scales.astype(np.float64), np.ones((128, 128)))[:200]
    numbers = np.array([fp8(code) for code in range(256)])
    check_rounded(values(found), numbers[codes] * by_block)


def test_the_table_of_fp8_numbers() -> None:
    np.testing.assert_array_equal(E4M3, [fp8(code) for code in range(256)])
    assert np.nanmax(E4M3) == 448


def fp4_numbers(seed: int, *outer: int) -> tuple[Codes, NDArray[np.uint8], NDArray[np.float64]]:
    """FP4 codes (…, 64), exponents (…, 2), and the numbers that they mean."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 16, (*outer, 64))
    exponents = random.integers(90, 140, (*outer, 2)).astype(np.uint8)
    scales = np.repeat(2.0 ** (exponents.astype(np.int64) - 127), 32, axis=-1)
    return codes, exponents, np.array(FP4)[codes] * scales


def test_mxfp4_blocks_of_stacked_experts(tmp_path: Path) -> None:
    codes, exponents, expected = fp4_numbers(1, 3, 10)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    pairs = codes.reshape(3, 10, 2, 16, 2)
    arrays = {
        f"{name}_blocks": (pairs[..., 0] | pairs[..., 1] << 4).astype(np.uint8),
        f"{name}_scales": exponents,
    }
    found = only(opened(tmp_path, arrays, {"quant_method": "mxfp4"}), name)
    assert found.shape == (3, 10, 64) and found.scales is not None and found.scales.dtype == "bf16"
    np.testing.assert_array_equal(values(found), expected)
    np.testing.assert_array_equal(values(found.at(1).rows(slice(1, None, 2))), expected[1, 1::2])


def test_mlx_mxfp4(tmp_path: Path) -> None:
    codes, exponents, expected = fp4_numbers(2, 6)
    arrays = {
        f"{MODULE}.weight": words_along(codes, 4).view(np.uint32),
        f"{MODULE}.scales": exponents,
    }
    form = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    found = only(opened(tmp_path, arrays, form))
    np.testing.assert_array_equal(values(found), expected)


def recorded() -> list[str]:
    with np.load(FIXTURE) as file:
        return sorted({name.rsplit(".", 1)[0] for name in file})


@pytest.mark.parametrize("name", recorded())
def test_mlx(tmp_path: Path, name: str) -> None:
    """Bits and group sizes of `mx.quantize`, or a mode with its own."""
    with np.load(FIXTURE) as file:
        found = {key: file[f"{name}.{key}"] for key in ("packed", "scales", "values")}
        biases = file.get(f"{name}.biases")
    bits, group_size = (4, 32) if name == "mxfp4" else map(int, name.split("."))
    form = {"group_size": group_size, "bits": bits}
    arrays = {f"{MODULE}.weight": found["packed"], f"{MODULE}.scales": found["scales"]}
    if biases is not None:
        arrays[f"{MODULE}.biases"] = biases
    else:
        form["mode"] = name
    tensor = only(opened(tmp_path, arrays, form))
    largest = np.abs(found["values"]).max()
    np.testing.assert_allclose(values(tensor), found["values"], rtol=0, atol=2e-7 * largest)


BROKEN: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"qweight": np.zeros((32, ROWS), np.int32), "scales": np.zeros((2, ROWS), np.float16)},
        {"quant_method": "gptq", "bits": 4},
        r"`\S+qweight` is quantized, but `\S+qzeros` is missing",
    ),
    (
        {
            "qweight": np.zeros((32, ROWS), np.int32),
            "scales": np.zeros((2, ROWS + 1), np.float16),
            "qzeros": np.zeros((2, ROWS // 8), np.int32),
        },
        {"quant_method": "gptq", "bits": 4},
        r"`\S+qweight` I32 \[32, 48\] with `\S+scales` F16 \[2, 49\] is not 4-bit codes",
    ),
    (
        {
            "qweight": np.zeros((3, ROWS), np.int32),
            "scales": np.zeros((1, ROWS), np.float16),
            "qzeros": np.zeros((1, ROWS // 8), np.int32),
        },
        {"quant_method": "gptq", "bits": 4},
        r"has groups of 24 columns, expected a multiple of 16",
    ),
    (
        {
            "weight_packed": np.zeros((ROWS, 8), np.int32),
            "weight_scale": np.zeros((ROWS, 1), np.float16),
            "weight_g_idx": np.zeros(60, np.int32),
        },
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
        },
        r"`\S+weight_g_idx` I32 \[60\] is not with the group of each column",
    ),
    (
        {"weight": np.zeros((2, 100), np.uint8), "weight_scale_inv": np.ones((1, 1), np.float32)},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        r"`\S+weight` U8 \[2, 100\] with .* is not FP8 in blocks of 128 x 128",
    ),
]


@pytest.mark.parametrize(("arrays", "config", "expected"), BROKEN)
def test_what_does_not_fit_is_named(
    tmp_path: Path, arrays: Arrays, config: dict[str, Any], expected: str
) -> None:
    named = {f"{MODULE}.{name}": array for name, array in arrays.items()}
    with pytest.raises(CheckpointError, match=expected) as caught:
        opened(tmp_path, named, config)
    assert "model.safetensors" in caught.value.message


def test_dense_tensors_beside_quantized_ones_stay(tmp_path: Path) -> None:
    groups = np.arange(COLUMNS) // 128
    codes, zeros, scales = parts(3, 4, 2)
    norm = to_bf16(np.arange(5, dtype=np.float32))
    arrays = {
        f"{MODULE}.weight_packed": words_along(codes, 4),
        f"{MODULE}.weight_scale": scales,
        f"{MODULE}.bias": norm,
        "model.norm.weight": norm,
    }
    weights = {"num_bits": 4}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }
    checkpoint = opened(tmp_path, arrays, config)
    assert set(checkpoint.names) == {f"{MODULE}.weight", f"{MODULE}.bias", "model.norm.weight"}
    assert values(checkpoint.tensor("model.norm.weight")).tolist() == [0, 1, 2, 3, 4]
    zeros = np.full_like(zeros, 8)
    found = values(checkpoint.tensor(f"{MODULE}.weight"))
    np.testing.assert_array_equal(found, meant(codes, zeros, scales, groups))
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == config
