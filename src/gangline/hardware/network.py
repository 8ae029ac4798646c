"""Network interfaces with their kind, speed and addresses; parsers of what systems say."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from gangline.facts import Interface, InterfaceKind
from gangline.hardware.system import read_text, run_command, to_number

_NET = Path("/sys/class/net")
_RDMA = Path("/sys/class/infiniband")


class Adapter(msgspec.Struct, frozen=True):
    """What Linux's files say of one interface besides its addresses."""

    kind: InterfaceKind
    gbps: float | None = None
    rdma: bool = False


def read_interfaces() -> tuple[Interface, ...]:
    """Interfaces that are up and have an address, loopback left out; empty where nobody tells."""
    if sys.platform == "darwin":
        return interfaces_from_ifconfig(
            run_command("ifconfig", "-a"),
            run_command("networksetup", "-listallhardwareports"),
            run_command("ibv_devices"),
        )
    if sys.platform == "win32":
        return ()
    text = run_command("ip", "-json", "address")
    return interfaces_from_ip(text, {path.name: read_adapter(path) for path in _NET.glob("*")})


def read_adapter(folder: Path) -> Adapter:
    """From an interface's folder under /sys/class/net."""
    device = folder / "device"
    return adapter_of(
        is_wireless=(folder / "wireless").exists() or (folder / "phy80211").exists(),
        driver=(device / "driver").resolve().name if (device / "driver").exists() else "",
        is_device=device.exists(),
        speed=read_text(folder / "speed"),
        rdma=any((card / "device" / "net" / folder.name).exists() for card in _RDMA.glob("*")),
    )


def adapter_of(
    *, is_wireless: bool, driver: str, is_device: bool, speed: str, rdma: bool
) -> Adapter:
    """`speed` is in Mbit/s, and -1 or nothing where the driver does not know."""
    if is_wireless:
        kind: InterfaceKind = "wifi"
    elif driver == "thunderbolt-net":
        kind = "thunderbolt"
    else:
        kind = "ethernet" if is_device else "virtual"
    mbps = to_number(speed)
    return Adapter(kind, mbps / 1000 if mbps else None, rdma)


def interfaces_from_ip(text: str, adapters: Mapping[str, Adapter]) -> tuple[Interface, ...]:
    """From iproute2's `ip -json address`."""
    try:
        entries = msgspec.json.decode(text.encode("utf-8", "replace"), type=list[_IpEntry])
    except msgspec.DecodeError:
        return ()
    found = []
    for entry in entries:
        if "UP" not in entry.flags or "LOOPBACK" in entry.flags:
            continue
        addresses = _addresses((one.local, one.prefixlen) for one in entry.addr_info)
        if addresses:
            adapter = adapters.get(entry.ifname, Adapter("virtual"))
            found.append(
                Interface(entry.ifname, adapter.kind, adapter.gbps, adapter.rdma, addresses)
            )
    return tuple(found)


class _IpAddress(msgspec.Struct):
    local: str = ""
    prefixlen: int = 0


class _IpEntry(msgspec.Struct):
    ifname: str = ""
    flags: list[str] = []
    addr_info: list[_IpAddress] = []


_MEDIA_GBPS = {"10baseT": 0.01, "100baseTX": 0.1, "1000baseT": 1.0, "2500Base-T": 2.5,
               "5000Base-T": 5.0, "10Gbase-T": 10.0}  # fmt: skip


def interfaces_from_ifconfig(text: str, ports: str, rdma_devices: str) -> tuple[Interface, ...]:
    """From macOS's `ifconfig -a`, `networksetup -listallhardwareports` and `ibv_devices`.

    The RDMA device of interface en5 is called rdma_en5.
    """
    titles = {
        device: title for title, device in re.findall(r"Hardware Port: (.+)\nDevice: (\w+)", ports)
    }
    rdma = set(re.findall(r"^\s*rdma_(\w+)\s", rdma_devices, re.MULTILINE))
    found = []
    for block in re.split(r"^(?=\w+: flags=)", text, flags=re.MULTILINE):
        head = re.match(r"(\w+): flags=[0-9a-f]+<([\w,]*)>", block)
        if head is None or "UP" not in head[2].split(",") or "LOOPBACK" in head[2].split(","):
            continue
        addresses = _addresses((*_inet(block), *_inet6(block)))
        if addresses and "status: inactive" not in block:
            media = re.search(r"media: .*?\(([\w-]+)", block)
            gbps = _MEDIA_GBPS.get(media[1]) if media is not None else None
            members = set(re.findall(r"member: (\w+)", block))
            kind = _kind_of_port(titles.get(head[1], ""))
            found.append(
                Interface(head[1], kind, gbps, not rdma.isdisjoint({head[1], *members}), addresses)
            )
    return tuple(found)


def _inet(block: str) -> list[tuple[str, int]]:
    """IPv4 addresses with the number of bits in their masks."""
    found = re.findall(
        r"^\s+inet ([0-9.]+)(?: --> [0-9.]+)? netmask 0x([0-9a-f]{8})", block, re.MULTILINE
    )
    return [(address, int(mask, 16).bit_count()) for address, mask in found]


def _inet6(block: str) -> list[tuple[str, int]]:
    found = re.findall(r"^\s+inet6 ([0-9a-f:]+) prefixlen ([0-9]{1,3})", block, re.MULTILINE)
    return [(address, int(bits)) for address, bits in found]


def _kind_of_port(title: str) -> InterfaceKind:
    if title == "Wi-Fi":
        return "wifi"
    if title.startswith("Thunderbolt") and "Ethernet" not in title:
        return "thunderbolt"
    return "ethernet" if title else "virtual"


def _addresses(pairs: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """`10.0.0.2/24` of each pair; those that reach only with a scope (fe80::) are left out."""
    found = []
    for address, prefix in pairs:
        try:
            interface = ipaddress.ip_interface(f"{address}/{prefix}")
        except ValueError:  # no address, or one that needs its interface's name
            continue
        if interface.version == 4 or not interface.is_link_local:
            found.append(str(interface))
    return tuple(found)
