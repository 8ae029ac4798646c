"""`gangline plan`: what a model would do on machines, before anything is bought or downloaded."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from gangline.cli.common import client_of
from gangline.cli.load import local_path
from gangline.cli.options import add_json, add_url, positive
from gangline.cli.output import significant, table
from gangline.errors import ProtocolError, Unavailable, UsageError
from gangline.node.planning import USUAL_PROMPT, ForecastPlan, prompt_within
from gangline.node.stored import DEMO, describe_folder, model_id
from gangline.paths import demo_model
from gangline.plan import catalog
from gangline.plan.advice import Advice, advise
from gangline.plan.engines import ENGINES, find_engine
from gangline.plan.fleet import fleet_of
from gangline.plan.forecast import Wish
from gangline.plan.numbers import rate, usd
from gangline.plan.question import Question, ShapeAt
from gangline.plan.shape import bits_of, cost_of_config

EXIT_DOES_NOT_FIT = 1
DEFAULT_CONTEXT = 8192
USUAL_BITS = 4.5
Listed = catalog.MachineType | catalog.LinkType | catalog.ModelType
LISTS: dict[str, Callable[[], Sequence[Listed]]] = {
    "machines": catalog.machines,
    "links": catalog.links,
    "models": catalog.models,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline plan`."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model of the catalogue, `demo`, or files here"
    )
    parser.add_argument(
        "--list", choices=LISTS, metavar="WHAT", help=f"what the catalogue has: {', '.join(LISTS)}"
    )
    parser.add_argument(
        "--on",
        nargs="+",
        action="extend",
        metavar="MACHINE",
        help='machines of the catalogue, as "m3-ultra-512 x4", with a link among themselves as '
        '"m3-ultra-512 x2 @tb5-rdma" (default: the live cluster)',
    )
    parser.add_argument(
        "--link",
        metavar="LINK",
        help="how they are connected, groups with a link of their own with the others: a name, as "
        '10gbe, or "1gbit,0.3ms"',
    )
    parser.add_argument(
        "--bits", type=float, metavar="B", help="bits per weight: 4 (and its scales), 8, 16, 5.5"
    )
    parser.add_argument(
        "--context",
        type=positive,
        metavar="N",
        help=f"tokens per conversation (default: {DEFAULT_CONTEXT}, live: as `load`)",
    )
    parser.add_argument(
        "--lanes",
        type=positive,
        metavar="N",
        help="conversations at a time (default: 1, live: as `load`)",
    )
    parser.add_argument(
        "--prompt",
        type=positive,
        metavar="N",
        help=f"tokens of the prompt (default: {USUAL_PROMPT})",
    )
    parser.add_argument(
        "--parallel",
        choices=("auto", "pipeline", "tensor"),
        default="auto",
        help="give machines layers, or shares of each matrix (default: auto)",
    )
    parser.add_argument(
        "--engine",
        default="ours",
        metavar="NAME",
        help=f"whose speed: {', '.join(ENGINES)} (default: ours)",
    )
    add_url(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Predict and print; 1 where it does not fit."""
    if options.list is not None:
        found = LISTS[options.list]()
        print(msgspec.json.encode(found).decode() if options.json else "\n".join(listing(found)))
        return 0
    if options.model is None:
        raise UsageError(
            "the following arguments are required: MODEL",
            hint="`gangline plan --list models` lists those of the catalogue",
        )
    advice = _on_catalogue(options) if options.on is not None else _on_cluster(options)
    print(msgspec.json.encode(advice).decode() if options.json else "\n".join(render(advice)))
    return 0 if advice.fits else EXIT_DOES_NOT_FIT


def listing(
    found: Sequence[Listed],
) -> list[str]:
    """A row for each entry of the catalogue, by its id."""
    return table(("ID", "NAME"), [(one.id, one.name) for one in found])


def _on_catalogue(options: argparse.Namespace) -> Advice:
    engine = find_engine(options.engine)
    fleet = fleet_of(options.on, options.link)
    name, shape, bits = find_model(options.model, options.bits)
    most = shape(bits).max_context
    context = options.context or min(DEFAULT_CONTEXT, most)
    if context > most:
        raise UsageError(
            f"a context of {context} tokens is outside 1..{most}",
            hint=f"`{name}` was trained for {most} tokens",
            param="context",
        )
    wish = Wish(
        context, options.lanes or 1, prompt_within(context, options.prompt), options.parallel
    )
    return advise(Question(name, shape, bits, fleet, engine, wish))


def _on_cluster(options: argparse.Namespace) -> Advice:
    for name in ("link", "bits"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name} is measured on a live cluster",
                hint=f'name machines to plan for: --on "m3-ultra-512 x2" --{name} …',
                param=name,
            )
    client = client_of(options)
    query = {"model": local_path(options.model)}
    for name in ("prompt", "context", "lanes"):
        if getattr(options, name) is not None:
            query[name] = str(getattr(options, name))
    try:
        body = client.request("GET", f"/cluster/plan?{urlencode(query)}")
    except Unavailable as error:
        raise Unavailable(
            error.message, hint=f'{error.hint}; --on "m4-max-128 x2" plans for machines you name'
        ) from None
    forecast = msgspec.json.decode(body, type=ForecastPlan).forecast
    if forecast is None:
        raise ProtocolError(
            f"the node at {client.url} forecasts nothing", hint="run the same version everywhere"
        )
    return forecast


def find_model(name: str, bits: float | None) -> tuple[str, ShapeAt, float]:
    """A model of the catalogue, or in a folder or file here, with the bits to plan for."""
    path = Path(name).expanduser()
    if "/" in name or path.is_dir() or path.suffix == ".gguf":
        own_id = DEMO if path == demo_model() else model_id(path.resolve())
        stored = describe_folder(own_id, path, strict=True)
        cost = stored.cost
        if cost is None:
            raise UsageError(f"{path} cannot be run: {stored.model.reason}")
        if bits is not None:
            raise UsageError(
                f"the weights in {path} have their bits", hint="leave out --bits", param="bits"
            )
        return stored.model.id, lambda _: cost, bits_of(cost)
    if name == DEMO:
        return find_model(str(demo_model()), bits)
    model = catalog.model(name)
    if bits is None:
        bits = min(model.bits, key=lambda usual: abs(usual - USUAL_BITS))
    # Kept: a shop asks for the same bits a thousand times.
    shape = functools.cache(lambda wanted: cost_of_config(model.config, wanted))
    return model.id, shape, stored_bits(bits)


def stored_bits(bits: float) -> float:
    """Bits per weight with the scales of groups of 64: half a bit more, below 16."""
    return bits + 0.5 if bits == int(bits) and 2 <= bits <= 8 else bits


def render(advice: Advice) -> list[str]:
    """The plan as a table, then what to know about it."""
    if not advice.fits:
        return [f"{advice.model} does not fit", "", *advice.why]
    error = f" ± {advice.decode_tps_error * 100:.0f} %" if advice.decode_tps_error else ""
    assert advice.decode_tps and advice.prefill_tps and advice.ttft_s and advice.throughput_tps
    rows = [("one answer", f"{rate(advice.decode_tps)} tok/s{error}", "predicted")]
    if advice.lanes > 1:
        rows.append((f"{advice.lanes} lanes", f"{rate(advice.throughput_tps)} tok/s", "together"))
    rows.append(
        (
            "first token",
            f"{significant(advice.ttft_s)} s",
            f"{advice.prompt} tokens of prompt, {rate(advice.prefill_tps)} tok/s",
        )
    )
    if advice.watts:
        rows.append(("power", f"{advice.watts:.0f} W", "of the machines in use, busy"))
    if advice.price_usd:
        rows.append(("price", usd(advice.price_usd), "of the machines in use"))
    if advice.usd_per_million_tokens:
        rows.append(("cost", usd(advice.usd_per_million_tokens), "per million tokens, always busy"))
    stages = [
        (
            " + ".join(_counted(stage.machines)),
            f"[{stage.layers[0]}, {stage.layers[1]})",
            f"{stage.memory_gb:.1f} GiB",
            f"{significant(stage.ms_per_token)} ms",
        )
        for stage in advice.stages
    ]
    title = f"{advice.model} at {advice.bits:g} bits, {advice.parallel}, {advice.engine}"
    lines = [title, "", *table(("WHAT", "PREDICTED", "OF"), rows), ""]
    lines += table(("MACHINES", "LAYERS", "MEMORY", "TOKEN"), stages)
    if advice.left_out:
        names: dict[str, list[str]] = {}
        for out in advice.left_out:
            names.setdefault(out.why, []).append(out.machine)
        lines.append("")
        lines += [f"left out: {' + '.join(_counted(who))} {why}" for why, who in names.items()]
    if advice.runner_up is not None:
        second = advice.runner_up
        on = " + ".join(_counted(second.machines))
        lines += ["", f"runner-up: {second.parallel} on {on}, {second.why}"]
    if advice.alternatives:
        others = [
            (
                other.kind,
                " + ".join(_counted(other.machines)),
                f"{significant(other.ttft_s)} s",
                f"{rate(other.decode_tps)} tok/s",
                f"{rate(other.throughput_tps)} tok/s",
            )
            for other in advice.alternatives
        ]
        header = ("ALTERNATIVE", "MACHINES", "FIRST TOKEN", "ONE ANSWER", "TOGETHER")
        lines += ["", *table(header, others), "", *(other.why for other in advice.alternatives)]
    return [*lines, "", *advice.why]


def _counted(names: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [f"{n} x {name}" if n > 1 else name for name, n in counts.items()]
