"""How a checkpoint's config says that weights are quantized; knows no tensor.

Each method that a config may name is a struct, or an error that names it. Which tensors really
are quantized, the files say (`parts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from gangline.checkpoint.faults import bad_field

MLX_BITS = (2, 3, 4, 5, 6, 8)
MLX_GROUP_SIZES = (32, 64, 128)
MLX_MODES = ("affine", "mxfp4")
GPTQ_BITS = (2, 3, 4, 8)
AWQ_LAYOUTS = ("gemm", "gemv")
# Formats of compressed-tensors; which one a module has, its tensors say.
COMPRESSED_FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
    "nvfp4-pack-quantized",
    "mixed-precision",
)


class GroupAffine(msgspec.Struct, frozen=True):
    """How the numbers of a quantized matrix are meant: `w = scale * q + offset` per group."""

    bits: int
    group_size: int


class Quantization(msgspec.Struct, frozen=True, tag="mlx"):
    """MLX's `quantization`: one form for all matrices, and the modules that differ.

    An override of `None` says that the module is dense.
    """

    default: GroupAffine
    overrides: dict[str, GroupAffine | None] = {}

    def of(self, module: str) -> GroupAffine | None:
        """The form of module `model.layers.0.mlp.up_proj`, say."""
        return self.overrides.get(module, self.default)


class Gptq(msgspec.Struct, frozen=True, tag="gptq"):
    """`zero_offset` is 1 in the first version, whose files hold zero points less one.

    `scattered`: columns were quantized in an order of their own (`desc_act`), so that those of a
    group need not be neighbours. Bits may differ between modules: their tensors say.
    """

    bits: int
    zero_offset: int
    scattered: bool = False


class Awq(msgspec.Struct, frozen=True, tag="awq"):
    """4-bit codes with zero points. `gemm` keeps the transposed matrix and shuffles each word,
    `gemv` does neither and pads the groups."""

    layout: Literal["gemm", "gemv"] = "gemm"
    bits: int = 4


class Packed(msgspec.Struct, frozen=True, tag="packed"):
    """compressed-tensors. `bits` are those of whole numbers in words; 0 where there are none."""

    bits: int


class Fp8(msgspec.Struct, frozen=True, tag="fp8"):
    """E4M3 numbers, one inverse scale for each block of rows x columns; 0 and 0: one for a row
    or one for all, as the scales' shape says."""

    rows: int
    columns: int


class Mxfp4(msgspec.Struct, frozen=True, tag="mxfp4"):
    """Blocks of 32 FP4 numbers with a power of two: gpt-oss's experts."""


Method = Quantization | Gptq | Awq | Packed | Fp8 | Mxfp4


def quantization_of(config: Mapping[str, Any], file: Path) -> Method | None:
    """The method that a config names, if any; `CheckpointError` where it cannot be run."""
    own, other = _object(config.get("quantization")), _object(config.get("quantization_config"))
    if own or (other and "quant_method" not in other):
        return _mlx(file, own or other)
    if not other:
        return None
    method = other["quant_method"]
    if not isinstance(method, str) or method not in _READERS:
        raise bad_field(
            file, "quantization_config", method, f"one of {', '.join(_READERS)}, or MLX's"
        )
    return _READERS[method](file, other)


def _mlx(file: Path, found: dict[str, Any]) -> Quantization:
    overrides: dict[str, GroupAffine | None] = {}
    for name, value in found.items():
        if value is False:
            overrides[name] = None
        elif isinstance(value, dict):
            # The mode of a module that says none is affine, whatever all others have.
            whole = {**found, "mode": None, **value}
            overrides[name] = _group_affine(file, f"quantization.{name}", whole)
    return Quantization(_group_affine(file, "quantization", found), overrides)


def _group_affine(file: Path, name: str, value: dict[str, Any]) -> GroupAffine:
    bits, group_size, mode = value.get("bits"), value.get("group_size"), value.get("mode")
    if mode is not None and mode not in MLX_MODES:
        raise bad_field(file, f"{name}.mode", mode, f"one of {', '.join(MLX_MODES)}")
    if mode == "mxfp4" and (bits, group_size) != (4, 32):
        raise bad_field(file, name, f"{bits} bits in groups of {group_size}", "mxfp4's 4 and 32")
    if type(bits) is not int or bits not in MLX_BITS:
        raise bad_field(file, f"{name}.bits", bits, f"one of {MLX_BITS}")
    if type(group_size) is not int or group_size not in MLX_GROUP_SIZES:
        raise bad_field(file, f"{name}.group_size", group_size, f"one of {MLX_GROUP_SIZES}")
    return GroupAffine(bits, group_size)


def _gptq(file: Path, found: dict[str, Any]) -> Gptq:
    version = found.get("checkpoint_format", "gptq")
    if version not in ("gptq", "gptq_v2"):
        raise bad_field(file, "quantization_config.checkpoint_format", version, "gptq or gptq_v2")
    bits = found.get("bits")
    if type(bits) is not int or bits not in GPTQ_BITS:
        raise bad_field(file, "quantization_config.bits", bits, f"one of {GPTQ_BITS}")
    return Gptq(bits, 1 if version == "gptq" else 0, found.get("desc_act") is True)


def _awq(file: Path, found: dict[str, Any]) -> Awq:
    layout = str(found.get("version", found.get("format", "gemm"))).lower()
    if layout not in AWQ_LAYOUTS:
        raise bad_field(
            file, "quantization_config.version", layout, f"one of {', '.join(AWQ_LAYOUTS)}"
        )
    bits = found.get("bits", found.get("w_bit"))
    if bits != 4:
        raise bad_field(file, "quantization_config.bits", bits, "4")
    return Awq("gemv" if layout == "gemv" else "gemm")


def _packed(file: Path, found: dict[str, Any]) -> Packed:
    groups = _object(found.get("config_groups")).values()
    formats = [found.get("format"), *(_object(group).get("format") for group in groups)]
    for form in formats:
        if form is not None and form not in COMPRESSED_FORMATS:
            raise bad_field(
                file, "quantization_config.format", form, f"one of {', '.join(COMPRESSED_FORMATS)}"
            )
    bits = {_whole_bits(file, _object(_object(group).get("weights"))) for group in groups} - {0}
    if len(bits) > 1:
        raise bad_field(
            file, "quantization_config.config_groups", sorted(bits), "one number of bits"
        )
    return Packed(bits.pop() if bits else 0)


def _whole_bits(file: Path, weights: dict[str, Any]) -> int:
    """Bits of whole numbers; 0 for numbers with an exponent."""
    if not weights or weights.get("type", "int") != "int":
        return 0
    bits = weights.get("num_bits")
    if type(bits) is not int or not 2 <= bits <= 8:
        raise bad_field(file, "quantization_config weights.num_bits", bits, "2 to 8")
    return bits


def _fp8(file: Path, found: dict[str, Any]) -> Fp8:
    form = found.get("fmt") or "e4m3"
    if form != "e4m3":
        raise bad_field(file, "quantization_config.fmt", form, "e4m3")
    size = found.get("weight_block_size")
    if size is None:
        return Fp8(0, 0)
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(n) is int and 1 <= n <= 65_536 for n in size)
    ):
        raise bad_field(file, "quantization_config.weight_block_size", size, "[rows, columns]")
    return Fp8(*size)


def _mxfp4(file: Path, found: dict[str, Any]) -> Mxfp4:
    return Mxfp4()


_READERS: dict[str, Callable[[Path, dict[str, Any]], Method]] = {
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _packed,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
