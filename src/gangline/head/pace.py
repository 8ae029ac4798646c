"""How fast one lane alone decodes: the median time between its tokens, by the steps that ran.

A step counts where it carried one row of one lane and the step before it carried the same lane's
row, so that neither prompts, other lanes nor waiting clients are in the number. Knows no clock.
"""

from __future__ import annotations

import statistics
from collections import deque

WINDOW = 64  # the most recent steps that count
FEWEST = 16  # below this, the median is noise
EVERY = 8  # steps between medians: sorting must not cost what it measures


class Pace:
    """Steps are told in the order in which they ended."""

    def __init__(self) -> None:
        self.tokens_per_s: float | None = None  # of one lane alone; None: too few steps yet
        self.n_steps = 0  # that counted
        self._intervals: deque[float] = deque(maxlen=WINDOW)
        self._last: tuple[int, object, float] | None = None

    def step(self, number: int, lanes: tuple[object, ...], n_rows: int, at_s: float) -> None:
        """Step `number` gave tokens to `lanes` out of `n_rows` rows; they were there at `at_s`."""
        if n_rows != 1 or len(lanes) != 1:
            self._last = None
            return
        if self._last is not None and self._last[:2] == (number - 1, lanes[0]):
            self._intervals.append(at_s - self._last[2])
            self.n_steps += 1
            if self.n_steps >= FEWEST and self.n_steps % EVERY == 0:
                middle_s = statistics.median(self._intervals)
                self.tokens_per_s = round(1 / middle_s, 2) if middle_s > 0 else None
        self._last = (number, lanes[0], at_s)
