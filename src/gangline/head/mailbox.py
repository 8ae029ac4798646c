"""Commands for the step loop from other threads, and the means to wake it while it waits."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many threads put, one takes. The reader announces that it will sleep before it does."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._sleeping = False
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)

    def fileno(self) -> int:
        """Readable when there is something to take and `may_sleep` was called before."""
        return self._woken.fileno()

    def put(self, item: T) -> None:
        """Add an item; costs a system call only while the reader sleeps."""
        self._items.append(item)
        if self._sleeping:
            with contextlib.suppress(BlockingIOError):  # full: it is being woken already
                self._waking.send(b"!")

    def take(self) -> list[T]:
        """All items, oldest first."""
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items

    def may_sleep(self) -> bool:
        """Announce a sleep; False where something has arrived meanwhile."""
        self._sleeping = True
        if not self._items:
            return True
        self._sleeping = False
        return False

    def awake(self) -> None:
        """End the announcement of `may_sleep`."""
        self._sleeping = False
        with contextlib.suppress(BlockingIOError):  # it is empty
            while self._woken.recv(4096):
                pass  # the bytes only woke us
