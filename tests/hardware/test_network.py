"""Network interfaces, read from samples of systems' own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.facts import Interface
from gangline.hardware.network import (
    Adapter,
    adapter_of,
    interfaces_from_ifconfig,
    interfaces_from_ip,
    read_adapter,
)


def entry(name: str, flags: list[str], *addresses: tuple[str, int]) -> dict[str, object]:
    info = [
        {"family": "inet6" if ":" in a else "inet", "local": a, "prefixlen": n, "scope": "global"}
        for a, n in addresses
    ]
    return {"ifindex": 2, "ifname": name, "flags": flags, "mtu": 1500, "addr_info": info}


IP = json.dumps(
    [
        entry("lo", ["LOOPBACK", "UP"], ("127.0.0.1", 8)),
        entry("eno1", ["BROADCAST", "UP"], ("10.0.0.2", 24), ("fd00::2", 64), ("fe80::2", 64)),
        entry("wlan0", ["BROADCAST", "UP"], ("192.168.1.9", 24)),
        entry("thunderbolt0", ["BROADCAST", "UP"], ("169.254.205.206", 16)),
        entry("docker0", ["NO-CARRIER", "BROADCAST", "UP"], ("172.17.0.1", 16)),
        entry("eno2", ["BROADCAST"], ("10.9.0.2", 24)),
        entry("eno3", ["BROADCAST", "UP"]),
    ]
)
ADAPTERS = {
    "eno1": Adapter("ethernet", 200.0, True),
    "wlan0": Adapter("wifi"),
    "thunderbolt0": Adapter("thunderbolt"),
}

IFCONFIG = """lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\tinet 127.0.0.1 netmask 0xff000000
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=567<RXCSUM,TXCSUM,VLAN_MTU,TSO4,AV,CHANNEL_IO>
\tether 1c:1d:d3:00:00:00
\tinet6 fe80::1%en0 prefixlen 64 secured scopeid 0xb
\tinet 10.0.0.20 netmask 0xffffff00 broadcast 10.0.0.255
\tnd6 options=201<PERFORMNUD,DAD>
\tmedia: autoselect (10Gbase-T <full-duplex>)
\tstatus: active
en1: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 192.168.1.20 netmask 0xffffff00 broadcast 192.168.1.255
\tmedia: autoselect
\tstatus: active
en5: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 192.168.0.1 netmask 0xfffffffc broadcast 192.168.0.3
\tmedia: autoselect <full-duplex>
\tstatus: active
bridge0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 169.254.7.1 netmask 0xffff0000 broadcast 169.254.255.255
\tmember: en3 flags=3<LEARNING,DISCOVER>
\tmedia: <unknown type>
\tstatus: inactive
utun3: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet 100.64.1.2 --> 100.64.1.2 netmask 0xffffffff
"""
PORTS = """
Hardware Port: Ethernet
Device: en0
Ethernet Address: 1c:1d:d3:00:00:00

Hardware Port: Wi-Fi
Device: en1
Ethernet Address: 1c:1d:d3:00:00:01

Hardware Port: Thunderbolt 1
Device: en5
Ethernet Address: 36:00:00:00:00:00

Hardware Port: Thunderbolt Bridge
Device: bridge0
Ethernet Address: 36:00:00:00:00:04
"""
IBV_DEVICES = """    device          \t   node GUID
    ------          \t----------------
    rdma_en5        \t9016a00000000000
"""


def test_linux() -> None:
    assert interfaces_from_ip(IP, ADAPTERS) == (
        Interface("eno1", "ethernet", 200.0, True, ("10.0.0.2/24", "fd00::2/64")),
        Interface("wlan0", "wifi", None, False, ("192.168.1.9/24",)),
        Interface("thunderbolt0", "thunderbolt", None, False, ("169.254.205.206/16",)),
        Interface("docker0", "virtual", None, False, ("172.17.0.1/16",)),
    )
    assert interfaces_from_ip("", ADAPTERS) == ()
    assert interfaces_from_ip('{"not": "a list"}', ADAPTERS) == ()


@pytest.mark.parametrize(
    ("said", "adapter"),
    [
        ({"speed": "10000\n", "is_device": True}, Adapter("ethernet", 10.0)),
        ({"speed": "-1\n", "is_device": True}, Adapter("ethernet")),
        ({"speed": "", "is_device": False}, Adapter("virtual")),
        ({"speed": "", "is_device": True, "is_wireless": True}, Adapter("wifi")),
        ({"speed": "", "driver": "thunderbolt-net"}, Adapter("thunderbolt")),
        ({"speed": "200000", "is_device": True, "rdma": True}, Adapter("ethernet", 200.0, True)),
    ],
)
def test_adapters_of_linux(said: dict[str, object], adapter: Adapter) -> None:
    quiet = {"is_wireless": False, "driver": "", "is_device": False, "speed": "", "rdma": False}
    assert adapter_of(**{**quiet, **said}) == adapter


def test_a_folder_of_linux(tmp_path: Path) -> None:
    (tmp_path / "drivers" / "thunderbolt-net").mkdir(parents=True)
    (tmp_path / "tb0" / "device").mkdir(parents=True)
    (tmp_path / "tb0" / "device" / "driver").symlink_to(tmp_path / "drivers" / "thunderbolt-net")
    assert read_adapter(tmp_path / "tb0") == Adapter("thunderbolt")


def test_macos() -> None:
    assert interfaces_from_ifconfig(IFCONFIG, PORTS, IBV_DEVICES) == (
        Interface("en0", "ethernet", 10.0, False, ("10.0.0.20/24",)),
        Interface("en1", "wifi", None, False, ("192.168.1.20/24",)),
        Interface("en5", "thunderbolt", None, True, ("192.168.0.1/30",)),
        Interface("utun3", "virtual", None, False, ("100.64.1.2/32",)),
    )
    assert interfaces_from_ifconfig("", "", "") == ()


@given(st.text())
def test_nothing_they_say_raises(text: str) -> None:
    interfaces_from_ip(text, ADAPTERS)
    interfaces_from_ifconfig(text, text, text)
