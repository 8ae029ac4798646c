"""Ways to another node: by which of its addresses, and which one is the best; pure.

Two machines may share several networks: a cable between them, a switch, Wi-Fi. Each address of the
other one that lies in a network of ours is a way of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gangline.facts import Interface, InterfaceKind, Link, LinkPath
from gangline.stage.handshake import join_address, split_address

MAX_WAYS = 4  # measured per peer; a machine with more networks in common than this is a router
HOP_BYTES = 16 << 10  # a hidden state of 4096 numbers, what a token sends over each hop


class Way(NamedTuple):
    """A way that can be measured."""

    address: str  # "host:port" of the peer's echo
    kind: InterfaceKind | None  # of our interface towards it


def find_ways(own: Iterable[Interface], echo_address: str, hosts: Iterable[str]) -> list[Way]:
    """The ways to a peer that answers echoes at `echo_address` and at its other `hosts` too.

    `hosts` are "10.0.0.2/24" as in `Interface.addresses`. The address that the peer itself names
    comes first; addresses that this machine has as well (bridges of containers) lead nowhere.
    """
    named, port = split_address(echo_address)
    networks = [
        (ipaddress.ip_interface(address), interface.kind)
        for interface in own
        for address in interface.addresses
    ]
    ours = {network.ip for network, _ in networks}
    shared = [named]
    for host in hosts:
        address = ipaddress.ip_interface(host).ip
        if address not in ours and _kind(address, networks) is not None:
            shared.append(str(address))
    ways: dict[str, Way] = {}
    for host in shared:
        kind = _kind(_parse(host), networks)
        ways.setdefault(host, Way(join_address(host, port), kind))
    return list(ways.values())[:MAX_WAYS]


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Networks = Sequence[tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, InterfaceKind]]


def _kind(address: _Address | None, networks: _Networks) -> InterfaceKind | None:
    """The kind of our interface in whose network the address lies; the narrowest network wins."""
    if address is None:
        return None
    known = [(own.network.prefixlen, kind) for own, kind in networks if address in own.network]
    return max(known, key=lambda found: found[0])[1] if known else None


def _parse(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None  # a name


def hop_s(path: LinkPath) -> float:
    """Seconds of a token's hop: half a round trip and its bytes; infinite where not measured."""
    if path.rtt_us is None or not path.gbps:
        return float("inf")
    return path.rtt_us / 2e6 + HOP_BYTES * 8 / (path.gbps * 1e9)


def best_first(paths: Iterable[LinkPath]) -> tuple[LinkPath, ...]:
    """The measured paths, the one with the fastest hop first."""
    return tuple(sorted(paths, key=lambda path: (hop_s(path), path.rtt_us or float("inf"))))


def by_best_way(address: str, link: Link | None) -> str:
    """`address` of a peer's worker with the host of the best way to that peer."""
    if link is None or not link.address:
        return address
    _, port = split_address(address)
    return join_address(link.address, port)
