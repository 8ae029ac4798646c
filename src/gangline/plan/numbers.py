"""Numbers for people, each with its unit; never an exponent. Knows nothing of plans."""

from __future__ import annotations

import math

GIB = 1 << 30


def gib(n_bytes: float) -> str:
    """`1.5 GiB`, `212 GiB`, `8 MiB`."""
    if n_bytes >= 100 * GIB:
        return f"{n_bytes / GIB:,.0f} GiB"
    if n_bytes >= GIB / 10:
        return f"{n_bytes / GIB:.1f} GiB"
    return f"{n_bytes / (1 << 20):.0f} MiB"


def rate(value: float) -> str:
    """A speed: `36,100`, `410`, `21.4`, `0.31`. Of more than three digits the rest are zeros."""
    if value >= 999.5:
        digits = 10 ** (math.floor(math.log10(value)) - 2)
        return f"{round(value / digits) * digits:,}"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 1 else _small(value)


def usd(value: float) -> str:
    """An amount: `$12,000`, `$0.31`, and below a cent `$0.0004`."""
    if value >= 100:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 0.00995 else f"${_small(value)}"


def _small(value: float) -> str:
    """Two significant digits of what is below 1."""
    if value <= 0:
        return "0"
    decimals = 1 - math.floor(math.log10(value))
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")
