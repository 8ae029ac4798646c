"""The signals that ask a long-running command to end."""

from __future__ import annotations

import signal

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Windows' Ctrl-Break


def ending_signals() -> list[signal.Signals]:
    """Those that this system has; without SIGHUP where `nohup` says that it does not count."""
    numbers = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
    return [
        number
        for number in numbers
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    ]
