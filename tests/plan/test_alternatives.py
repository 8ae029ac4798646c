"""Other ways to use the machines: named where they are better, with numbers that add up."""

from __future__ import annotations

import pytest

from gangline.plan import catalog
from gangline.plan.alternatives import WORTH, Alternative, alternatives
from gangline.plan.engines import ENGINES, Engine
from gangline.plan.fleet import fleet_of
from gangline.plan.forecast import Arrangement, Wish, arrange
from gangline.plan.shape import cost_of_config


def ask(
    model: str, on: list[str], wish: Wish, engine: Engine = "ours", link: str | None = None
) -> tuple[Arrangement, dict[str, Alternative]]:
    cost = cost_of_config(catalog.model(model).config, 4.5)
    cluster = fleet_of(on, link).cluster(engine, 4.5)
    best = arrange(cost, cluster, wish)[0]
    return best, {one.kind: one for one in alternatives(cost, cluster, wish, best, engine)}


def test_prompts_on_the_machine_that_calculates_answers_on_the_one_that_reads() -> None:
    wish = Wish(16384, 1, 8192)
    best, found = ask("llama-3.1-8b", ["m3-ultra-512", "dgx-spark"], wish, link="10gbe")
    other = found["prefill elsewhere"]
    assert other.machines == ("dgx-spark", "m3-ultra-512")
    assert other.decode_tps == pytest.approx(best.decode_tps, rel=1e-3)
    spark, _ = ask("llama-3.1-8b", ["dgx-spark"], wish)
    sent_bits = 8192 * 32 * 2 * 8 * 128 * 2 * 8  # layers, keys and values, heads, half precision
    sending_s = sent_bits / (catalog.link("10gbe").gbps * 1e9)
    assert other.ttft_s == pytest.approx(spark.prompt_s + sending_s, rel=0.01)
    assert other.ttft_s * WORTH <= best.prompt_s
    _, slow = ask("llama-3.1-8b", ["m3-ultra-512", "dgx-spark"], wish, link="100mbit,5ms")
    assert "prefill elsewhere" not in slow, "the cache takes longer than the prompt"


def test_copies_serve_many_lanes() -> None:
    best, found = ask("llama-3.1-8b", ["m3-ultra-512 x3"], Wish(4096, 64))
    copies = found["replicas"]
    assert len(copies.machines) == 3
    assert copies.decode_tps == pytest.approx(best.decode_tps, rel=1e-3), "each works alone"
    assert copies.throughput_tps >= WORTH * best.lanes_tps
    dealt = [
        ask("llama-3.1-8b", ["m3-ultra-512"], Wish(4096, n))[0].lanes_tps for n in (22, 21, 21)
    ]
    assert copies.throughput_tps == pytest.approx(sum(dealt), rel=1e-3)


def test_one_lane_needs_one_copy() -> None:
    _, found = ask("llama-3.1-8b", ["m3-ultra-512 x3"], Wish(4096))
    assert "replicas" not in found
    assert "throughput" not in found


def test_what_sharing_matrices_would_gain() -> None:
    on, wish = ["m3-ultra-512 x4"], Wish(4096)
    ours, found = ask("llama-3.3-70b", on, wish, link="tb5-rdma")
    assert "tensor" not in ours.parallel, "auto never chooses what ours cannot do"
    other = found["shared matrices"]
    assert other.decode_tps >= WORTH * ours.decode_tps
    assert "ours does not share matrices" in other.why
    mlx, found = ask("llama-3.3-70b", on, wish, engine="mlx", link="tb5-rdma")
    assert mlx.parallel == "tensor"
    assert "shared matrices" not in found


@pytest.mark.parametrize("engine", ["exo", "mlx", "vllm"])
def test_auto_chooses_groups_inside_a_pipeline(engine: Engine) -> None:
    on = ["m3-ultra-96 x2", "m4-max-128 x2"]
    best, _ = ask("llama-3.1-405b", on, Wish(4096), engine=engine, link="tb5-rdma")
    assert best.parallel == "pipeline of tensor groups"


def test_an_engine_of_groups_alone_takes_one_group() -> None:
    best, _ = ask("llama-3.1-8b", ["pi-5-16 x4"], Wish(2048), engine="distributed-llama")
    assert best.parallel == "tensor"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lanes", [1, 4])
def test_each_is_better_in_what_it_is_for(engine: Engine, lanes: int) -> None:
    on = ["m3-ultra-96 x2", "dgx-spark", "strix-halo-128"]
    best, found = ask("gpt-oss-120b", on, Wish(8192, lanes, 4096), engine=engine)
    for kind, other in found.items():
        better = {
            "prefill elsewhere": best.prompt_s / other.ttft_s,
            "replicas": other.throughput_tps / best.lanes_tps,
            "throughput": other.throughput_tps / best.lanes_tps,
            "shared matrices": other.decode_tps / best.decode_tps,
        }[kind]
        assert better >= WORTH * 0.999, "but for rounding"
