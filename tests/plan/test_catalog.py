"""The catalogue: every entry is complete, has a source, and its shape has the published size."""

from __future__ import annotations

import re

import pytest

from gangline.bench.shapes import SHAPES
from gangline.errors import NotFound
from gangline.plan import catalog
from gangline.plan.catalog import LinkType, MachineType, ModelType
from tests.plan.parameter_count import count_parameters

ID = re.compile(r"[a-z0-9][a-z0-9.+]*(-[a-z0-9.+]+)*")


@pytest.mark.parametrize("entry", catalog.machines(), ids=lambda entry: entry.id)
def test_machine(entry: MachineType) -> None:
    assert ID.fullmatch(entry.id)
    assert catalog.machine(entry.id) is entry
    assert entry.name and entry.vendor and entry.chip and len(entry.source) > 20
    assert entry.memory_gb > 0 and 0.5 <= entry.usable_fraction <= 1
    assert entry.memory_gbps > 0, "a machine without a memory bandwidth cannot be planned with"
    assert entry.measured_gbps <= entry.memory_gbps
    assert entry.watts_idle <= entry.watts_busy or not entry.watts_busy
    assert min(entry.fp16_tflops, entry.int8_tops, entry.watts_idle, entry.price_usd) >= 0
    assert bool(entry.price_usd) == bool(entry.price_date), "a price has a date"
    assert re.fullmatch(r"(20\d\d(-\d\d)?)?", entry.price_date)
    for port in entry.ports:
        catalog.link(port)


@pytest.mark.parametrize("entry", catalog.links(), ids=lambda entry: entry.id)
def test_link(entry: LinkType) -> None:
    assert ID.fullmatch(entry.id)
    assert catalog.link(entry.id) is entry
    assert entry.gbps > 0 and entry.rtt_us > 0 and entry.per_message_us >= 0
    assert entry.name and len(entry.source) > 20


@pytest.mark.parametrize("entry", catalog.models(), ids=lambda entry: entry.id)
def test_model(entry: ModelType) -> None:
    """Totals within 2 %; active ones too, or within the half billion that publishers round by.

    Publishers count neither, one or both of embedding and output matrix as active.
    """
    assert ID.fullmatch(entry.id)
    assert catalog.model(entry.id) is entry
    assert entry.name and entry.source.startswith("huggingface.co/")
    assert entry.bits and all(2 <= bits <= 16 for bits in entry.bits)
    count = count_parameters(entry.config)
    assert count.total / 1e9 == pytest.approx(entry.parameters_b, rel=0.02)
    active = count.active_layers / 1e9
    tables = (0, count.output, count.embedding, count.embedding + count.output)
    nearest = min(abs(active + table / 1e9 - entry.active_parameters_b) for table in tables)
    assert nearest <= max(0.02 * entry.active_parameters_b, 0.5)


def test_there_is_something_of_everything() -> None:
    assert len(catalog.models()) >= 50
    assert {machine.kind for machine in catalog.machines()} == {"soc", "gpu", "cpu", "board"}
    assert {link.kind for link in catalog.links()} == {
        "ethernet", "wifi", "thunderbolt", "rdma", "bus",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(SHAPES) & {model.id for model in catalog.models()}))
def test_shapes_for_synth_agree(name: str) -> None:
    ours, theirs = catalog.model(name).config, SHAPES[name].config
    assert {key: theirs[key] for key in ours if key in theirs} == {
        key: value for key, value in ours.items() if key in theirs
    }


def test_a_name_is_found_however_it_is_spelled() -> None:
    assert catalog.machine(" M3 Ultra 512").id == "m3-ultra-512"
    assert catalog.link("TB5 RDMA").id == "tb5-rdma"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="no machine `m3-ultra-521`") as caught:
        catalog.machine("m3-ultra-521")
    assert "`m3-ultra-512`" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        catalog.model("llama-3.1")
    assert "`llama-3.1-8b`" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        catalog.link("carrier pigeon")
    assert all(link.id in caught.value.hint for link in catalog.links())
