"""Speed against price as an SVG picture, written by hand: no library is needed for some marks.

Offers that nothing cheaper outruns are joined by a line, numbered, and listed beside the picture,
so that names never cover each other. Kinds of machines differ in colour and in shape: a print in
grey tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from gangline.plan.market import Offer
from gangline.plan.numbers import rate

WIDTH, HEIGHT = 1080, 600
LEFT, RIGHT, TOP, BOTTOM = 70, 330, 58, 92
LISTED = 14  # offers with a number: as many as the list has room for
DISC = 9.0  # radius of a number's disc
MIN_TICKS = 5

# kind of offer -> (what it is, colour, outline around 0 0 in SVG's path language)
KINDS = {
    "soc": ("graphics in shared memory", "#2563a8", "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z"),
    "gpu": ("graphics cards", "#2e7d32", "M-4.5-4.5H4.5V4.5H-4.5Z"),
    "cpu": ("processors", "#8a3ffc", "M0-5.5 5.5 4.5H-5.5Z"),
    "board": ("small boards", "#b45309", "M0-6 6 0 0 6-6 0Z"),
    "mixed": ("two kinds", "#be123c", "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"),
}

# Steps of each power of ten, from few labels to many.
STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(step / 2 for step in range(2, 20)),
    tuple(step / 5 for step in range(5, 50)),
)


def plot_offers(title: str, offers: Sequence[Offer]) -> str:
    """Each offer with a price as a mark; those that nothing cheaper outruns are joined."""
    priced = sorted(
        ((offer.price_usd, offer) for offer in offers if offer.price_usd),
        key=lambda one: (one[0], -one[1].decode_tps),
    )
    if not priced:
        return _document(title, ['<text x="70" y="120">nothing to draw: no price is known</text>'])
    x = _Scale([price for price, _ in priced], LEFT, WIDTH - RIGHT)
    y = _Scale([offer.decode_tps for _, offer in priced], HEIGHT - BOTTOM, TOP)
    placed = [(x.at(price), y.at(offer.decode_tps), offer) for price, offer in priced]
    front = _front(placed)
    line = " ".join(f"{at_x:.1f},{at_y:.1f}" for at_x, at_y, _ in front)
    parts = [*_axes(x, y), *(_mark(*one) for one in placed)]
    parts.append(f'<polyline class="front" points="{line}"/>')
    parts += _listed(_spread(front))
    parts += _legend(sorted({offer.kind for _, offer in priced}))
    return _document(title, parts)


Placed = tuple[float, float, Offer]


def _front(placed: Sequence[Placed]) -> list[Placed]:
    """Of offers by price, each that is faster than all before it."""
    best, found = 0.0, []
    for one in placed:
        if one[2].decode_tps > best:
            best = one[2].decode_tps
            found.append(one)
    return found


def _spread(front: Sequence[Placed]) -> list[Placed]:
    """As many as the list has room for, so far apart that their discs do not touch."""
    apart = 2 * DISC
    while True:
        chosen: list[Placed] = []
        for one in front:
            if all(math.dist(one[:2], other[:2]) >= apart for other in chosen):
                chosen.append(one)
        if len(chosen) <= LISTED:
            return chosen
        apart *= 1.1


def _mark(at_x: float, at_y: float, offer: Offer) -> str:
    words = f"{offer.name}: {offer.decode_tps:.1f} tok/s, ${offer.price_usd:,.0f}"
    _, colour, outline = KINDS[offer.kind]
    return (
        f'<path class="mark" transform="translate({at_x:.1f} {at_y:.1f})" d="{outline}" '
        f'fill="{colour}"><title>{escape(words)}</title></path>'
    )


def _listed(chosen: Sequence[Placed]) -> list[str]:
    """Numbers in the picture, and what they are beside it."""
    parts = []
    at_x = WIDTH - RIGHT + 34
    for number, (mark_x, mark_y, offer) in enumerate(chosen, 1):
        at_y = TOP + 6 + (number - 1) * (HEIGHT - BOTTOM - TOP) / LISTED
        colour = KINDS[offer.kind][1]
        for x, y in ((mark_x, mark_y), (at_x, at_y)):
            parts.append(
                f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="{DISC:g}" stroke="{colour}"/>'
                f'<text class="number" x="{x:.1f}" y="{y + 4:.1f}">{number}</text>'
            )
        facts = [f"${offer.price_usd:,.0f}", f"{rate(offer.decode_tps)} tok/s"]
        if offer.watts is not None:
            facts.append(f"{offer.watts:,.0f} W")
        parts.append(
            f'<text x="{at_x + 17}" y="{at_y - 1:.1f}">{escape(offer.name)}</text>'
            f'<text class="facts" x="{at_x + 17}" y="{at_y + 12:.1f}">{" · ".join(facts)}</text>'
        )
    return parts


def _legend(kinds: Sequence[str]) -> list[str]:
    at_x, at_y = float(LEFT), HEIGHT - 18
    parts = []
    for kind in kinds:
        words, colour, outline = KINDS[kind]
        parts.append(
            f'<path transform="translate({at_x + 6:.0f} {at_y - 4})" d="{outline}" '
            f'fill="{colour}"/><text x="{at_x + 18:.0f}" y="{at_y}">{words}</text>'
        )
        at_x += 42 + 6.5 * len(words)
    parts.append(
        f'<line class="front" x1="{at_x:.0f}" y1="{at_y - 4}" x2="{at_x + 24:.0f}" '
        f'y2="{at_y - 4}"/><text x="{at_x + 32:.0f}" y="{at_y}">nothing cheaper is faster</text>'
    )
    return parts


class _Scale:
    """Powers of ten onto a length in pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.05 * (high - low), 0.1 - (high - low) / 2, 0.02)
        self.low, self.high = low - margin, high + margin
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range, MIN_TICKS or more."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        found: list[float] = []
        for steps in STEPS:
            values = [step * 10.0**power for power in powers for step in steps]
            found = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(found) >= MIN_TICKS:
                break
        return found


def _axes(x: _Scale, y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="middle" x="{at:.1f}" y="{bottom + 18}">${value:,.0f}</text>')
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 8}" y="{at + 4:.1f}">{rate(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="middle" x="{middle:.0f}" y="{bottom + 40}">price in USD</text>')
    parts.append(
        f'<text class="middle" transform="translate(20 {(TOP + bottom) / 2:.0f}) rotate(-90)">'
        "one answer in tokens per second, predicted</text>"
    )
    return parts


def _document(title: str, parts: Sequence[str]) -> str:
    style = (
        "text{font:12px Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif;fill:#222}"
        ".middle,.number{text-anchor:middle}.end{text-anchor:end}.number{font-size:11px}"
        ".title{font-size:16px;font-weight:bold}.facts{font-size:11px;fill:#666}"
        ".grid{stroke:#e4e4e4}.axis{stroke:#666;fill:none}.mark{fill-opacity:.6}"
        ".front{fill:none;stroke:#222;stroke-width:1.5;stroke-dasharray:5 3}"
        ".disc{fill:#fff;stroke-width:2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text class="title" x="{LEFT}" y="30">{escape(title)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )
