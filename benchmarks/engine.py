"""Gangline and llama.cpp in turn, in one run, on the same shape at the same bits.

    python -m benchmarks.engine --llama-python OTHER/bin/python [--shape llama-3.2-1b]
        [--only TEXT] [--rounds N] [--json]

Both have random weights in the shape of a known model: ours in MLX's groups of 64 (4.5 and 8.5
bits per weight), llama.cpp's Q4_0 and Q8_0 (groups of 32, the same bits). They take turns, A B A B;
a ratio is of two neighbours, and its median and spread over the rounds count. Between the turns
the memory bandwidth is measured. Nothing else should run meanwhile.

llama.cpp comes from PyPI, into an environment of its own:

    pip install llama-cpp-python gguf numpy

Where its native build dies with an illegal instruction (virtual machines that announce AMX but do
not allow it), name the instructions instead:

    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON \\
      -DGGML_BMI2=ON -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON \\
      -DGGML_AVX512_BF16=ON" pip install --no-binary llama-cpp-python llama-cpp-python gguf numpy
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engine_sides import Case, Group, Ours, Theirs, check_llama, llama, note, prepare
from gangline.bench.engine import bytes_per_step
from gangline.bench.synth import config_of
from gangline.bench.watch import read_bandwidth, vector_path


class Turn(NamedTuple):
    """What one round measured of a case."""

    ours_tps: float
    theirs_tps: float
    bandwidth: float | None  # bytes per second, with the case's threads


# As many active weights per layer as Llama-3.2-1B; half of the layers, which are 4 GB.
MIXTURE = "moe-64x4"
MIXTURE_LAYERS = 8

# Tokens of a prompt that attention has a large part in.
LONG_PROMPT = 4096


def mixture_group() -> Group:
    """Decoding and reading a prompt with a mixture of experts."""
    cases = (
        Case("mixture, 1 lane", "decode", 32, 1),
        Case("mixture, 1 lane", "decode", 48, 2),
        Case("mixture, 8 lanes", "decode", 12, 2, lanes=8),
        Case("mixture, prefill", "prefill", 256, 2),
    )
    return Group(MIXTURE, "q4", 8, 1024, cases, MIXTURE_LAYERS)


def groups_of(shape: str, depth: int) -> tuple[Group, ...]:
    """A prompt, one lane and eight, 8 bits, a deep context (`depth` 0: none), and a mixture."""
    short = (
        Case("prefill 512", "prefill", 512, 2),
        Case("decode, 1 lane", "decode", 32, 1),
        Case("decode, 1 lane", "decode", 48, 2),
        Case("decode, 8 lanes", "decode", 16, 2, lanes=8),
    )
    long = (Case(f"prefill {LONG_PROMPT}", "prefill", LONG_PROMPT, 2),)
    deep = (Case(f"decode at {depth}", "decode", 24, 2, depth=depth),)
    eight = (Case("decode q8, 1 lane", "decode", 32, 2),)
    groups = (
        Group(shape, "q4", 8, 1024, short),
        Group(shape, "q8", 1, 1024, eight),
        Group(shape, "q4", 1, LONG_PROMPT + 256, long),
        Group(shape, "q4", 1, depth + 256, deep),
        mixture_group(),
    )
    return tuple(group for group in groups if depth or group.cases not in (long, deep))


def chosen_of(groups: tuple[Group, ...], only: str) -> tuple[Group, ...]:
    """The groups with those of their cases whose names contain `only`; none without a case."""
    kept = [
        group._replace(cases=tuple(case for case in group.cases if only in case.name))
        for group in groups
    ]
    return tuple(group for group in kept if group.cases)


def measure(
    shape: str, folder: Path, python: str, rounds: int, groups: tuple[Group, ...]
) -> dict[str, Any]:
    """All groups, one after the other; each loads its models anew."""
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {"shape": shape, "rounds": rounds, "rows": rows}
    alone, _ = prepare(groups[0], folder, python)
    note("measuring gangline alone")
    found["alone"] = measure_alone(alone, threads=2)
    for group in groups:
        ours_path, theirs_path = prepare(group, folder, python)
        with llama(python, theirs_path, group) as theirs:
            ours = Ours(ours_path, group)
            found |= {"vector": vector_path(ours.operations), "llama_cpp": theirs.system.strip()}
            turns = take_turns(ours, theirs, group.cases, rounds)
            rows += [
                row_of(case, group.quant, turns[case], bytes_per_step(ours.checkpoint, case.lanes))
                for case in group.cases
            ]
            del ours
        for row in rows[-len(group.cases) :]:  # the next group may take minutes
            note(f"{row['case']}, {row['threads']} threads: {row['ratio']:.2f}")
    return found


def take_turns(
    ours: Ours, theirs: Theirs, cases: tuple[Case, ...], rounds: int
) -> dict[Case, list[Turn]]:
    """A B A B …, after one turn of each that does not count."""
    turns: dict[Case, list[Turn]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            if number == 0:
                note(f"warming up {case.name}, {case.threads} threads")
                if case.depth:
                    note(f"filling {case.depth} tokens into each, which takes minutes")
                    ours.fill(case)
                    theirs.fill(case)
            n_tokens = case.tokens * case.lanes
            measured = Turn(
                n_tokens / ours.run(case),
                n_tokens / theirs.run(case),
                read_bandwidth(ours.operations, case.threads),
            )
            if number:
                turns[case].append(measured)
    return turns


def row_of(case: Case, quant: str, turns: list[Turn], step_bytes: int) -> dict[str, Any]:
    """Medians, and the spread of the ratios."""
    ratios = [turn.ours_tps / turn.theirs_tps for turn in turns]
    ours_tps = statistics.median(turn.ours_tps for turn in turns)
    row = {
        "case": case.name,
        "quant": quant,
        "threads": case.threads,
        "lanes": case.lanes,
        "depth": case.depth,
        "gangline_tps": round(ours_tps, 1),
        "llama_cpp_tps": round(statistics.median(turn.theirs_tps for turn in turns), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }
    bandwidths = [turn.bandwidth for turn in turns if turn.bandwidth is not None]
    if case.do == "decode" and bandwidths:
        bandwidth = statistics.median(bandwidths)
        read = step_bytes * ours_tps / case.lanes
        row |= {
            "read_gbps": round(read / 1e9, 1),
            "bandwidth_gbps": round(bandwidth / 1e9, 1),
            "bandwidth_share": round(read / bandwidth, 3),
        }
    return row


def measure_alone(path: Path, threads: int) -> dict[str, Any]:
    """`gangline bench engine` in a process of its own: load, peak memory, Python's share."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gangline", "bench", "engine", "--json"),
            *("--model", str(path), "--threads", str(threads)),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    alone: dict[str, Any] = json.loads(done.stdout)
    return alone


def table(found: dict[str, Any]) -> str:
    """Aligned columns, then what is measured of Gangline alone."""
    form = "{:<18} {:<7} {:>9} {:>9}  {:>6}  {:<14} {:>6} {:>9} {:>6}"
    header = ("CASE", "THREADS", "GANGLINE", "LLAMA.CPP", "RATIO")
    lines = [
        f"{found['shape']}, tokens per second, {found['rounds']} rounds in turn; "
        f"gangline: {found['vector']}",
        f"llama.cpp: {found['llama_cpp']}",
        "",
        form.format(*header, "(MIN to MAX)", "GB/S", "OF GB/S", "SHARE"),
    ]
    for row in found["rows"]:
        spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        share = f"{row['bandwidth_share']:.1%}" if "bandwidth_share" in row else "-"
        lines.append(
            form.format(
                row["case"],
                row["threads"],
                row["gangline_tps"],
                row["llama_cpp_tps"],
                f"{row['ratio']:.2f}",
                spread,
                row.get("read_gbps", "-"),
                row.get("bandwidth_gbps", "-"),
                share,
            )
        )
    alone = found["alone"]
    percent = "-" if alone["python_share"] is None else f"{alone['python_share']:.1%}"
    named = {(row["case"], row["threads"]): row for row in found["rows"]}
    one, many = named.get(("decode, 1 lane", 2)), named.get(("decode, 8 lanes", 2))
    lines.append("")
    if one and many:
        lines.append(
            f"8 lanes over 1 lane: {many['gangline_tps'] / one['gangline_tps']:.2f} "
            f"(llama.cpp {many['llama_cpp_tps'] / one['llama_cpp_tps']:.2f})"
        )
    lines += [
        f"alone: load {alone['load_s']:.2f} s, peak memory {alone['peak_rss_mb']} MB for "
        f"{alone['weight_mb']} MB of weights, Python {percent} of a step",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="llama-3.2-1b", help="a llama shape of `gangline synth`")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    parser.add_argument(
        "--depth",
        type=int,
        default=8192,
        help="context of the deep case; 0 leaves it and the long prompt out",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help='cases with this in their name: "decode, 1 lane"'
    )
    parser.add_argument(
        "--llama-python", default=sys.executable, help="interpreter that has llama-cpp-python"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "gangline-bench",
        help="where the models are kept (about 12 GB; default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if config_of(chosen.shape, "q4")["model_type"] != "llama":
        raise SystemExit(f"error: `{chosen.shape}` is no llama shape")
    groups = chosen_of(groups_of(chosen.shape, chosen.depth), chosen.only)
    if not groups:
        raise SystemExit(f"error: no case has `{chosen.only}` in its name")
    check_llama(chosen.llama_python)
    found = measure(chosen.shape, chosen.folder, chosen.llama_python, chosen.rounds, groups)
    print(json.dumps(found, indent=2) if chosen.json else table(found))


if __name__ == "__main__":
    main()
