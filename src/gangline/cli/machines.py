"""What the machines are and were measured to do, as tables; pure functions of the state."""

from __future__ import annotations

import re

from gangline.cli.output import rate, significant, size, table
from gangline.facts import ClusterState, Gpu, Hardware, Interface, InterfaceKind, Link, NodeFacts
from gangline.hardware.device import computing_gpu

MACHINES = ("NODE", "CHIP", "CORES", "MEMORY", "GPU", "NETWORK", "POWER")
MEASURED = ("NODE", "READS", "PREFILL", "LAYER", "DISK", "MEASURED")
LINKS = ("FROM", "TO", "BY", "ROUND TRIP", "SPEED", "MEASURED")

# Words in a chip's name that say nothing here: "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
_NOISE = re.compile(r"\((R|TM)\)|\bCPU\b|\b\d+-Core\b|\bProcessor\b|@.*|\bwith .*", re.IGNORECASE)
_KINDS: dict[InterfaceKind, str] = {
    "ethernet": "Ethernet", "wifi": "Wi-Fi", "thunderbolt": "Thunderbolt", "virtual": "virtual",
}  # fmt: skip


def render_machines(state: ClusterState) -> list[str]:
    """What the machines are, what they were measured to do, and the links in each direction."""
    nodes = sorted(state.nodes, key=lambda node: (node.name, node.id))
    lines = table(MACHINES, [machine_row(node, node.id == state.node) for node in nodes])
    lines += [
        "",
        *table(MEASURED, [measured_row(node.name, node.hardware) for node in nodes]),
    ]
    names = {node.id: node.name for node in state.nodes}
    links = [
        link_row(node.name, names.get(link.to, link.to), link)
        for node in nodes
        for link in node.links
    ]
    return [*lines, *(["", *table(LINKS, links)] if links else [])]


def machine_row(node: NodeFacts, is_here: bool) -> tuple[str, ...]:
    """What a node's machine is; what is not known is empty."""
    hardware = node.hardware
    return (
        node.name + ("*" if is_here else ""),
        short_chip(hardware.chip),
        cores_text(hardware),
        size(hardware.memory_bytes),
        gpus_text(hardware),
        ", ".join(interface_text(one) for one in hardware.interfaces if one.kind != "virtual"),
        hardware.power or "",
    )


def measured_row(name: str, hardware: Hardware) -> tuple[str, ...]:
    """What a machine was measured to do; what was not measured is empty."""
    return (
        name,
        per_second(hardware.read_bytes_per_s),
        operations_text(hardware.operations_per_s),
        "" if hardware.layer_s is None else f"{significant(hardware.layer_s * 1e6)} µs",
        per_second(hardware.disk_read_bytes_per_s),
        (hardware.measured_at or "") + (", while busy" if hardware.measured_busy else ""),
    )


def link_row(start: str, end: str, link: Link) -> tuple[str, ...]:
    """The best way from one node to another."""
    return (
        start,
        end,
        "" if link.kind is None else _KINDS[link.kind],
        "" if link.rtt_us is None else f"{significant(link.rtt_us / 1000)} ms",
        "" if link.gbps is None else f"{rate(link.gbps)} Gb/s",
        link.measured_at or "",
    )


def short_chip(chip: str) -> str:
    """`Intel Xeon E5-2680 v4` of a maker's full name, at most 24 letters."""
    short = " ".join(_NOISE.sub(" ", chip).split())
    return short if len(short) <= 24 else short[:23].rstrip() + "…"


def cores_text(hardware: Hardware) -> str:
    """`8`, or `10+4` where four of them are of the slower kind."""
    slow = hardware.efficiency_cores
    return f"{hardware.cores - slow}+{slow}" if slow else str(hardware.cores)


def gpu_title(gpu: Gpu) -> str:
    """`RTX 4090` of a maker's full name."""
    return short_chip(gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce "))


def device_text(hardware: Hardware) -> str:
    """What workers compute on: a card of its own memory, or the machine's chip."""
    gpu = computing_gpu(hardware, None)
    return short_chip(hardware.chip) if gpu is None or gpu.shared else gpu_title(gpu)


def gpus_text(hardware: Hardware) -> str:
    """`2 x RTX 4090, 24 GiB`; memory that is the machine's own is not counted twice."""
    names: dict[str, int] = {}
    for gpu in hardware.gpus:
        memory = "shared" if gpu.shared else size(gpu.memory_bytes)
        text = f"{gpu_title(gpu)}, {memory}"
        names[text] = names.get(text, 0) + 1
    return "; ".join(text if n == 1 else f"{n} x {text}" for text, n in names.items())


def interface_text(interface: Interface) -> str:
    """`Ethernet 10 Gb/s`, `Wi-Fi`, `Thunderbolt RDMA`."""
    speed = "" if interface.gbps is None else f" {significant(interface.gbps)} Gb/s"
    return _KINDS[interface.kind] + speed + (" RDMA" if interface.rdma else "")


def per_second(bytes_per_s: float | None) -> str:
    """`49.7 GB/s`, as makers count: powers of ten."""
    return "" if bytes_per_s is None else f"{rate(bytes_per_s / 1e9)} GB/s"


def operations_text(operations_per_s: float | None) -> str:
    """`1.1 TOPS`."""
    return "" if operations_per_s is None else f"{significant(operations_per_s / 1e12)} TOPS"
