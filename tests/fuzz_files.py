"""Damaged model files into the readers: our error with the file's name, or a sound model.

    python -m tests.fuzz_files [--count 10000] [--seed 0]

Half of the attempts are GGUF files with a tokenizer, half are safetensors. Bytes are flipped,
lengths and offsets replaced by extreme ones, parts cut out, repeated or put elsewhere. What can be
opened is read whole: shape, every tensor, the tokenizer. Memory stays what it was.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gangline.checkpoint.contents import gguf_file
from gangline.checkpoint.gguf import read_gguf
from gangline.checkpoint.model import open_checkpoint
from gangline.errors import GanglineError
from gangline.head.gguf_language import read_gguf_language
from tests.engine.fixtures import read_case
from tests.make_checkpoint import make_checkpoint, write_safetensors
from tests.make_gguf import make_gguf
from tests.make_tokenizer import VOCABULARY, make_tokenizer

LEAK_BYTES = 128 << 20  # far above noise, far below what an absurd length would ask for
SLOW_S = 5.0  # for one file of some kilobytes
WEIGHTS = "model.safetensors"
FAMILIES = ("deepseek_v3", "gpt_oss", "gemma3", "phi3", "qwen3_next")
# Method → its config, its tensors: ending → dtype and shape.
QUANTIZED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]] = {
    "gptq": (
        {"bits": 4},
        {
            ".qweight": ("int32", (8, 16)),
            ".qzeros": ("int32", (2, 2)),
            ".scales": ("float16", (2, 16)),
            ".g_idx": ("int32", (64,)),
        },
    ),
    "awq": (
        {"bits": 4},
        {
            ".qweight": ("int32", (64, 2)),
            ".qzeros": ("int32", (2, 2)),
            ".scales": ("float16", (2, 16)),
        },
    ),
    "gptq 3 bits": (
        {"bits": 3, "desc_act": True},
        {
            ".qweight": ("int32", (6, 32)),
            ".qzeros": ("int32", (2, 3)),
            ".scales": ("float16", (2, 32)),
            ".g_idx": ("int32", (64,)),
        },
    ),
    "awq gemv": (
        {"bits": 4, "version": "gemv"},
        {
            ".qweight": ("int32", (16, 8)),
            ".qzeros": ("int32", (16, 2)),
            ".scales": ("float16", (16, 16)),
        },
    ),
    "compressed-tensors": (
        {
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
        },
        {
            ".weight_packed": ("int32", (16, 8)),
            ".weight_scale": ("float16", (16, 2)),
            ".weight_zero_point": ("int32", (2, 2)),
            ".weight_g_idx": ("int32", (64,)),
        },
    ),
    "compressed-tensors int8": (
        {"format": "int-quantized"},
        {
            ".weight": ("int8", (16, 64)),
            ".weight_scale": ("float32", (16, 1)),
            ".weight_zero_point": ("int8", (16, 1)),
        },
    ),
    "compressed-tensors nvfp4": (
        {"format": "nvfp4-pack-quantized"},
        {
            ".weight_packed": ("uint8", (16, 32)),
            ".weight_scale": ("uint8", (16, 4)),
            ".weight_global_scale": ("float32", (1,)),
        },
    ),
    "fp8": (
        {"weight_block_size": [128, 128]},
        {".weight": ("uint8", (16, 64)), ".weight_scale_inv": ("float32", (1, 1))},
    ),
    "mxfp4": ({}, {"_blocks": ("uint8", (2, 4, 2, 16)), "_scales": ("uint8", (2, 4, 2))}),
}
EXTREMES = (0, 1, 7, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read damaged model files")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        refused = attack(Path(folder), arguments.count, random.Random(arguments.seed))
    print(f"{arguments.count} damaged files: {refused} refused by name, none crashed or was slow")


def attack(folder: Path, count: int, dice: random.Random) -> int:
    """`count` attempts, how many files were refused; AssertionError where one was not borne."""
    model = make_tokenizer(make_checkpoint(folder / "m", n_layers=1, vocab=VOCABULARY, ffn=32))
    kinds = ("Q8_0", "Q4_0", "F16")
    good = [make_gguf(folder / f"{k}.gguf", model, k, "gpt-2").read_bytes() for k in kinds]
    good += [of_family(folder / name, name).read_bytes() for name in FAMILIES]
    folders = [model, *quantized(folder)]
    weights = [(of / WEIGHTS).read_bytes() for of in folders]
    refused = 0
    warnings.simplefilter("ignore", RuntimeWarning)  # numbers that are none, infinite scales
    read_all(model)
    before = peak_bytes()
    for attempt in range(count):
        if attempt % 2:
            file = path = folder / "damaged.gguf"
            whole = dice.choice(good)
        else:
            chosen = dice.randrange(len(folders))
            path, whole = folders[chosen], weights[chosen]
            file = path / WEIGHTS
        file.write_bytes(damaged(whole, dice))
        started = time.monotonic()
        try:
            read_all(path)
        except GanglineError as error:
            refused += 1
            assert file.name in error.message, f"attempt {attempt}: {error.message}"
        seconds = time.monotonic() - started
        assert seconds < SLOW_S, f"attempt {attempt} took {seconds:.1f} s"
    grown = peak_bytes() - before
    assert grown < LEAK_BYTES, f"memory grew by {grown} bytes"
    return refused


def of_family(folder: Path, name: str) -> Path:
    """A small model of a family as a GGUF file."""
    folder.mkdir()
    read_case(name, folder)
    return make_gguf(folder / "model.gguf", folder, "F32")


def quantized(folder: Path) -> list[Path]:
    """Models of one quantized matrix each, whose bits mean nothing."""
    made = []
    for name, (config, shapes) in QUANTIZED.items():
        method = name.partition(" ")[0]
        extra = {"quantization_config": {"quant_method": method, **config}}
        made.append(make_checkpoint(folder / name, n_layers=1, extra=extra))
        arrays = {
            f"model.layers.0.mlp.up_proj{end}": np.full(shape, 1, kind)
            for end, (kind, shape) in shapes.items()
        }
        end = {"fp8": ".weight", "compressed-tensors nvfp4": ".weight_scale"}.get(name)
        dtypes = {at: "F8_E4M3" for at in arrays if end is not None and at.endswith(end)}
        write_safetensors(made[-1] / WEIGHTS, arrays, dtypes)
        read_all(made[-1])  # whole, it is sound
    return made


def read_all(path: Path) -> None:
    """Everything that a worker would read."""
    checkpoint = open_checkpoint(path)
    assert sum(checkpoint.sizes.layers) >= 0
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        assert tensor.n_bytes >= 0
        checkpoint.forget(tensor)
    file = gguf_file(path)
    if file is not None:
        gguf = read_gguf(file)
        if "tokenizer.ggml.tokens" not in gguf.metadata:
            return
        tokenizer = read_gguf_language(gguf).tokenizer
        tokenizer.decode(tokenizer.encode("Sled dogs, 狗 and 🐕").ids)


def damaged(whole: bytes, dice: random.Random) -> bytes:
    data = bytearray(whole)
    # Most of what can go wrong is in the first kilobytes.
    within = len(data) if dice.random() < 0.3 else min(len(data), 6000)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(within)
        match dice.randrange(6):
            case 0 | 1:
                data[at] = dice.randrange(256)
            case 2 | 3:
                number = struct.pack("<Q", dice.choice(EXTREMES))
                width = dice.choice((4, 8))
                data[at : at + width] = number[:width]
            case 4:
                del data[at : at + dice.randrange(1, 64)]
            case _:
                start = dice.randrange(within)
                data[at:at] = data[start : start + dice.randrange(1, 200)]
        within = max(1, min(within, len(data)))
    if dice.random() < 0.1:
        del data[dice.randrange(len(data)) :]
    return bytes(data)


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
