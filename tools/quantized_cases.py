"""Quantized checkpoints of a tiny Llama, each written by the library whose format it is.

GPTQModel packs GPTQ and AWQ, compressed-tensors its own formats, transformers FP8. Numbers are
rounded to the nearest code; what calibration would choose instead is no matter of format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from gptqmodel.nn_modules.qlinear.gemm_awq import AwqGEMMLinear
from gptqmodel.nn_modules.qlinear.gemv_awq import AwqGEMVLinear
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from gptqmodel.quantization.config import QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from safetensors.torch import save_file

Values = dict[str, torch.Tensor]  # tensor → what its library makes of the numbers in the file
CONFIG = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


def tiny() -> Any:
    """The model that is quantized; weights are numbers of bf16, as published ones are."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            scale = 1.0 if "embed" in name else weights.shape[-1] ** -0.5
            if weights.ndim == 2:
                weights.copy_((torch.randn(weights.shape) * scale).bfloat16())
    return model


def linears(model: Any) -> dict[str, torch.nn.Linear]:
    """The matrices of the layers; the output stays dense, as it mostly does."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }


def write(folder: Path, model: Any, quantized: Values, quantization: dict[str, Any]) -> None:
    """The checkpoint: everything as it is, but the matrices as their library keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = {
        re.sub(r"(\.weight\w*|\.q\w+|\.scales|\.g_idx|_blocks|_scales)$", "", n) for n in quantized
    }
    tensors = {
        name: tensor.bfloat16()
        for name, tensor in model.state_dict().items()
        if name.removesuffix(".weight") not in modules
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in (tensors | quantized).items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = {**model.config.to_dict(), "dtype": "bfloat16"}
    config["architectures"] = [type(model).__name__]
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def steps_of(
    weight: torch.Tensor, bits: int, group_size: int, symmetric: bool, clipped: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales (N, groups) in half precision and zero points that cover the numbers of each group,
    `clipped`: or, of every third group, those that are positive."""
    groups = weight.float().reshape(len(weight), -1, group_size)
    top = (1 << bits) - 1
    if symmetric:
        scales = 2 * groups.abs().amax(-1) / top
        zeros = torch.full_like(scales, (top + 1) // 2)
    else:
        low, high = groups.amin(-1), groups.amax(-1)
        if clipped:
            low[:, ::3] = 0  # zero points of zero, which the first version of GPTQ keeps as -1
        scales = (high - low) / top
        zeros = (-low / scales).round().clamp(0, top)
    return scales.half().float(), zeros


def gptq(
    folder: Path,
    bits: int = 4,
    group_size: int = 64,
    version: str = "gptq",
    symmetric: bool = False,
    scattered: bool = False,
) -> Values:
    model = tiny()
    tensors: Values = {}
    values: Values = {}
    for name, linear in linears(model).items():
        columns = linear.in_features
        groups = torch.arange(columns) // group_size
        weight = linear.weight.data
        if scattered:  # the columns of a group are those that calibration put side by side
            order = torch.randperm(columns, generator=torch.Generator().manual_seed(columns))
            weight, groups = weight[:, order], groups[torch.argsort(order)]
        packer = TorchLinear(bits, group_size, symmetric, scattered, columns, linear.out_features)
        packer.pack(linear, *steps_of(weight, bits, group_size, symmetric, True), groups.int())
        packer.scales = packer.scales.half()
        values[f"{name}.weight"] = _dequantized(packer)
        if version == "gptq":
            convert_gptq_v2_to_v1_format_module(packer, QuantizeConfig(bits=bits))
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            tensors[f"{name}.{part}"] = getattr(packer, part).clone()
    config = {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": symmetric}
    config |= {"desc_act": scattered, "checkpoint_format": version}
    write(folder, model, tensors, config)
    return values


def _dequantized(packer: Any) -> torch.Tensor:
    """In float32: the library itself would round to half precision."""
    whole = packer.scales
    packer.scales = whole.float()
    found = packer.dequantize_weight().T.clone()
    packer.scales = whole
    return found


def awq(folder: Path, layout: str = "gemm", group_size: int = 64) -> Values:
    model = tiny()
    tensors: Values = {}
    values: Values = {}
    for name, linear in linears(model).items():
        scales, zeros = steps_of(linear.weight.data, 4, group_size, False)
        _onto_grid(linear, scales, zeros, group_size)
        packed = {
            "gemm": _packed_by(AwqGEMMLinear, linear, group_size, scales, zeros),
            "gemv": _packed_by(AwqGEMVLinear, linear, group_size, scales, zeros),
        }
        # Only for one layout the library has code that takes it apart without a GPU.
        gemm = packed["gemm"]
        parts = (gemm.qweight, gemm.qzeros, gemm.scales.float())
        values[f"{name}.weight"] = dequantize_gemm(*parts, 4, group_size).T
        for part in ("qweight", "qzeros", "scales"):
            tensors[f"{name}.{part}"] = getattr(packed[layout], part).clone()
    config = {"quant_method": "awq", "bits": 4, "group_size": group_size, "version": layout}
    write(folder, model, tensors, config | {"zero_point": True})
    return values


def _onto_grid(
    linear: torch.nn.Linear, scales: torch.Tensor, zeros: torch.Tensor, group_size: int
) -> None:
    """Replace weights by the numbers that codes stand for: AWQ's packers do not clamp."""
    groups = linear.weight.data.reshape(len(scales), -1, group_size)
    codes = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 15)
    numbers = (codes - zeros[..., None]) * scales[..., None]
    linear.weight.data = numbers.reshape(linear.weight.shape)


def _packed_by(
    kind: Any, linear: torch.nn.Linear, group_size: int, scales: torch.Tensor, zeros: torch.Tensor
) -> Any:
    """`pack` of a layer that could only be made on a machine with a GPU: packing needs none."""
    holder = torch.nn.Module()
    for name, value in {
        "bits": 4,
        "group_size": group_size,
        "in_features": linear.in_features,
    }.items():
        setattr(holder, name, value)
    kind.pack(holder, linear, scales.half(), zeros)
    return holder


def compressed(folder: Path, form: str, scales_as: torch.dtype, **weights: Any) -> Values:
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=form)
    compressor = BaseCompressor.get_value_from_registry(form)
    model = tiny()
    tensors: Values = {}
    values: Values = {}
    for name, linear in linears(model).items():
        state = {"weight": linear.weight.data.float(), **_scales(linear.weight.data, weights)}
        state = {
            end: tensor.to(scales_as) if end == "weight_scale" else tensor
            for end, tensor in state.items()
        }
        small = compressor.compress(state, scheme)
        tensors |= {f"{name}.{end}": tensor for end, tensor in small.items()}
        # Rounded once, not in the precision of the scales.
        wide = {
            end: tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
            for end, tensor in small.items()
        }
        values[f"{name}.weight"] = _decompressed(compressor, wide, scheme)
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": scheme.model_dump(mode="json")},
    }
    write(folder, model, tensors, config)
    return values


def _decompressed(compressor: Any, small: Values, scheme: Any) -> torch.Tensor:
    if "weight_global_scale" not in small:
        found: torch.Tensor = compressor.decompress(small, scheme)["weight"]
        return found.float()
    # NVFP4's compressor rounds to bf16; these are its two steps.
    numbers = unpack_fp4_from_uint8(
        small["weight_packed"],
        len(small["weight_packed"]),
        2 * small["weight_packed"].shape[1],
        torch.float32,
    )
    divisor = small["weight_global_scale"]
    scales = small["weight_scale"].float()
    return dequantize(numbers, scales, None, scheme.weights, torch.float32, divisor)


def _scales(weight: torch.Tensor, form: dict[str, Any]) -> Values:
    """Scales and zero points (signed) as the strategy wants them."""
    weight = weight.float()
    columns = weight.shape[1]
    strategy = form["strategy"]
    if strategy == "tensor_group":  # NVFP4
        divisor = (448.0 * 6.0 / weight.abs().max()).reshape(1)
        own = weight.reshape(len(weight), -1, 16).abs().amax(-1) / 6 * divisor
        scales = own.to(torch.float8_e4m3fn).float()
        return {"weight_scale": scales, "weight_global_scale": divisor}
    if strategy == "block":
        rows, width = form["block_structure"]
        beyond = (0, -columns % width, 0, -len(weight) % rows)
        whole = torch.nn.functional.pad(weight, beyond)
        blocks = whole.unfold(0, rows, rows).unfold(1, width, width)
        return {"weight_scale": blocks.abs().amax((-1, -2)) / 448}
    size = {"group": form.get("group_size"), "channel": columns, "tensor": columns}[strategy]
    groups = weight.reshape(len(weight), -1, size)
    if strategy == "tensor":
        groups = weight.reshape(1, 1, -1)
    if form["type"] == "float":
        scales = groups.abs().amax(-1) / (448 if form["num_bits"] == 8 else 6)
        if form["num_bits"] == 4:  # powers of two
            scales = torch.exp2(scales.log2().ceil())
        return {"weight_scale": scales.reshape(-1) if strategy == "tensor" else scales}
    middle = 1 << (form["num_bits"] - 1)
    if form["symmetric"]:
        scales = groups.abs().amax(-1) / (middle - 1)
        return {"weight_scale": scales.reshape(-1) if strategy == "tensor" else scales}
    low, high = groups.amin(-1), groups.amax(-1)
    scales = (high - low) / (2 * middle - 1)
    points = ((-low / scales).round() - middle).clamp(-middle, middle - 1)
    return {"weight_scale": scales, "weight_zero_point": points.to(torch.int8)}


def fp8(folder: Path, block: tuple[int, int] | None = (32, 64)) -> Values:
    """transformers' own quantizer, and what it makes of the file again."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

    config = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None,
        "modules_to_not_convert": ["lm_head"],
    }
    own = transformers.FineGrainedFP8Config(weight_block_size=block, activation_scheme="dynamic")

    class Quantizer:
        quantization_config = own

    model = tiny()
    tensors: Values = {}
    values: Values = {}
    for name, linear in linears(model).items():
        weight = linear.weight.data.float()
        small = Fp8Quantize(Quantizer()).convert({f"{name}.weight": weight})
        tensors |= small
        values[f"{name}.weight"] = _fp8_again(Fp8Dequantize(Quantizer()), small, name)
    write(folder, model, tensors, config)
    return values


def _fp8_again(operation: Any, small: Values, name: str) -> torch.Tensor:
    weight, scales = small[f"{name}.weight"], small[f"{name}.weight_scale_inv"]
    found: torch.Tensor = operation._dequantize_one(weight, scales.float())
    return found.float()


def gpt_oss(folder: Path) -> Values:
    """Experts of random blocks, as a gpt-oss checkpoint has them, and transformers' reading."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(1)
    own = {**CONFIG, "hidden_size": 64, "intermediate_size": 32, "head_dim": 16}
    own |= {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 16}
    model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**own)).eval()
    for weights in model.parameters():
        weights.data = weights.data.bfloat16().float()
    tensors, values = {}, {}
    experts = "model.layers.0.mlp.experts"
    for name, shape in {"gate_up_proj": (3, 64, 2, 16), "down_proj": (3, 64, 1, 16)}.items():
        blocks = torch.randint(0, 256, shape, dtype=torch.uint8)
        exponents = torch.randint(122, 126, shape[:-1], dtype=torch.uint8)
        tensors[f"{experts}.{name}_blocks"] = blocks
        tensors[f"{experts}.{name}_scales"] = exponents
        found = convert_moe_packed_tensors(blocks, exponents, dtype=torch.float32)
        values[f"{experts}.{name}"] = found.swapaxes(1, 2)  # it transposes for its own layers
    write(folder, model, tensors, {"quant_method": "mxfp4"})
    return values


INT: dict[str, Any] = {"type": "int", "symmetric": True, "strategy": "group"}
FLOAT: dict[str, Any] = {"type": "float", "num_bits": 8, "symmetric": True}
packed = partial(compressed, form="pack-quantized", scales_as=torch.bfloat16)

# Case → what writes it.
CASES: dict[str, Callable[[Path], Values]] = {
    **{f"gptq-{bits}": partial(gptq, bits=bits) for bits in (2, 3, 4, 8)},
    **{f"gptq-v2-{bits}": partial(gptq, bits=bits, version="gptq_v2") for bits in (3, 4)},
    "gptq-sym": partial(gptq, symmetric=True, group_size=128),
    "gptq-desc-act": partial(gptq, scattered=True),
    "gptq-desc-act-3": partial(gptq, scattered=True, bits=3),
    "awq": awq,
    "awq-128": partial(awq, group_size=128),
    "awq-gemv": partial(awq, layout="gemv"),
    "awq-gemv-128": partial(awq, layout="gemv", group_size=128),
    **{
        f"packed-{bits}": partial(packed, num_bits=bits, group_size=32, **INT)
        for bits in (2, 3, 4, 5, 6, 7, 8)
    },
    **{
        f"packed-zeros-{bits}": partial(
            packed, num_bits=bits, group_size=128, **{**INT, "symmetric": False}
        )
        for bits in (3, 4, 8)
    },
    "packed-channel": partial(packed, num_bits=4, **{**INT, "strategy": "channel"}),
    **{
        f"int8-{strategy}": partial(
            compressed,
            form="int-quantized",
            scales_as=torch.bfloat16,
            num_bits=8,
            **{**INT, "strategy": strategy},
        )
        for strategy in ("channel", "tensor")
    },
    **{
        f"float8-{strategy}": partial(
            compressed, form="float-quantized", scales_as=torch.float32, strategy=strategy, **FLOAT
        )
        for strategy in ("channel", "tensor")
    },
    "float8-block": partial(
        compressed,
        form="float-quantized",
        scales_as=torch.float32,
        strategy="block",
        block_structure=[128, 128],
        **FLOAT,
    ),
    **{
        name: partial(
            compressed,
            form=f"{name}-pack-quantized",
            scales_as=torch.float32,
            strategy=strategy,
            group_size=group_size,
            **{**FLOAT, "num_bits": 4},
        )
        for name, strategy, group_size in (("nvfp4", "tensor_group", 16), ("mxfp4", "group", 32))
    },
    "gpt-oss": gpt_oss,
    "fp8": fp8,
    "fp8-whole": partial(fp8, block=None),
}
# Cases (by how they begin) that become eight bits with a stated bound; all others stay equal.
ROUNDED = ("gptq-desc-act", "float8", "fp8")
# FP4 with two scales: their quotient is rounded once more on the way, in float32.
NEARLY = ("nvfp4",)
