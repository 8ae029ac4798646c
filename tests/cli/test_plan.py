"""`gangline plan` and `gangline shop`: what they print, and how they refuse."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import pytest

from gangline.cli.main import main
from gangline.cli.picture import ZOOM
from gangline.cli.plan import find_model, stored_bits
from gangline.plan.catalog import machines
from gangline.plan.engines import find_engine
from gangline.plan.forecast import Wish
from gangline.plan.market import Limits, cheapest, offers
from gangline.plan.numbers import rate, usd
from gangline.plan.plot import HEIGHT, WIDTH
from tests.cli.conftest import Run
from tests.cluster import Cluster
from tests.make_checkpoint import make_checkpoint
from tests.make_gguf import make_gguf


def test_a_plan_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.3-70b", "--on", "pi-5-16 x10", "--lanes", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "llama-3.3-70b at 4.5 bits, pipeline, ours"
    assert any(line.startswith("one answer") and "±" in line for line in lines)
    assert any(line.startswith("left out: ") and "pi-5-16" in line for line in lines)
    assert any("their speed does not" in line for line in lines)
    assert any(line.startswith("What limits it is memory bandwidth") for line in lines)


def test_a_plan_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--on", "m3-ultra-512 x2", "dgx-spark", "--link", "10gbe"]
    assert main(["plan", "gpt-oss-120b", *on, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] is True
    assert plan["link"] == "10gbe"
    assert plan["decode_tps"] > 50
    assert 0 < plan["decode_tps_error"] < 1
    assert [out["machine"] for out in plan["left_out"]] == ["m3-ultra-512", "dgx-spark"]
    assert plan["stages"][0]["layers"] == [0, 36]


def test_other_ways_to_use_the_machines(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "llama-3.3-70b", "--on", "m3-ultra-512 x2", "dgx-spark", "--prompt", "4096"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "FIRST TOKEN  ONE ANSWER  TOGETHER" in out
    assert main([*asked, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["alternatives"]
    assert first["kind"] == "prefill elsewhere"
    assert first["machines"] == ["dgx-spark", "m3-ultra-512"]
    assert first["ttft_s"] > 1
    assert second["kind"] == "shared matrices"
    assert second["decode_tps"] > first["decode_tps"]
    assert first["why"] in out


@pytest.mark.cluster
def test_a_plan_on_the_live_cluster(run: Run, cluster: Cluster) -> None:
    done = run("plan", "demo", "--lanes", "2", "--json", GANGLINE_URL=cluster.urls[0])
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["fits"] is True
    assert plan["engine"] == "ours"
    assert plan["lanes"] == 2
    assert plan["decode_tps"] > 1
    assert len(plan["stages"]) == 1
    words = run("plan", "demo", GANGLINE_URL=cluster.urls[0]).stdout
    assert "measured of the machines" in words


def test_what_does_not_fit_is_a_failure_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-405b", "--on", "pi-5-16", "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] is False
    assert "would be enough" in " ".join(plan["why"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan", "llama-3.3-70", "--on", "pi-5-16"], 1, "did you mean `llama-3.3-70b`?"),
        (["plan", "llama-3.3-70b", "--on", "m3-ultr-512"], 1, "did you mean"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16", "--link", "10gb"], 1, "`10gbe`"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16 x2", "--link", "0gbit"], 2, "carries nothing"),
        (["plan", "llama-3.3-70b", "--on", ""], 2, "no machines are named"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16", "--bits", "64"], 2, "outside 1..32"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16", "--context", "9999999"], 2, "131072"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16", "--engine", "abacus"], 1, "no engine"),
        (["plan", "./nowhere", "--on", "pi-5-16"], 1, "no folder"),
        (["plan", "./nowhere.gguf", "--on", "pi-5-16"], 1, "no folder or file"),
        (["plan", "llama-3.3-70b", "--on", "abacus"], 1, "`gangline plan --list machines`"),
        (["plan", "zzz", "--on", "pi-5-16"], 1, "`gangline plan --list models` lists all 88"),
        (["plan", "--on", "pi-5-16"], 2, "`gangline plan --list models`"),
        (["plan", "demo", "--on", "pi-5-16", "--prompt", "4000"], 2, "4000 tokens is longer than"),
        (["plan", "llama-3.3-70b", "--on", "pi-5-16 x2", "--link", "string"], 1, "10gbe"),
        (["plan", "demo", "--url", "http://127.0.0.1:1"], 1, "--on"),
        (["plan", "llama-3.3-70b", "--link", "10gbe"], 2, "measured on a live cluster"),
        (["shop", "llama-3.3-70b"], 2, "a speed are needed"),
        (["shop", "llama-3.3-70b", "--min-tps", "-1"], 2, "not a positive number"),
        (["shop", "llama-3.3-70b", "--min-tps", "9", "--budget", "9"], 1, "within these limits"),
        (["shop", "llama-3.2-1b", "--min-tps", "9", "--budget", "9"], 1, "the cheapest that is so"),
        (["shop", "llama-3.2-1b", "--min-tps", "99999"], 1, "the fastest of all is"),
        (["shop", "llama-3.3-70b", "--min-tps", "9", "--plot", "a.gif"], 2, ".svg or .png"),
    ],
)
def test_odd_questions_get_an_answer(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_numbers_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled model on a large card: very fast, and next to nothing for a million tokens."""
    assert main(["plan", "demo", "--on", "h200-141-sxm x2", "--lanes", "64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("demo at ")
    assert "e+" not in out and "$0.00 " not in out
    assert re.search(r"64 lanes +\d+,\d00 tok/s", out), out
    for value, shown in (
        (36_123.0, "36,100"),
        (999.4, "999"),
        (0.0314, "0.031"),
        (0.00001, "0.00001"),
    ):
        assert rate(value) == shown
    assert [usd(v) for v in (0.0004, 0.31, 12_000.0)] == ["$0.0004", "$0.31", "$12,000"]


def test_the_cheapest_is_the_first_of_all_offers_that_are_so_fast() -> None:
    _, shape, bits = find_model("llama-3.3-70b", None)
    engine, wish = find_engine("ours"), Wish(4096)
    some = machines()[::9]
    every = offers(shape, bits, engine, wish, Limits(), some)
    for min_tps in (0.1, 5.0, 15.0, 1e9):
        first = next((one for one in every if one.decode_tps >= min_tps), None)
        assert cheapest(shape, bits, engine, wish, min_tps, some) == first


def test_what_the_catalogue_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--list", "models"]) == 0
    assert any(line.startswith("llama-3.3-70b  ") for line in capsys.readouterr().out.splitlines())
    assert main(["plan", "--list", "links", "--json"]) == 0
    assert "10gbe" in [link["id"] for link in json.loads(capsys.readouterr().out)]


def test_a_gguf_file_is_planned_without_loading_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_gguf(tmp_path / "Tiny.gguf", make_checkpoint(tmp_path / "hf", n_layers=2), "Q8_0")
    assert main(["plan", str(file), "--on", "pi-5-16", "--context", "64", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"] == "Tiny"
    assert plan["stages"][0]["layers"] == [0, 2]


def test_offers_and_their_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "offers.svg"
    asked = ["shop", "gpt-oss-120b", "--min-tps", "40", "--budget", "4000", "--plot", str(picture)]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "strix-halo-128" in out
    assert picture.read_text(encoding="utf-8").startswith("<svg")


def test_a_picture_for_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("resvg_py", reason="the extra `plot` is not installed")
    picture = tmp_path / "offers.png"
    asked = ["shop", "gpt-oss-120b", "--min-tps", "40", "--budget", "4000", "--plot", str(picture)]
    assert main(asked) == 0
    assert f"{picture} written" in capsys.readouterr().err
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    size = struct.unpack(">II", data[16:24])  # of the header chunk, which comes first
    assert size == (WIDTH * ZOOM, HEIGHT * ZOOM)


def test_a_png_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert main(["shop", "gpt-oss-120b", "--min-tps", "50", "--plot", "a.png"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'gangline[plot]'" in said
    assert "a.svg" in said


def test_machines_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shop", "--compare", "dgx-spark", "rtx-4090"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[-2:] == ["dgx-spark", "rtx-4090"]
    assert "does not fit" in out


def test_bits_with_and_without_their_scales() -> None:
    assert [stored_bits(bits) for bits in (4, 8, 4.25, 16)] == [4.5, 8.5, 4.25, 16]
