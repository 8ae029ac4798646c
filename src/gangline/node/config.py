"""What a node is told when it starts; knows no file and opens nothing."""

from __future__ import annotations

import ipaddress
import re
import socket
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gangline.errors import UsageError
from gangline.facts import Hardware, Interface, check_backend
from gangline.paths import home

DEFAULT_PORT = 5454
SCOUT_GROUP = "224.0.0.224"  # zenoh's; link-local multicast, never routed
_SCOUT_PORTS = range(17447, 17447 + 1024)  # one for each cluster name, so that clusters stay apart
MAX_NAME = 253  # of a host, RFC 1035
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ANY_ADDRESS = ("0.0.0.0", "::")


class NodeConfig(msgspec.Struct, frozen=True):
    """Configuration of one node; `check_config` says what is wrong with it."""

    cluster: str = "gangline"  # clusters with different names ignore each other
    name: str = msgspec.field(default_factory=socket.gethostname)
    home: Path = msgspec.field(default_factory=home)
    listen: str = "127.0.0.1"  # address of API, hops and links; the node is reachable there only
    advertise: str = ""  # address that others use; "": listen, or the primary address
    port: int = DEFAULT_PORT  # API
    control_port: int | None = None  # zenoh; None: port + 1, or any free port where port is 0
    peers: tuple[str, ...] = ()  # "host", "host:port" of its API, or "tcp/host:port" of its control
    scout: bool = True  # find peers by multicast
    threads: int | None = None  # of each worker; None: all cores
    backend: str = "auto"  # of workers whose load names none
    models: tuple[str, ...] = ()  # models and folders of such besides the demo and home/models
    hardware: Hardware | None = None  # given where several nodes on one machine measure once


def check_config(config: NodeConfig) -> None:
    """Raise UsageError for what could not work."""
    if not _CLUSTER_NAME.fullmatch(config.cluster):
        raise UsageError(
            f"`{config.cluster}` is no name of a cluster",
            hint="use up to 64 letters, digits, '.', '_' and '-'",
        )
    for name, port in (("port", config.port), ("control port", config.control_port or 0)):
        if not 0 <= port <= 65534:
            raise UsageError(f"{name} {port} is outside 0..65534")
    if not 1 <= len(config.name) <= MAX_NAME or not config.name.isprintable():
        raise UsageError(
            f"{config.name!r} is no name of a node",
            hint=f"use 1 to {MAX_NAME} letters that can be seen",
        )
    check_backend(config.backend)
    for peer in config.peers:
        peer_endpoint(peer)


def bare_address(address: str) -> str:
    """An address as a system takes it: IPv6 without the brackets that it has in front of ports."""
    inner = address[1:-1] if address.startswith("[") and address.endswith("]") else ""
    return inner if ":" in inner else address


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without a port, can only mean this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def advertised_address(config: NodeConfig) -> str:
    """The address at which others reach this node."""
    if config.advertise:
        return config.advertise
    return primary_address() if config.listen in _ANY_ADDRESS else config.listen


def reached_hosts(listen: str, interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """The addresses, with their networks, at which a node that listens on `listen` is reached."""
    if listen not in _ANY_ADDRESS:
        return ()
    return tuple(address for interface in interfaces for address in interface.addresses)


def primary_address() -> str:
    """The address that this machine would use towards other networks; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737: routed nowhere
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def endpoint(host: str, port: int) -> str:
    """A zenoh endpoint."""
    return f"tcp/[{host}]:{port}" if ":" in host else f"tcp/{host}:{port}"


def peer_endpoint(peer: str) -> str:
    """The zenoh endpoint of a peer as a user wrote it; raises UsageError."""
    if peer.startswith("tcp/"):
        return peer
    if peer.startswith("["):
        host, _, rest = peer[1:].partition("]")
        port = rest.removeprefix(":")
    elif peer.count(":") > 1:
        host, port = peer, ""
    else:
        host, _, port = peer.partition(":")
    digits = not port or re.fullmatch(r"[0-9]{1,5}", port)
    if not host or re.search(r"[\s/]", host) or not digits or int(port or 0) > 65534:
        raise UsageError(f"`{peer}` is no peer", hint="write host, host:port or tcp/host:port")
    return endpoint(host, int(port or DEFAULT_PORT) + 1)


def scout_interface(listen: str) -> str:
    """The interface of multicast scouting: never one that `listen` does not cover."""
    if is_loopback(listen):
        return "127.0.0.1"
    return "auto" if listen in _ANY_ADDRESS else listen


def scout_address(cluster: str) -> str:
    """The multicast group and port of a cluster."""
    return f"{SCOUT_GROUP}:{_SCOUT_PORTS[zlib.crc32(cluster.encode()) % len(_SCOUT_PORTS)]}"


def zenoh_settings(config: NodeConfig, control_port: int) -> dict[str, object]:
    """Keys and values of the zenoh session.

    The lease is how long a frozen peer is believed; a closed connection is noticed at once.
    """
    return {
        "mode": "peer",
        "listen/endpoints": [endpoint(config.listen, control_port)],
        "listen/timeout_ms": 0,
        "connect/endpoints": [peer_endpoint(peer) for peer in config.peers],
        "connect/timeout_ms": -1,  # for ever, in the background
        "connect/exit_on_failure": False,
        "connect/retry": {
            "period_init_ms": 200,
            "period_max_ms": 2000,
            "period_increase_factor": 2,
        },
        "open/return_conditions": {"connect_scouted": False, "declares": False},
        "scouting/delay": 0,
        "scouting/multicast/enabled": config.scout,
        "scouting/multicast/address": scout_address(config.cluster),
        "scouting/multicast/interface": scout_interface(config.listen),
        "transport/link/tx/lease": 2000,
        "transport/link/tx/keep_alive": 4,
        "transport/unicast/open_timeout": 3000,
        "transport/unicast/accept_timeout": 3000,
        "transport/shared_memory/enabled": False,
    }
