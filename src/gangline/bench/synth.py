"""Writes a checkpoint of a named shape with random weights, tensor by tensor.

The weights are about N(0, 1/sqrt(K)), so that hidden states keep their size; quantized codes are
drawn directly and uniformly. The same shape, quant, layers and seed give the same bytes. There
is no tokenizer. The folder appears under its name when it is whole.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from gangline.bench.layout import QUANTS, Part, parts_of, quantization_of
from gangline.bench.shapes import SHAPES
from gangline.checkpoint.config import CONFIG_NAME
from gangline.checkpoint.headers import INDEX_NAME, SINGLE_NAME
from gangline.errors import Conflict, DoesNotFit, GanglineError, NotFound, UsageError

SHARD_BYTES = 4_000_000_000  # Hugging Face's shards are about as large
_BLOCK_BYTES = 16 << 20  # drawn and written at a time
_N_NORMALS = 1 << 16  # different values of dense weights: drawing an index is fast
_SLACK_BYTES = 64 << 20  # what has to stay free on the disk

Progress = Callable[[float], None]


class Written(msgspec.Struct, frozen=True):
    """A finished checkpoint."""

    path: str
    shape: str
    quant: str
    n_layers: int
    n_tensors: int
    n_files: int
    size_bytes: int
    seed: int
    source: str


def synthesize(
    shape: str,
    quant: str,
    out: Path,
    *,
    layers: int | None = None,
    seed: int = 0,
    progress: Progress = lambda fraction: None,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write the checkpoint into the new folder `out`; an interruption leaves nothing behind."""
    config = config_of(shape, quant, layers)
    parts = parts_of(config, QUANTS[quant])
    size_bytes = sum(part.n_bytes for part in parts)
    partial = out.with_name(f"{out.name}.partial")
    _make_folder(out, partial, size_bytes)
    try:
        _write_json(partial / CONFIG_NAME, config)
        shards = _shards(parts, shard_bytes)
        _write_weights(partial, shards, seed, progress)
        partial.rename(out)
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Written(
        path=str(out),
        shape=shape,
        quant=quant,
        n_layers=config["num_hidden_layers"],
        n_tensors=len(parts),
        n_files=len(shards),
        size_bytes=size_bytes,
        seed=seed,
        source=SHAPES[shape].source,
    )


def config_of(shape: str, quant: str, layers: int | None = None) -> dict[str, Any]:
    """The config.json of a shape, cut to its first `layers`, with MLX's quantization."""
    if shape not in SHAPES:
        raise NotFound(f"no shape `{shape}`", hint=f"these are known: {', '.join(SHAPES)}")
    if quant not in QUANTS:
        raise UsageError(
            f"quant `{quant}` is not known, expected one of {', '.join(QUANTS)}", param="quant"
        )
    config = dict(SHAPES[shape].config)
    if layers is not None:
        if not 1 <= layers <= config["num_hidden_layers"]:
            raise UsageError(
                f"{layers} layers of `{shape}`, which has {config['num_hidden_layers']}",
                hint=f"give a number from 1 to {config['num_hidden_layers']}",
                param="layers",
            )
        config["num_hidden_layers"] = layers
    bits = QUANTS[quant]
    if bits is not None:
        form = quantization_of(config, bits)
        config |= {"quantization": form, "quantization_config": form}  # mlx-lm writes both
    return config


def _make_folder(out: Path, partial: Path, size_bytes: int) -> None:
    """Make the unfinished folder, beside `out`, once nothing speaks against it."""
    if out.exists():
        raise Conflict(f"{out} exists already", hint="give a new folder, or remove this one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise _cannot_write(out, error) from error
    if free_bytes < size_bytes + _SLACK_BYTES:
        raise DoesNotFit(
            f"the checkpoint has {size_bytes / 1e9:.1f} GB, the disk of {out.parent} has "
            f"{free_bytes / 1e9:.1f} GB free",
            hint="choose another disk, fewer --layers or a smaller --quant",
        )
    try:
        partial.mkdir()
    except FileExistsError as error:
        raise Conflict(
            f"{partial} exists already",
            hint="another `gangline synth` writes it, or was killed: then remove it",
        ) from error
    except OSError as error:
        raise _cannot_write(out, error) from error


def _cannot_write(out: Path, error: OSError) -> GanglineError:
    return GanglineError(f"cannot write {out}: {error.strerror or error}")


def _shards(parts: list[Part], shard_bytes: int) -> list[list[Part]]:
    """Cut into files of at most `shard_bytes`, unless one tensor alone has more."""
    shards: list[list[Part]] = [[]]
    filled = 0
    for part in parts:
        if shards[-1] and filled + part.n_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(part)
        filled += part.n_bytes
    return shards


def _write_weights(folder: Path, shards: list[list[Part]], seed: int, progress: Progress) -> None:
    total = sum(part.n_bytes for shard in shards for part in shard)
    random = np.random.Generator(np.random.SFC64(seed))
    normals = random.standard_normal(_N_NORMALS, np.float32)
    written = 0
    shard_of: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE_NAME
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        shard_of |= {part.name: name for part in shard}
        with (folder / name).open("wb") as stream:
            _write_header(stream, shard)
            for part in shard:
                for block in _blocks(part, seed, random, normals):
                    stream.write(block)  # type: ignore[arg-type]  # any buffer will do
                    written += block.nbytes
                    progress(written / total)
    if len(shards) > 1:
        _write_json(
            folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": shard_of}
        )


def _write_header(stream: BinaryIO, parts: list[Part]) -> None:
    """u64 length, JSON, padded to 8 bytes: https://huggingface.co/docs/safetensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    position = 0
    for part in parts:
        end = position + part.n_bytes
        offsets = [position, end]
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)


def _blocks(
    part: Part, seed: int, random: np.random.Generator, normals: NDArray[np.float32]
) -> Iterator[NDArray[Any]]:
    """The tensor's bytes in order, a block at a time.

    Uniform codes of `bits` have a standard deviation of `sqrt((4^bits - 1) / 12)` steps, which
    gives the size of a step; scales vary by a quarter around it. The offset is -8 steps of 4 bits
    (-128 of 8) exactly, so the scales of the matrix are drawn a second time for them.
    """
    n, columns, bits = prod(part.shape), part.columns, part.bits
    if part.content == "one":
        yield np.full(n, 0x3F80, np.uint16) if part.dtype == "BF16" else np.ones(n, np.float16)
    elif part.content == "zero":
        yield np.zeros(n, np.uint16)
    elif part.content == "dense":
        values = _bf16(normals * np.float32(columns**-0.5))
        for count in _counts(n, 2):
            yield values[random.integers(0, _N_NORMALS, count, np.uint16)]
    elif part.content == "codes":
        for count in _counts(n, 4):
            yield random.integers(0, 1 << 32, count, np.uint32)
    else:
        step = (columns * (4**bits - 1) / 12) ** -0.5
        module = crc32(part.name.rpartition(".")[0].encode())
        own = np.random.Generator(np.random.SFC64([seed, module]))
        factor = 1 if part.content == "scales" else -(2 ** (bits - 1))
        for count in _counts(n, 2):
            scales = (step * (0.75 + 0.5 * own.random(count, np.float32))).astype(np.float16)
            yield scales * np.float16(factor)


def _counts(n: int, item_bytes: int) -> Iterator[int]:
    """How many of `n` numbers go into each block."""
    most = _BLOCK_BYTES // item_bytes
    for start in range(0, n, most):
        yield min(most, n - start)


def _bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Truncated: random numbers need no rounding."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
