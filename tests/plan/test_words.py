"""What a plan says to somebody who asks: groups of machines, what is missing, what is unknown."""

from __future__ import annotations

import pytest

from gangline.errors import NotFound, UsageError
from gangline.plan.advice import Advice, advise
from gangline.plan.catalog import model as model_of
from gangline.plan.engines import Engine
from gangline.plan.fleet import fleet_of
from gangline.plan.forecast import Wish
from gangline.plan.question import Question
from gangline.plan.shape import cost_of_config


def ask(
    model: str,
    *on: str,
    link: str | None = None,
    engine: Engine = "ours",
    lanes: int = 1,
) -> Advice:
    config = model_of(model).config
    fleet = fleet_of(on, link)
    shape = lambda bits: cost_of_config(config, bits)  # noqa: E731
    return advise(Question(model, shape, 4.5, fleet, engine, Wish(4096, lanes, 512)))


def test_a_group_has_a_link_of_its_own() -> None:
    fleet = fleet_of(["m3-ultra-512 x2 @tb5-rdma", "dgx-spark"], "10gbe")
    assert fleet.way(0, 1).id == "tb5-rdma"
    assert fleet.way(0, 2).id == fleet.way(2, 1).id == "10gbe"
    assert fleet.link_name == "tb5-rdma, 10gbe"
    assert fleet_of(["pi-5-16 x2 @1gbit/3ms"], None).way(0, 1).rtt_us == 3000


def test_machines_named_apart_are_groups_of_their_own() -> None:
    fleet = fleet_of(["dgx-spark x2 @200gbe-rdma", "dgx-spark x2 @200gbe-rdma"], "1gbe")
    assert fleet.way(0, 1).id == fleet.way(2, 3).id == "200gbe-rdma"
    assert fleet.way(1, 2).id == "1gbe"


def test_only_the_group_with_the_fast_link_shares_matrices() -> None:
    on = ("m3-ultra-512 x2 @tb5-rdma", "m3-ultra-512")
    advice = ask("llama-3.3-70b", *on, link="1gbe", engine="exo")
    assert [stage.machines for stage in advice.stages] == [("m3-ultra-512",) * 2]
    alone = ask("llama-3.3-70b", "m3-ultra-512 x2", link="tb5-rdma", engine="exo")
    assert advice.decode_tps == alone.decode_tps


def test_an_unknown_link_of_a_group_is_refused() -> None:
    with pytest.raises(NotFound):
        fleet_of(["m3-ultra-512 x2 @string"], None)
    with pytest.raises(UsageError):
        fleet_of(["m3-ultra-512 x2 @0gbit"], None)


def test_what_would_be_enough_is_said_with_its_speed() -> None:
    said = " ".join(ask("llama-3.3-70b", "rtx-4090").why)
    assert "2 of GeForce RTX 4090 would be enough and give" in said
    assert "(offload), as a rule several times slower; that is not predicted here" in said


def test_one_machine_that_holds_it_is_one_that_can_be_read_along_with() -> None:
    line = next(one for one in ask("llama-3.3-70b", "rtx-4090").why if one.startswith("One "))
    assert float(line.split(" give ")[1].split()[0]) >= 5


def test_macos_gives_gpus_a_part_of_memory() -> None:
    said = " ".join(ask("llama-3.3-70b", "m4-max-48").why)
    assert "macOS lets GPUs have about 75% of memory; raised" in said
    assert "macOS" not in " ".join(ask("llama-3.1-405b", "m4-max-48").why)


def test_lanes_that_do_not_fit_say_how_many_would() -> None:
    advice = ask("llama-3.1-8b", "rtx-4090", lanes=1000)
    line = next(one for one in advice.why if one.startswith("With "))
    n = int(line.split()[1])
    assert line == f"With {n} lanes of 4096 tokens it fits."
    assert ask("llama-3.1-8b", "rtx-4090", lanes=n).fits
    assert not ask("llama-3.1-8b", "rtx-4090", lanes=n + 1).fits


def test_an_engine_that_nobody_measured_there_is_said_to_be() -> None:
    assert any("No published measurement of vllm" in one for one in _vllm("m4-max-128"))
    assert not any("No published measurement" in one for one in _vllm("rtx-3090"))


def _vllm(on: str) -> tuple[str, ...]:
    return ask("llama-3.1-8b", on, engine="vllm").why


def test_a_limit_by_kernels_is_not_answered_with_memory() -> None:
    why = ask("qwen3-30b-a3b", "m1-ultra-128").why
    limit = next(one for one in why if one.startswith("What limits it"))
    assert "the number of kernels" in limit
    assert not any("faster memory would." in one for one in why)
