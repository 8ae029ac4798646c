"""The id of this node: made once, kept in `home/node.json`, used by one process at a time.

The file counts the processes that used it, so that the reports of a later one are newer than those
of an earlier one, whatever became of the clock meanwhile: small boards forget the time.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from gangline.errors import Conflict, GanglineError
from gangline.facts import NodeId

_NODE_ID = re.compile(r"n-[0-9a-f]{8}")


REPORTS_BITS = 41  # of a sequence: the reports of one process; beyond them, how often it started
_KEPT_BYTES = (
    64  # written in place and never shorter, so that no reader finds the end of an older one
)


class _Kept(msgspec.Struct, frozen=True):
    id: str
    starts: int = 0


class Identity:
    """A node's id, and the lock that keeps a second process from using it too."""

    def __init__(self, node_id: NodeId, starts: int, file: BinaryIO) -> None:
        self.id = node_id
        self.first_sequence = starts << REPORTS_BITS  # of this process, beyond all earlier ones
        self._file = file

    @staticmethod
    def open(home: Path) -> Identity:
        """The kept id or a new one; Conflict where it is in use, GanglineError where damaged."""
        path = home / "node.json"
        try:
            home.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise _unusable(path, f"cannot be opened: {error.strerror}") from error
        try:
            _lock(file, home)
            kept = _count(file, path)
            return Identity(NodeId(kept.id), kept.starts, file)
        except BaseException:
            file.close()
            raise

    def release(self) -> None:
        """Let another process use the id."""
        self._file.close()


def _count(file: BinaryIO, path: Path) -> _Kept:
    """What is kept, or a new id, with one more start."""
    try:
        data = file.read()
        known = (
            msgspec.json.decode(data, type=_Kept) if data else _Kept(f"n-{secrets.token_hex(4)}")
        )
        if not _NODE_ID.fullmatch(known.id):
            raise _unusable(path, f"names the node `{known.id}`, not n- and 8 hexadecimal digits")
        kept = _Kept(known.id, known.starts + 1)
        file.seek(0)
        file.write(msgspec.json.encode(kept).ljust(_KEPT_BYTES - 1) + b"\n")
    except OSError as error:
        raise _unusable(path, f"cannot be used: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise _unusable(path, f"is damaged: {error}") from error
    return kept


def _lock(file: BinaryIO, home: Path) -> None:
    """Locked until the file is closed, at the latest by the end of the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # beyond the content, which others may go on reading
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Conflict(
            f"another node uses {home}",
            hint="stop it, or give this one a folder of its own by GANGLINE_HOME",
        ) from error


def _unusable(path: Path, why: str) -> GanglineError:
    return GanglineError(
        f"{path} {why}",
        hint="make the folder writable, or delete the file: the node then gets a new id",
    )
