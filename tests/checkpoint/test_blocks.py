"""GGUF's types against the `gguf` package: every number equal, whatever the bytes are."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from gangline.checkpoint.affine import pack, unpack, values
from gangline.checkpoint.block_types import BLOCK_TYPES
from gangline.checkpoint.blocks import DECODERS, Blocks
from gangline.checkpoint.convert import load
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.parts import plain
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.tensors import Tensor

QUANTIZED = list(DECODERS)

# Where half-precision factors stand in a block; the exponent of MXFP4 is a byte.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
    "IQ4_XS": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "MXFP4": [],
}  # fmt: skip


def random_blocks(name: str, count: int, seed: int = 0) -> Blocks:
    """Any bits at all, but factors that are finite numbers of every magnitude."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, BLOCK_TYPES[name].n_bytes), np.uint8)
    for at in HALVES[name]:
        numbers = random.standard_normal(count) * 10.0 ** random.integers(-6, 3, count)
        blocks[:, at : at + 2] = numbers.astype(np.float16)[:, None].view(np.uint8)
    if name == "MXFP4":  # exponents beyond lead out of float32
        blocks[:, 0] = random.integers(0, 248, count)
    return blocks


def convert(tmp_path: Path, name: str, blocks: Blocks, shape: tuple[int, ...]) -> Tensor:
    file = tmp_path / "blocks"
    file.write_bytes(b"\0" * 5 + blocks.tobytes())  # at an odd address
    entry = Entry("w", name, shape, file, 5, 5 + blocks.nbytes)
    return load(plain(entry), Maps())


def test_types_are_numbered_and_sized_as_the_format_says() -> None:
    for name, kind in BLOCK_TYPES.items():
        known = GGMLQuantizationType[name]
        assert kind.number == known
        assert (kind.n_values, kind.n_bytes) == gguf.GGML_QUANT_SIZES[known]


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_number_is_equal(tmp_path: Path, name: str) -> None:
    kind = BLOCK_TYPES[name]
    assert kind.affine is not None
    blocks = random_blocks(name, 3 * 40)
    shape = (40, 3 * kind.n_values)
    tensor = convert(tmp_path, name, blocks, shape)
    expected = dequantize(blocks.reshape(40, -1), GGMLQuantizationType[name])
    assert tensor.shape == shape
    assert tensor.quantized is not None and tensor.quantized.bits == kind.affine.bits
    np.testing.assert_array_equal(values(tensor), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "IQ4_NL"])
def test_scales_of_one_factor_stay_half_precision(tmp_path: Path, name: str) -> None:
    tensor = convert(tmp_path, name, random_blocks(name, 8), (8, 32))
    assert tensor.scales is not None and tensor.scales.dtype == "f16"
    assert (
        tensor.n_bytes
        == plain(Entry("w", name, (8, 32), tmp_path, 0, 8 * BLOCK_TYPES[name].n_bytes)).n_bytes
    )


def test_an_offset_beyond_half_precision_keeps_all_in_float32(tmp_path: Path) -> None:
    blocks = random_blocks("Q8_0", 4)
    blocks[:, :2] = np.full((4, 1), 1000, np.float16).view(np.uint8)
    tensor = convert(tmp_path, "Q8_0", blocks, (4, 32))
    assert tensor.scales is not None and tensor.scales.dtype == "f32"
    np.testing.assert_array_equal(values(tensor), dequantize(blocks, GGMLQuantizationType.Q8_0))


def test_a_quantized_vector_becomes_dense(tmp_path: Path) -> None:
    blocks = random_blocks("Q8_0", 2)
    tensor = convert(tmp_path, "Q8_0", blocks, (64,))
    assert (tensor.shape, tensor.dtype, tensor.quantized) == ((64,), "f32", None)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 5, 6, 8]),
    rows=st.integers(1, 5),
    groups=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_survive_packing(bits: int, rows: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << bits, (rows, 32 * groups), np.uint8)
    words = pack(codes, bits)
    assert words.shape == (rows, groups * bits) and words.dtype == np.uint32
    np.testing.assert_array_equal(unpack(words, bits), codes)
    # One stream of bits, lowest first: what MLX means by it, too.
    stream = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    in_order = stream.reshape(rows, -1, bits) @ (1 << np.arange(bits))
    np.testing.assert_array_equal(in_order, codes)
