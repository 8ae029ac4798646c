"""An opened model: its shape, and its tensors by name (a quantized triple is one tensor)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gangline.checkpoint.config import read_config, read_shape
from gangline.checkpoint.describe import Sizes, fingerprint_of, sizes_of
from gangline.checkpoint.headers import REDOWNLOAD, Entry, read_entries
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.shape import GroupAffine, ModelShape
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError

_FLOATS = ("F32", "F16", "BF16")


class Checkpoint:
    """Made by `open_checkpoint`. Tensors are views of memory maps and stay valid by themselves."""

    def __init__(
        self,
        path: Path,
        shape: ModelShape,
        config: Mapping[str, Any],
        entries: Mapping[str, Entry],
    ) -> None:
        self.path = path
        self.shape = shape
        self._config = config
        self._entries = entries
        self._maps = Maps()

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names as they are in the files."""
        return tuple(self._entries)

    @property
    def size_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self._entries.values())

    @property
    def sizes(self) -> Sizes:
        """Bytes per layer, of the embedding and of the output."""
        return sizes_of(self._entries, self.shape)

    def fingerprint(self) -> str:
        """Equal on two machines exactly when configs and tensor headers are equal."""
        return fingerprint_of(self._config, self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def tensor(self, name: str) -> Tensor:
        """Tensor `name`; a `….weight` that has `….scales` comes with them as one tensor."""
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.path} has no tensor `{name}`", hint=REDOWNLOAD)
        module = name.removesuffix(".weight")
        if module != name and f"{module}.scales" in self._entries:
            return self._quantized(module, entry)
        return self._maps.tensor(entry)

    def forget(self, tensor: Tensor) -> None:
        """Tell that a tensor was copied: its part of the file need not stay in memory."""
        for part in (tensor, tensor.scales, tensor.offsets):
            if part is not None:
                self._maps.forget(self._entries[part.name])

    def _quantized(self, module: str, entry: Entry) -> Tensor:
        form = self.shape.quantization.of(module) if self.shape.quantization else None
        if form is None:
            raise CheckpointError(
                f"{entry.file}: tensor `{module}.scales` exists, but config.json does not say how "
                f"`{module}` is quantized",
                hint=REDOWNLOAD,
            )
        scales = self._part(f"{module}.scales", entry)
        offsets = self._part(f"{module}.biases", entry)
        shape = _check_quantized(entry, scales, offsets, form)
        return Tensor(
            name=entry.name,
            dtype="u32",
            shape=shape,
            data=self._maps.tensor(entry).data,
            quantized=form,
            scales=self._maps.tensor(scales),
            offsets=self._maps.tensor(offsets),
        )

    def _part(self, name: str, of: Entry) -> Entry:
        part = self._entries.get(name)
        if part is None:
            raise CheckpointError(
                f"{of.file}: tensor `{of.name}` is quantized, but `{name}` is missing",
                hint=REDOWNLOAD,
            )
        return part


def open_checkpoint(folder: Path | str) -> Checkpoint:
    """Read config and headers of a model folder; no weight is touched yet."""
    folder = Path(folder)
    return Checkpoint(folder, read_shape(folder), read_config(folder), read_entries(folder))


def _check_quantized(
    weight: Entry, scales: Entry, offsets: Entry, form: GroupAffine
) -> tuple[int, ...]:
    """Packed words, scales and offsets agree with each other; returns (N, K) or (E, N, K)."""
    fits = (
        weight.dtype == "U32"
        and scales.dtype in _FLOATS
        and offsets.dtype == scales.dtype
        and len(weight.shape) in (2, 3)  # 3: experts, stacked
        and offsets.shape == scales.shape
        and weight.shape[:-1] == scales.shape[:-1]
        and weight.shape[-1] * 32 == scales.shape[-1] * form.group_size * form.bits
    )
    if not fits:
        raise CheckpointError(
            f"{weight.file}: tensor `{weight.name}` {weight.dtype} {list(weight.shape)} with "
            f"scales {scales.dtype} {list(scales.shape)} and biases {offsets.dtype} "
            f"{list(offsets.shape)} is not {form.bits}-bit in groups of {form.group_size}",
            hint="config.json and the weights belong to different conversions.",
        )
    return *weight.shape[:-1], scales.shape[-1] * form.group_size
