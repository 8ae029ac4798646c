"""The id of this node: made once, kept in `home/node.json`, used by one process at a time."""

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


class _Kept(msgspec.Struct, frozen=True):
    id: str


class Identity:
    """A node's id, and the lock that keeps a second process from using it too."""

    def __init__(self, node_id: NodeId, file: BinaryIO) -> None:
        self.id = node_id
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
            return Identity(_read_or_make(file, path), file)
        except BaseException:
            file.close()
            raise

    def release(self) -> None:
        """Let another process use the id."""
        self._file.close()


def _read_or_make(file: BinaryIO, path: Path) -> NodeId:
    try:
        data = file.read()
        if not data:
            node_id = f"n-{secrets.token_hex(4)}"
            file.write(msgspec.json.encode(_Kept(node_id)) + b"\n")
            return NodeId(node_id)
        kept = msgspec.json.decode(data, type=_Kept)
    except OSError as error:
        raise _unusable(path, f"cannot be used: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise _unusable(path, f"is damaged: {error}") from error
    if not _NODE_ID.fullmatch(kept.id):
        raise _unusable(path, f"names the node `{kept.id}`, not n- and 8 hexadecimal digits")
    return NodeId(kept.id)


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
