"""Live nodes as the planner and the cost model see them: what was measured, and what stands for it
where nothing was."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from gangline.facts import Link, NodeId
from gangline.plan.catalog import LinkType
from gangline.plan.elements import OPERATIONS
from gangline.plan.engines import EngineFit, Rates, published_fit
from gangline.plan.forecast import Cluster, Member

GIB = 1 << 30
RESERVE_FRACTION = 0.05  # of a machine's memory, left to its operating system
RESERVE_MIN_BYTES = 256 << 20
UNMEASURED_BYTES_PER_S = 10e9  # where no node was measured, their order is all that counts
UNMEASURED_GBPS, UNMEASURED_RTT_US = 0.9, 300.0  # of a link: a common network
HEAD_SHARE = 0.5  # of `step_s`: samples and tells of tokens, with caches that did not wait


class Machine(msgspec.Struct, frozen=True):
    """A node as a planner sees it."""

    node: NodeId
    memory_bytes: int
    free_bytes: int
    read_bytes_per_s: float | None = None  # None: not measured
    excluded: str = ""  # why it cannot take part: "does not store the model"
    operations_per_s: float | None = None  # of a prompt's rows, measured
    layer_s: float | None = None  # what a layer takes whatever its size, measured
    links: tuple[Link, ...] = ()  # from this node, as far as they were measured
    cache_bytes_per_s: float | None = None  # of keys and values, measured
    attention_operations_per_s: float | None = None  # measured
    step_s: float | None = None  # of a step that comes over a hop, besides its layers, measured


def available_bytes(machine: Machine) -> int:
    """What a plan may use of a machine: free memory less the operating system's reserve."""
    reserve = max(RESERVE_MIN_BYTES, int(machine.memory_bytes * RESERVE_FRACTION))
    return max(0, machine.free_bytes - reserve)


def cluster_of(machines: Sequence[Machine]) -> Cluster:
    """Live nodes for the cost model; what was not measured is the average of the others."""
    speeds = [machine.read_bytes_per_s for machine in machines if machine.read_bytes_per_s]
    default = sum(speeds) / len(speeds) if speeds else UNMEASURED_BYTES_PER_S
    members = tuple(
        Member(machine.node, machine.node, available_bytes(machine), _rates(machine, default))
        for machine in machines
    )
    ways = {(a.node, b.node): _way(a, b) for a in machines for b in machines if a is not b}

    def link(start: int, end: int) -> LinkType:
        return ways[machines[start].node, machines[end].node]

    return Cluster(members, link, engine_of_ours())


def engine_of_ours() -> EngineFit:
    """What this engine pays for several machines."""
    return published_fit().engines["ours"]


def _rates(machine: Machine, default_bytes_per_s: float) -> Rates:
    """What was measured of a node with our own kernels."""
    reads = machine.read_bytes_per_s or default_bytes_per_s
    rate = machine.operations_per_s or math.inf
    return Rates(
        bytes_per_s=reads,
        cache_bytes_per_s=machine.cache_bytes_per_s or reads,
        expert_bytes_per_s=reads,
        flops_per_s=rate,
        expert_flops_per_s=rate,
        attention_flops_per_s=machine.attention_operations_per_s or rate,
        operation_s=(machine.layer_s or 0.0) / (OPERATIONS["attention"] + OPERATIONS["dense"]),
        head_s=HEAD_SHARE * (machine.step_s or 0.0),
    )


def _way(start: Machine, end: Machine) -> LinkType:
    """The measured path from a node to another one; measured backwards if need be."""
    forth = next((link for link in start.links if link.to == end.node), None)
    back = next((link for link in end.links if link.to == start.node), None)
    rtts = [link.rtt_us for link in (forth, back) if link is not None and link.rtt_us is not None]
    speeds = [link.gbps for link in (forth, back) if link is not None and link.gbps]
    kind = forth.kind if forth is not None else None
    usual_us = engine_of_ours().hop_us  # is added to every hop; what `end` really takes is known
    own_us = usual_us if end.step_s is None else end.step_s * 1e6
    return LinkType(
        id=f"{start.node}-{end.node}",
        name="measured" if forth else "not measured",
        kind="wifi" if kind == "wifi" else "thunderbolt" if kind == "thunderbolt" else "ethernet",
        gbps=speeds[0] if speeds else UNMEASURED_GBPS,
        rtt_us=rtts[0] if rtts else UNMEASURED_RTT_US,
        per_message_us=own_us - usual_us,
        source="measured between the nodes",
    )


def is_measured(start: Machine, end: Machine) -> bool:
    """Whether the way between two nodes was measured, in either direction."""
    links = [
        *(link for link in start.links if link.to == end.node),
        *(link for link in end.links if link.to == start.node),
    ]
    return any(link.rtt_us is not None for link in links)
