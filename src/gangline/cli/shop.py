"""`gangline shop`: which machines to buy for a model, or machines side by side."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import msgspec

from gangline.cli.options import add_json, positive
from gangline.cli.output import note, table
from gangline.cli.picture import check_picture, write_picture
from gangline.cli.plan import DEFAULT_CONTEXT, find_model
from gangline.errors import DoesNotFit, UsageError
from gangline.plan import catalog
from gangline.plan.engines import ENGINES, Engine, find_engine
from gangline.plan.forecast import Wish
from gangline.plan.market import (
    MODELS_COMPARED,
    Compared,
    Limits,
    Offer,
    cheapest,
    compare,
    offers,
)
from gangline.plan.mixes import MOST_OF_A_KIND, mixed_offers
from gangline.plan.numbers import rate
from gangline.plan.plot import plot_offers
from gangline.plan.question import ShapeAt

SHOWN = 20
ORDERS = ("price", "watts", "speed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline shop`."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model of the catalogue")
    parser.add_argument("--min-tps", type=_amount, metavar="X", help="tokens/s of one answer")
    parser.add_argument("--budget", type=_amount, metavar="USD", help="at most this price")
    parser.add_argument("--max-watts", type=_amount, metavar="W", help="at most this power")
    parser.add_argument(
        "--context",
        type=positive,
        metavar="N",
        help=f"tokens per conversation (default: {DEFAULT_CONTEXT})",
    )
    parser.add_argument(
        "--bits",
        type=_amount,
        metavar="B",
        help="bits per weight (default: the usual ones near 4.5)",
    )
    parser.add_argument("--engine", default="ours", metavar="NAME", help=", ".join(ENGINES))
    parser.add_argument("--by", choices=ORDERS, default="price", help="what comes first")
    parser.add_argument(
        "--mix", action="store_true", help=f"also two kinds together, 1 to {MOST_OF_A_KIND} of each"
    )
    parser.add_argument("--all", action="store_true", help=f"all offers, not the first {SHOWN}")
    parser.add_argument(
        "--compare", nargs="+", metavar="MACHINE", help="lay these machines side by side"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw speed against price: .svg or .png")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Rank offers, or compare machines."""
    if options.plot:
        check_picture(Path(options.plot))
    if options.compare:
        return _compare(options)
    if options.model is None or options.min_tps is None:
        raise UsageError(
            "a model and a speed are needed",
            hint="gangline shop llama-3.3-70b --min-tps 10, or --compare m4-max-128 dgx-spark",
        )
    name, shape, bits = find_model(options.model, options.bits)
    context = min(options.context or DEFAULT_CONTEXT, shape(bits).max_context)
    limits = Limits(
        options.min_tps,
        math.inf if options.budget is None else options.budget,
        math.inf if options.max_watts is None else options.max_watts,
    )
    engine = find_engine(options.engine)
    wish = Wish(context)
    found = offers(shape, bits, engine, wish, limits)
    if options.mix:
        kinds = catalog.machines()
        found += mixed_offers(shape, bits, engine, wish, limits, kinds, found)
    if not found:
        raise DoesNotFit(
            f"no machines of the catalogue run {name} at {bits:g} bits within these limits",
            hint=_nearest(shape, bits, engine, wish, limits),
        )
    found.sort(key=lambda offer: _order(options.by, offer))
    title = f"{name} at {bits:g} bits, {context} tokens of context, {engine}"
    if options.plot:
        write_picture(Path(options.plot), plot_offers(title, found))
        note(f"{options.plot} written")
    if options.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(render(title, found if options.all else found[:SHOWN], len(found))))
    return 0


def _order(by: str, offer: Offer) -> tuple[float, float]:
    unknown = math.inf
    price = unknown if offer.price_usd is None else offer.price_usd
    watts = unknown if offer.watts is None else offer.watts
    first = {"price": price, "watts": watts, "speed": -offer.decode_tps}[by]
    return first, -offer.decode_tps


def render(title: str, shown: list[Offer], count: int) -> list[str]:
    """A row for each offer."""
    rows = [
        (
            offer.name,
            "" if offer.link == "none" else offer.link,
            rate(offer.decode_tps),
            rate(offer.prefill_tps),
            _money(offer.price_usd),
            offer.price_date,
            "" if offer.watts is None else f"{offer.watts:.0f} W",
            "" if offer.tokens_per_joule is None else rate(offer.tokens_per_joule),
        )
        for offer in shown
    ]
    header = ("MACHINES", "LINK", "TOK/S", "PROMPT", "PRICE", "OF", "POWER", "TOK/J")
    more = f"{count - len(shown)} more with --all" if count > len(shown) else ""
    last = f'`gangline plan MODEL --on "{shown[0].name.replace(" + ", ",")}"` says more of one'
    return [title, "", *table(header, rows), *([more] if more else []), "", _HOST, last]


_HOST = "Cards are counted with a computer around each four; prices are of their date, predicted."


def _nearest(shape: ShapeAt, bits: float, engine: Engine, wish: Wish, limits: Limits) -> str:
    """What comes closest to limits that no machines keep."""
    best = cheapest(shape, bits, engine, wish, limits.min_tps)
    if best is None:
        every = offers(shape, bits, engine, wish, Limits())
        if not every:
            return "it fits none of them: ask for fewer bits, or a shorter context"
        best = max(every, key=lambda offer: offer.decode_tps)
        return f"the fastest of all is {best.name}: {rate(best.decode_tps)} tokens/s"
    price = f"${best.price_usd:,.0f}" if best.price_usd else "of a price that nobody published"
    watts = f" and {best.watts:.0f} W" if best.watts and math.isfinite(limits.max_watts) else ""
    return f"the cheapest that is so fast is {best.name}: {price}{watts}"


def _compare(options: argparse.Namespace) -> int:
    machines = [catalog.machine(name) for name in options.compare]
    models = [options.model] if options.model else list(MODELS_COMPARED)
    shapes = {}
    for model in models:
        name, shape, bits = find_model(model, options.bits)
        shapes[name] = (shape, bits)
    found = compare(machines, shapes, find_engine(options.engine))
    if options.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(render_compared(found, list(shapes))))
    return 0


def render_compared(found: list[Compared], models: list[str]) -> list[str]:
    """A column for each machine."""

    def row(what: str, values: list[str]) -> tuple[str, ...]:
        return (what, *values)

    def shown(value: float | None, unit: str = "") -> str:
        return "" if value is None else f"{value:,.4g}{unit}"

    rows = [
        row("memory", [f"{one.memory_gb:g} GB" for one in found]),
        row("bandwidth", [f"{one.memory_gbps:g} GB/s" for one in found]),
        row("fp16", [shown(one.fp16_tflops, " TFLOPS") for one in found]),
        *(
            row(f"{model} tok/s", ["does not fit" if (tps := one.tps[model]) is None
                                   else rate(tps) for one in found])
            for model in models
        ),
        row("power", [shown(one.watts, " W") for one in found]),
        row("price", [_money(one.price_usd) for one in found]),
        row("price of", [one.price_date for one in found]),
        row("tokens per joule", [shown(one.tokens_per_joule) for one in found]),
        row("dollars per GB", [shown(one.usd_per_gb) for one in found]),
    ]  # fmt: skip
    return table(("", *(one.machine for one in found)), rows)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number")
    return value


def _money(value: float | None) -> str:
    return "" if value is None else f"${value:,.0f}"
