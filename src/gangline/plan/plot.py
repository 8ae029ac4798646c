"""Speed against price as an SVG picture, written by hand: no library is needed for some dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from gangline.plan.market import Offer

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 50, 60
LABELLED = 14  # offers with their names; more would cover each other


def plot_offers(title: str, offers: Sequence[Offer]) -> str:
    """Each offer with a price as a dot; those that nothing cheaper beats are joined and named."""
    priced = sorted(
        ((offer.price_usd, offer) for offer in offers if offer.price_usd),
        key=lambda one: (one[0], -one[1].decode_tps),
    )
    if not priced:
        return _document(title, ['<text x="70" y="120">nothing to draw: no price is known</text>'])
    x = _Scale([price for price, _ in priced], LEFT, WIDTH - RIGHT)
    y = _Scale([offer.decode_tps for _, offer in priced], HEIGHT - BOTTOM, TOP)
    parts = [*_axis(x, y)]
    best, front = 0.0, []
    for price, offer in priced:
        if offer.decode_tps > best:
            best = offer.decode_tps
            front.append((price, offer))
    line = " ".join(f"{x.at(price):.1f},{y.at(one.decode_tps):.1f}" for price, one in front)
    parts.append(f'<polyline class="front" points="{line}"/>')
    for price, offer in priced:
        words = f"{offer.name}: {offer.decode_tps:.1f} tok/s, ${price:,.0f}"
        parts.append(
            f'<circle cx="{x.at(price):.1f}" cy="{y.at(offer.decode_tps):.1f}" r="4">'
            f"<title>{escape(words)}</title></circle>"
        )
    for price, offer in front[-LABELLED:]:
        parts.append(
            f'<text class="name" x="{x.at(price) + 7:.1f}" y="{y.at(offer.decode_tps) + 4:.1f}">'
            f"{escape(offer.name)}</text>"
        )
    return _document(title, parts)


class _Scale:
    """Powers of ten onto a length in pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low = math.log10(min(values)) - 0.05
        self.high = max(math.log10(max(values)) + 0.05, self.low + 0.2)
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each power of ten that is shown."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        return [value for value in values if self.low <= math.log10(value) <= self.high]


def _axis(x: _Scale, y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="x" x="{at:.1f}" y="{bottom + 18}">${value:,.0f}</text>')
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{at + 4:.1f}">{value:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="x" x="{middle:.0f}" y="{HEIGHT - 16}">price in USD</text>')
    parts.append(
        f'<text class="x" transform="translate(18 {(TOP + bottom) / 2:.0f}) rotate(-90)">'
        "tokens per second of one answer, predicted</text>"
    )
    return parts


def _document(title: str, parts: Sequence[str]) -> str:
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.x{text-anchor:middle}.y{text-anchor:end}"
        ".title{font-size:15px;font-weight:600}.name{font-size:11px}line{stroke:#e4e4e4}"
        "circle{fill:#2563a8;fill-opacity:.75}.front{fill:none;stroke:#c2410c;stroke-width:1.5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )
