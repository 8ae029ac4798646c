"""Tensors of a model's files, read in place through memory maps.

A file is mapped when the first tensor of it is asked for, and only the pages of tensors that are
used are ever read. Headers were checked by `headers.py`; knows nothing of models.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.faults import REDOWNLOAD
from gangline.checkpoint.headers import Entry
from gangline.checkpoint.tensors import DType, Tensor
from gangline.errors import CheckpointError

# dtype of the format → (our tag, the array type that holds its bits).
DTYPES: dict[str, tuple[DType, type[np.generic]]] = {
    "F32": ("f32", np.float32),
    "F16": ("f16", np.float16),
    "BF16": ("bf16", np.uint16),
    "I8": ("i8", np.int8),
    "U8": ("u8", np.uint8),
    "I32": ("i32", np.int32),
    "U32": ("u32", np.uint32),
    "I64": ("i64", np.int64),
}

assert sys.byteorder == "little", "weights are read in place, the files are little-endian"


class Maps:
    """The memory maps of a model's files, opened on demand."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def tensor(self, entry: Entry) -> Tensor:
        """The tensor's bits in place; nothing is copied."""
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{entry.file}: tensor `{entry.name}` has dtype {entry.dtype}, which cannot be run",
                hint=f"Supported: {', '.join(DTYPES)}.",
            )
        tag, kind = DTYPES[entry.dtype]
        return Tensor(entry.name, tag, entry.shape, self._array(entry, kind))

    def forget(self, entry: Entry) -> None:
        """Give back the pages of a tensor that was copied; they are read again if it is used."""
        mapped = self._maps.get(entry.file)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            start = entry.start - entry.start % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, start, entry.end - start)

    def _array(self, entry: Entry, kind: type[np.generic]) -> NDArray[np.generic]:
        return self.octets(entry).view(kind).reshape(entry.shape)

    def octets(self, entry: Entry) -> NDArray[np.uint8]:
        """A tensor's bytes in place, whatever its dtype."""
        if entry.n_bytes == 0:
            return np.empty(0, np.uint8)
        mapped = self._maps.get(entry.file)
        if mapped is None:
            mapped = self._maps[entry.file] = _map(entry.file)
        if len(mapped) < entry.end:
            raise CheckpointError(
                f"{entry.file}: tensor `{entry.name}` ends at byte {entry.end}, the file has "
                f"{len(mapped)} now (it changed since it was opened)",
                hint=REDOWNLOAD,
            )
        _will_need(mapped, entry)
        return np.frombuffer(mapped, np.uint8, entry.n_bytes, entry.start)


def _map(file: Path) -> mmap.mmap:
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot map {file}: {error}") from error


def _will_need(mapped: mmap.mmap, entry: Entry) -> None:
    """Let the system read ahead; where it cannot, pages arrive when they are first used."""
    if hasattr(mmap, "MADV_WILLNEED"):
        start = entry.start - entry.start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start, entry.end - start)
