"""What a forecast promises: true whatever the machines, and true to what was published."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pytest

from gangline.errors import NotFound, UsageError
from gangline.plan import catalog
from gangline.plan.advice import Advice, advise
from gangline.plan.engines import ENGINES, Engine, class_of, published_fit, rates_of
from gangline.plan.fleet import fleet_of, link_of
from gangline.plan.forecast import Parallel, Wish, arrange, best_throughput
from gangline.plan.market import Limits, compare, offers
from gangline.plan.plot import plot_offers
from gangline.plan.question import Question
from gangline.plan.shape import ModelCost, cost_of_config

DATA = Path(__file__).parents[2] / "tools" / "data" / "published.csv"


def ask(
    model: str,
    *on: str,
    bits: float = 4.5,
    link: str | None = None,
    engine: Engine = "ours",
    context: int = 4096,
    lanes: int = 1,
    parallel: Parallel = "auto",
) -> Advice:
    config = catalog.model(model).config
    return advise(
        Question(
            model,
            lambda wanted: cost_of_config(config, wanted),
            bits,
            fleet_of(on, link),
            engine,
            Wish(context, lanes, 512, parallel),
        )
    )


@pytest.mark.parametrize(
    ("row", "model", "on", "bits", "within"),
    [
        ("LC4167-050", "llama-2-7b", "m3-max-128", 4.54, 0.2),
        ("LC4167-040", "llama-2-7b", "m2-ultra-192", 16, 0.2),
        ("LC15013-005", "llama-2-7b", "rtx-4090", 4.54, 0.2),
        ("DGX-013", "qwen2.5-7b", "dgx-spark", 8.5, 0.2),
        ("KYU-040", "gpt-oss-120b", "strix-halo-128", 4.34, 0.2),
        ("GAI-059", "llama-3.2-3b", "pi-5-16", 5.0, 0.2),
    ],
)
def test_published_measurements_are_met(
    row: str, model: str, on: str, bits: float, within: float
) -> None:
    with DATA.open(encoding="utf-8", newline="") as file:
        measured = next(float(one["value"]) for one in csv.DictReader(file) if one["id"] == row)
    advice = ask(model, on, bits=bits, engine="llama.cpp")
    assert advice.decode_tps == pytest.approx(measured, rel=within)


def test_ten_times_sixteen_is_not_one_hundred_and_sixty() -> None:
    ten = ask("llama-3.3-70b", "pi-5-16 x10")
    assert ten.fits
    assert len(ten.memory_gb) == 3, "three hold it; each further one would add a hop"
    assert ten.decode_tps is not None
    one = ask("llama-3.2-3b", "pi-5-16").decode_tps
    assert one is not None
    assert ten.decode_tps < one / 15, "22 times the weights at the pace of one machine"
    said = " ".join(ten.why)
    assert "The memory of 3 machines adds up, their speed does not" in said
    assert "10 x 16 GB hold what one machine of 160 GB holds" in said


def test_what_does_not_fit_says_what_would_be_enough() -> None:
    advice = ask("llama-3.1-405b", "pi-5-16")
    assert not advice.fits
    assert advice.decode_tps is None
    said = " ".join(advice.why)
    assert "It does not fit: it needs 215 GiB" in said
    assert "16 of Raspberry Pi 5, 16 GB would be enough and give 0.0" in said
    assert '(`--on "pi-5-16 x16"`).' in said
    assert ask("llama-3.1-405b", "pi-5-16 x16").fits, "what was said is true"
    assert "--on m5-ultra-512" in said
    assert ask("llama-3.1-405b", "m5-ultra-512").fits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-120b", "deepseek-v3"])
def test_more_machines_never_predict_slower(model: str, engine: Engine) -> None:
    before = 0.0
    for count in (1, 2, 3, 4, 6, 8, 9, 12, 16):
        advice = ask(model, f"m3-ultra-512 x{count}", link="10gbe", engine=engine)
        assert advice.fits
        assert advice.decode_tps is not None
        assert advice.decode_tps >= before - 1e-9
        before = advice.decode_tps


def test_a_slow_machine_is_left_out_with_its_reason() -> None:
    advice = ask("llama-3.1-8b", "m3-ultra-512", "pi-5-16", link="1gbe")
    assert [stage.machines for stage in advice.stages] == [("m3-ultra-512",)]
    (out,) = advice.left_out
    assert out.machine == "pi-5-16"
    assert "would slow each token down" in out.why


def test_memory_is_kept_and_every_layer_is_there_once() -> None:
    advice = ask("deepseek-v3", "m3-ultra-96 x3", "dgx-spark x2", "strix-halo-128", lanes=4)
    assert advice.fits
    ends = [0, *(stage.layers[1] for stage in advice.stages)]
    assert [stage.layers[0] for stage in advice.stages] == ends[:-1]
    assert ends[-1] == 61
    for stage in advice.stages:
        for name in stage.machines:
            assert stage.memory_gb * 2**30 <= catalog.machine(name).usable_bytes + 2**24


def test_lanes_add_throughput_and_stages_share_them() -> None:
    model = cost_of_config(catalog.model("llama-3.3-70b").config, 4.5)
    cluster = fleet_of(["pi-5-16 x4"], "1gbe").cluster("ours", 4.5)
    few, many = (arrange(model, cluster, Wish(1024, lanes, 64))[0] for lanes in (1, 12))
    assert many.lanes_tps > 2 * few.lanes_tps
    best = best_throughput(model, cluster, Wish(1024, 12, 64))
    assert best is not None
    assert best.lanes_tps >= many.lanes_tps


def test_the_last_mlp_of_a_prompt_runs_for_one_row() -> None:
    """Ours leaves the rest out: of one of 16 layers four fifths, as the time to the first token."""
    config = catalog.model("llama-3.2-1b").config

    def ttft_s(known: bool, engine: Engine = "ours") -> float:
        def cost(bits: float) -> ModelCost:
            made = cost_of_config(config, bits)
            if known:
                return made
            layers = (msgspec.structs.replace(layer, mlp_flops=0) for layer in made.layers)
            return msgspec.structs.replace(made, layers=tuple(layers))

        fleet = fleet_of(("m3-max-128",), None)
        wish = Wish(4096, 1, 512)
        found = advise(Question("one", cost, 4.5, fleet, engine, wish)).ttft_s
        assert found is not None
        return found

    assert 0.94 < ttft_s(True) / ttft_s(False) < 0.96
    assert ttft_s(True, "llama.cpp") == ttft_s(False, "llama.cpp")


def test_sharing_matrices_pays_where_the_link_is_quick() -> None:
    quick = ask("llama-3.3-70b", "m3-ultra-512 x4", link="tb5-rdma", engine="mlx")
    slow = ask("llama-3.3-70b", "m3-ultra-512 x4", link="wifi5", engine="mlx")
    assert quick.parallel == "tensor"
    assert slow.parallel == "single"
    assert quick.decode_tps is not None
    assert slow.decode_tps is not None
    assert quick.decode_tps > 1.3 * slow.decode_tps


def test_every_engine_and_machine_has_rates() -> None:
    fit = published_fit()
    for machine in catalog.machines():
        assert class_of(machine.chip, machine.kind) in fit.classes
        for engine in ENGINES:
            rates = rates_of(machine, engine, 4.5)
            assert 0 < rates.bytes_per_s <= machine.memory_gbps * 1e9


def test_links_by_their_speed() -> None:
    link = link_of("100mbit,5ms")
    assert (link.gbps, link.rtt_us) == (0.1, 5000.0)
    assert link_of("2.5gbit").gbps == 2.5
    with pytest.raises(UsageError, match="carries nothing"):
        link_of("0gbit")
    with pytest.raises(NotFound, match="no link"):
        link_of("carrier pigeon")


@pytest.mark.parametrize(("on", "error"), [("pi-5-16 x0", UsageError), ("pi-9", NotFound)])
def test_machines_that_are_none(on: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        fleet_of([on], None)


@pytest.mark.parametrize("on", ["m3-ultra-512 x2", "2x m3-ultra-512", "m3-ultra-512,m3-ultra-512"])
def test_how_machines_may_be_counted(on: str) -> None:
    assert fleet_of([on], None).name == "2 x m3-ultra-512"
    assert fleet_of([on], None).link.id == "tb5-rdma"


def test_offers_keep_their_limits() -> None:
    config = catalog.model("gpt-oss-120b").config
    found = offers(
        lambda bits: cost_of_config(config, bits), 4.25, "ours", Wish(4096),
        Limits(min_tps=40, budget_usd=5000, max_watts=300),
    )  # fmt: skip
    assert found
    for offer in found:
        assert offer.decode_tps >= 40
        assert offer.price_usd is not None
        assert offer.price_usd <= 5000
        assert offer.watts is not None
        assert offer.watts <= 300
    assert [o.price_usd for o in found] == sorted(o.price_usd or 0 for o in found)
    picture = plot_offers("gpt-oss-120b <4 bits>", found)
    assert picture.startswith("<svg")
    assert "<4" not in picture
    assert picture.count('class="mark"') == len(found)


def test_machines_side_by_side() -> None:
    config = catalog.model("llama-3.3-70b").config
    shapes = {"llama-3.3-70b": (lambda bits: cost_of_config(config, bits), 4.5)}
    machines = [catalog.machine("m4-max-128"), catalog.machine("rtx-4090")]
    large, small = compare(machines, shapes, "ours")
    assert large.tps["llama-3.3-70b"] is not None
    assert small.tps["llama-3.3-70b"] is None, "42 GB do not fit into 24"


def test_the_answer_travels_as_json() -> None:
    advice = ask("gpt-oss-120b", "m3-ultra-512 x2", lanes=8)
    body = msgspec.json.encode(advice)
    assert msgspec.json.decode(body, type=Advice) == advice
    keys = msgspec.json.decode(body)
    for key in (
        "fits", "memory_gb", "decode_tps", "decode_tps_error", "prefill_tps", "ttft_s",
        "throughput_tps", "watts", "price_usd", "stages", "left_out", "runner_up", "why",
    ):  # fmt: skip
        assert key in keys
