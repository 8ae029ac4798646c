"""`gangline bench`: how fast this machine runs a model, or what it can do; without a cluster."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gangline.cli.machines import operations_text, per_second
from gangline.cli.options import add_backend, add_json, positive
from gangline.cli.output import note, rate, table
from gangline.errors import UsageError
from gangline.paths import home

if TYPE_CHECKING:
    from gangline.bench.engine import Report
    from gangline.hardware.measure import Measurement

SUBJECTS = ("engine", "machine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `gangline bench`."""
    parser.add_argument("subject", metavar="|".join(SUBJECTS), help="what is measured")
    parser.add_argument("--model", metavar="PATH", help="a model's folder, for `engine`")
    parser.add_argument(
        "--threads", type=positive, metavar="T", help="threads (default: one per core)"
    )
    parser.add_argument(
        "--prompt", type=positive, default=512, metavar="P", help="tokens to fill in (default: 512)"
    )
    parser.add_argument(
        "--tokens", type=positive, default=32, metavar="N", help="tokens per lane (default: 32)"
    )
    parser.add_argument(
        "--lanes", type=positive, default=1, metavar="L", help="sequences at a time (default: 1)"
    )
    parser.add_argument(
        "--context-depth",
        type=positive,
        default=0,
        metavar="D",
        help="decode behind this many tokens (default: 0)",
    )
    add_backend(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    if options.subject not in SUBJECTS:
        raise UsageError(
            f"`{options.subject}` cannot be measured", hint=f"use {', '.join(SUBJECTS)}"
        )
    if options.subject == "machine":
        return _measure_machine(options)
    if options.model is None:
        raise UsageError(
            "--model is missing: the engine is measured with a model",
            hint="`gangline synth` writes one; `gangline bench machine` needs none",
        )
    from gangline.bench.engine import Settings, measure_engine

    note(f"measuring {options.model}; nothing else should run meanwhile")
    report = measure_engine(
        Settings(
            model=options.model,
            threads=options.threads,
            prompt=options.prompt,
            tokens=options.tokens,
            lanes=options.lanes,
            context_depth=options.context_depth,
            backend=options.backend or "auto",
        )
    )
    if options.json:
        print(msgspec.json.encode(report).decode())
        return 0
    print("\n".join(render(report)))
    return 0


def _measure_machine(options: argparse.Namespace) -> int:
    """What a node measures when it starts; nothing is kept."""
    if options.model is not None:
        raise UsageError("a machine is measured without a model", hint="leave out --model")
    from gangline.bench.machine import measure
    from gangline.hardware.facts import count_cores

    note("measuring this machine; nothing else should run meanwhile")
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home()) as folder:  # on the disk that holds models
        found = measure(Path(folder), options.threads or count_cores(), options.backend or "auto")
    if options.json:
        print(msgspec.json.encode(found).decode())
        return 0
    print("\n".join(render_machine(found)))
    return 0


def render_machine(found: Measurement) -> list[str]:
    """A row for each thing that predictions rest on."""
    layer, step = found.layer_s, found.step_s
    rows = (
        ("memory", per_second(found.read_bytes_per_s), "weights read while decoding"),
        ("arithmetic", operations_text(found.operations_per_s), "while reading a prompt"),
        ("attention", operations_text(found.attention_operations_per_s), "of a prompt"),
        ("cache", per_second(found.cache_bytes_per_s), "keys and values read while decoding"),
        ("layer", "" if layer is None else f"{layer * 1e6:.1f} µs", "that each takes at least"),
        ("step", "" if step is None else f"{step * 1e6:.1f} µs", "that a hop adds here"),
        ("disk", per_second(found.disk_read_bytes_per_s), "read from a file"),
    )
    vector = f" {found.vector}" if found.vector else ""
    busy = ["", "something else ran meanwhile: measure again"] if found.measured_busy else []
    return [f"{found.backend}{vector}", "", *table(("WHAT", "MEASURED", "OF"), rows), *busy]


def render(report: Report) -> list[str]:
    """What was run, then a row for each measurement."""
    depth = f" behind {report.context_depth} tokens" if report.context_depth else ""
    lanes = "1 lane" if report.lanes == 1 else f"{report.lanes} lanes"
    spread = f"{rate(report.decode_tps_min)} to {rate(report.decode_tps_max)}"
    peak = report.peak_rss_mb
    rows = (
        ("load", f"{report.load_s:.2f} s", f"{report.weight_mb:.0f} MB of weights"),
        ("prefill", f"{rate(report.prefill_tps)} tok/s", f"{report.prompt} tokens"),
        ("decode", f"{rate(report.decode_tps)} tok/s", f"{lanes}{depth}, {spread}"),
        ("weights read", f"{report.read_gbps:.1f} GB/s", _share(report)),
        ("python", _percent(report.python_share), "of a step of one lane"),
        ("peak memory", "" if peak is None else f"{peak:.0f} MB", "resident, of this process"),
    )
    vector = f" {report.vector}" if report.vector else ""
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    title = f"{report.model}: {report.family}, {report.backend}{vector}, {threads}"
    return [title, "", *table(("WHAT", "MEASURED", "OF"), rows)]


def _share(report: Report) -> str:
    if report.bandwidth_gbps is None:
        return ""
    share = _percent(report.bandwidth_share)
    return f"{share} of the {report.bandwidth_gbps:.1f} GB/s that this machine reads"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
