"""`gangline synth` and `gangline bench` as processes: output, errors, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from gangline.bench.shapes import SHAPES
from gangline.cli.bench import render_machine
from gangline.hardware.measure import Measurement
from gangline.paths import demo_model
from tests.cli.conftest import Run
from tests.cli.conftest import gangline as command_line


def test_synth_and_bench(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "model"
    done = run("synth", "llama-3.2-1b", "--quant", "q4", str(out), "--layers", "1", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert (written["shape"], written["quant"], written["n_layers"]) == ("llama-3.2-1b", "q4", 1)
    assert (out / "model.safetensors").stat().st_size > written["size_bytes"] > 1e8
    assert done.stderr.splitlines()[-1].startswith(f"writing {out}, ")
    again = run("synth", "llama-3.2-1b", "--quant", "q4", str(out))
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        f"error: {out} exists already\n\nhint: give a new folder, or remove this one\n"
    )
    few = ("--prompt", "8", "--tokens", "2", "--threads", "1")
    done = run("bench", "engine", "--model", str(out), *few, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == str(out) and report["decode_tps"] > 0
    for name in ("prefill_tps", "decode_tps", "read_gbps", "peak_rss_mb", "load_s"):
        assert isinstance(report[name], float)


def test_what_synth_says(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = run("synth", "--quant", "q4", "qwen3-0.6b", str(out), "--layers", "2")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"{re.escape(str(out))}: qwen3-0\.6b q4, 2 layers, \d+ MiB in 1 file\n\n"
        rf"`gangline bench engine --model {re.escape(str(out))}` measures it\n",
        done.stdout,
    )


def test_what_bench_says_of_the_machine(run: Run) -> None:
    done = run("bench", "machine", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read_bytes_per_s"] > 0 and found["backend"]
    lines = render_machine(msgspec.convert(found, Measurement))
    assert [line.split()[0] for line in lines[3:10]] == [
        *("memory", "arithmetic", "attention", "cache", "layer", "step", "disk")
    ]


def test_what_bench_says(run: Run) -> None:
    done = run(
        *("bench", "engine", "--model", str(demo_model()), "--threads", "1"),
        *("--lanes", "2", "--context-depth", "9", "--prompt", "16", "--tokens", "4"),
    )
    assert done.returncode == 0, done.stderr
    shape = re.compile(
        rf"{re.escape(str(demo_model()))}: llama, cpu \w+, 1 thread\n\n"
        r"WHAT +MEASURED +OF\n"
        r"load +[\d.]+ s +\d+ MB of weights\n"
        r"prefill +[\d.]+ tok/s +16 tokens\n"
        r"decode +[\d.]+ tok/s +2 lanes behind 9 tokens, [\d.]+ to [\d.]+\n"
        r"weights read +[\d.]+ GB/s +[\d.]+% of the [\d.]+ GB/s that this machine reads\n"
        r"python +[\d.]+% +of a step of one lane\n"
        r"peak memory +\d+ MB +resident, of this process\n"
    )
    assert shape.fullmatch(done.stdout), done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "stderr"),
    [
        (
            ["synth", "gpt-5", "--quant", "q4", "out"],
            1,
            f"error: no shape `gpt-5`\n\nhint: these are known: {', '.join(SHAPES)}\n",
        ),
        (
            ["synth", "llama-3.2-1b", "--quant", "q5", "out"],
            2,
            "error: quant `q5` is not known, expected one of q4, q8, bf16\n",
        ),
        (
            ["synth", "llama-3.2-1b", "out"],
            2,
            "error: the following arguments are required: --quant\n\n"
            "hint: `gangline synth --help` shows what it takes\n",
        ),
        (
            ["synth", "llama-3.2-1b", "--quant", "q4", "out", "--layers", "17"],
            2,
            "error: 17 layers of `llama-3.2-1b`, which has 16\n\n"
            "hint: give a number from 1 to 16\n",
        ),
        (
            ["bench", "page", "--model", "out"],
            2,
            "error: `page` cannot be measured\n\nhint: use engine, machine\n",
        ),
        (
            ["bench", "engine"],
            2,
            "error: --model is missing: the engine is measured with a model\n\n"
            "hint: `gangline synth` writes one; `gangline bench machine` needs none\n",
        ),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], code: int, stderr: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_synth_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command_line("synth", "llama-3.2-1b", "--quant", "q8", str(tmp_path / "model")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("writing ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.partial"]
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert not list(tmp_path.iterdir())
