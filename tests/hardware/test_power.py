"""Mains or battery, read from samples of systems' own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.hardware.power import power_from_pmset, power_from_supplies

PMSET = """Now drawing from '{} Power'
 -InternalBattery-0 (id=22806627)\t87%; discharging; 6:12 remaining present: true
"""
MAINS = "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE={}\n"
BATTERY = "POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS={}\n"
MOUSE = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_SCOPE=Device\n"


def test_macos() -> None:
    assert power_from_pmset(PMSET.format("AC")) == "mains"
    assert power_from_pmset(PMSET.format("Battery")) == "battery"
    assert power_from_pmset("") is None


@pytest.mark.parametrize(
    ("supplies", "source"),
    [
        ([], None),
        ([MAINS.format(1), BATTERY.format("Charging")], "mains"),
        ([BATTERY.format("Discharging"), MAINS.format(0)], "battery"),
        ([BATTERY.format("Full")], "mains"),
        ([BATTERY.format("Full"), BATTERY.format("Discharging")], "battery"),
        ([MOUSE], None),
    ],
)
def test_linux(supplies: list[str], source: str | None) -> None:
    assert power_from_supplies(supplies) == source


@given(st.text())
def test_nothing_they_say_raises(text: str) -> None:
    power_from_pmset(text)
    power_from_supplies([text])
