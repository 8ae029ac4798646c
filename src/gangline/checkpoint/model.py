"""An opened model: its shape, and its tensors by name, in a form that back ends take."""

from __future__ import annotations

import logging
from pathlib import Path

from gangline.checkpoint.contents import Contents, read_contents
from gangline.checkpoint.convert import load
from gangline.checkpoint.describe import Sizes, fingerprint_of, sizes_of, unused
from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.parts import Part
from gangline.checkpoint.safetensors import Maps
from gangline.checkpoint.shape import ModelShape
from gangline.checkpoint.tensors import Tensor
from gangline.errors import CheckpointError

log = logging.getLogger(__name__)


class Checkpoint:
    """Made by `open_checkpoint`. Tensors stay valid by themselves."""

    def __init__(self, contents: Contents, shape: ModelShape) -> None:
        self.path = contents.path
        self.shape = shape
        self._contents = contents
        self._parts: dict[str, Part] = contents.parts(shape)
        self._maps = Maps()

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that can be asked for."""
        return tuple(self._parts)

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(entry.n_bytes for entry in self._contents.entries.values())

    @property
    def sizes(self) -> Sizes:
        """Bytes per layer, of the embedding and of the output."""
        return sizes_of(self._parts, self.shape)

    @property
    def unused(self) -> dict[str, int]:
        """What the file has besides the text model: place → number of tensors."""
        return unused(self._parts, self.shape)

    def fingerprint(self) -> str:
        """Equal on two machines exactly when configs and tensor headers are equal."""
        return fingerprint_of(self._contents.config, self._contents.entries)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def tensor(self, name: str) -> Tensor:
        """Tensor `name`, converted; the bytes are read now."""
        part = self._parts.get(name)
        if part is None:
            raise CheckpointError(f"{self.path} has no tensor `{name}`", hint=REDOWNLOAD)
        return load(part, self._maps)

    def forget(self, tensor: Tensor) -> None:
        """Tell that a tensor was copied: its part of the file need not stay in memory."""
        for entry in self._parts[tensor.name].entries:
            self._maps.forget(entry)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read config and headers of a model; no weight is touched yet. What the file has besides the
    text model is logged."""
    contents = read_contents(Path(path))
    checkpoint = Checkpoint(contents, contents.shape())
    if checkpoint.unused:
        parts = ", ".join(f"{place} ({n} tensors)" for place, n in checkpoint.unused.items())
        log.info("%s: not used, since it does not serve text: %s", path, parts)
    return checkpoint
