"""Compares quantized checkpoints with the libraries that write them, or records what those write.

    python -m tools.conformance_quantized record    # tests/fixtures/quantized.npz
    python -m tools.conformance_quantized check     # live: numbers, then logits of transformers

Needs torch, transformers, compressed-tensors and GPTQModel (`make conformance` makes an environment
that has them). For every case of `quantized_cases.py`, our numbers of each matrix are compared with
the library's own, and the logits of `gangline.load_model` with those of the model that transformers
loads from the same folder, as a user would.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

import gangline
from gangline.checkpoint.affine import ROUNDED_BOUND, values
from gangline.checkpoint.model import open_checkpoint
from tools.quantized_cases import CASES, NEARLY, ROUNDED, Values

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "quantized.npz"
RECORDED = ("self_attn.k_proj", "experts.down_proj")  # the smallest of each model
IDS = list(range(3, 40))
# Relative to the largest logit. The cache of `load_model` and GPTQModel's products are in half
# precision; eight rounded bits, or a model in bf16, are that much away.
EXACT_LOGITS, ROUNDED_LOGITS = 1e-3, 2e-2
# compressed-tensors takes FP4 apart while it computes, into bf16.
IN_BF16 = ("nvfp4", "mxfp4")
# What transformers 5.23 with compressed-tensors 0.20 and GPTQModel 7.7 cannot load here.
NOT_LOADED = {
    "awq-gemv": "GPTQModel has no code for the layout without a GPU",
    "packed-zeros": "transformers expects zero points that are not packed",
}


def number_bound(name: str) -> float:
    """Of the largest magnitude among 64 neighbours."""
    return ROUNDED_BOUND if name.startswith(ROUNDED) else 3e-7 if name.startswith(NEARLY) else 0


def number_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    groups = expected.reshape(-1, min(64, expected.shape[-1])).astype(np.float64)
    errors = np.abs(found.reshape(groups.shape) - groups).max(-1)
    return float((errors / np.maximum(np.abs(groups).max(-1), 1e-30)).max())


def largest_number_error(folder: Path, expected: Values) -> float:
    checkpoint = open_checkpoint(folder)
    return max(
        number_error(values(checkpoint.tensor(name)), numbers.detach().numpy())
        for name, numbers in expected.items()
    )


def logit_error(folder: Path, name: str, backend: str) -> float:
    kind: dict[str, Any] = {"dtype": torch.bfloat16 if name in IN_BF16 else torch.float32}
    if name == "gpt-oss":  # without a GPU transformers computes with dense experts
        kind["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **kind)
    if name not in IN_BF16:  # some methods leave halves; its own `float` refuses quantized models
        torch.nn.Module.float(model)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].float().numpy()
    found = gangline.load_model(folder, backend).logits(IDS)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check(names: list[str], backend: str) -> None:
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            numbers = largest_number_error(folder, CASES[name](folder))
            reason = next((why for case, why in NOT_LOADED.items() if name.startswith(case)), "")
            logits = 0.0 if reason else logit_error(folder, name, backend)
        rounded = name.startswith((*ROUNDED, *IN_BF16))
        good = numbers <= number_bound(name)
        good &= logits <= (ROUNDED_LOGITS if rounded else EXACT_LOGITS)
        shown = f"not compared: {reason}" if reason else f"{logits:.1e}"
        print(f"{name:18} numbers {numbers:.1e}  logits {shown}", flush=True)
        failed += [] if good else [name]
    if failed:
        raise SystemExit(f"beyond the bounds: {', '.join(failed)}")


def record() -> None:
    """One module of each case: the file as its library writes it, and what it means."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, make in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            expected = make(folder)
            with safe_open(folder / "model.safetensors", "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            config = json.loads((folder / "config.json").read_text())
        (of,) = (key for key in expected if any(part in key for part in RECORDED))
        module = of.removesuffix(".weight")
        kept = {
            key: tensor
            for key, tensor in tensors.items()
            if key.startswith(module) and not key.endswith("bias")
        }
        arrays[f"{name}/file"] = np.frombuffer(save(kept), np.uint8)
        arrays[f"{name}/config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
        arrays[f"{name}/name"] = np.array(of)
        arrays[f"{name}/values"] = expected[of].detach().numpy().astype(np.float32)
    np.savez_compressed(FIXTURE, allow_pickle=False, **arrays)
    print(f"{len(CASES)} cases, {FIXTURE.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--backend", default="reference")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the libraries, about themselves
    transformers.logging.set_verbosity_error()
    if chosen.action == "record":
        record()
    else:
        check(chosen.names, chosen.backend)


if __name__ == "__main__":
    main()
