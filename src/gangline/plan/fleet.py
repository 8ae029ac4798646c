"""Machines of the catalogue as a cluster: what `--on`, `--link` and `--engine` name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from gangline.errors import UsageError
from gangline.plan import catalog
from gangline.plan.catalog import LinkType, MachineType
from gangline.plan.engines import Engine, Fit, Rates, published_fit, rates_of
from gangline.plan.forecast import Cluster, Member

T = TypeVar("T")

MAX_MACHINES = 64
DEFAULT_LINK = "1gbe"  # what any two computers have
DEFAULT_CARD_LINK = "pcie4-x16"

_COUNT = re.compile(r"^(?:(\d+) ?[x*×] ?(.+)|(.+?) ?[x*×] ?(\d+))$", re.IGNORECASE)
_SPEED = re.compile(r"^([\d.]+) ?([gm])bit(?:/?s)?(?:[ ,/]+([\d.]+) ?ms)?$", re.IGNORECASE)


class Fleet(msgspec.Struct, frozen=True):
    """Machines and what they are connected by."""

    machines: tuple[MachineType, ...]
    link: LinkType
    measured: tuple[Rates, ...] = ()  # of each machine, where they are not from the catalogue
    ways: tuple[tuple[LinkType, ...], ...] = ()  # from each to each, where they were measured

    @property
    def name(self) -> str:
        """`4 x m3-ultra-512`, `m3-ultra-512 + dgx-spark`."""
        counts: dict[str, int] = {}
        for machine in self.machines:
            counts[machine.id] = counts.get(machine.id, 0) + 1
        return " + ".join(f"{n} x {one}" if n > 1 else one for one, n in counts.items())

    @property
    def link_name(self) -> str:
        """`10gbe`; `tb5-rdma, 10gbe` where some have one of their own; `none` of one machine."""
        n = len(self.machines)
        if self.measured or n == 1:
            return self.link.id if n > 1 else "none"
        pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
        return ", ".join(dict.fromkeys(self.way(a, b).id for a, b in pairs)) or "none"

    def cluster(self, engine: Engine, bits: float, fit: Fit | None = None) -> Cluster:
        """The machines with what `engine` reaches on them at `bits` per weight."""
        fit = fit or published_fit()
        members = []
        for i, one in enumerate(self.machines):
            rates = self.measured[i] if self.measured else rates_of(one, engine, bits, fit)
            members.append(Member(one.id, one.id, one.usable_bytes, rates))
        return Cluster(tuple(members), self.way, fit.engines[engine])

    def without(self, index: int) -> Fleet:
        """The same with one machine less."""

        def others(rows: tuple[T, ...]) -> tuple[T, ...]:
            return rows[:index] + rows[index + 1 :]

        ways = tuple(others(row) for row in others(self.ways))
        return Fleet(others(self.machines), self.link, others(self.measured), ways)

    def way(self, start: int, end: int) -> LinkType:
        """The link from a machine to another one."""
        return self.ways[start][end] if self.ways else self.link


def fleet_of(on: Sequence[str], link: str | None) -> Fleet:
    """The fleet that words like "m3-ultra-512 x4" name; UsageError, NotFound.

    "m3-ultra-512 x2 @tb5-rdma" connects the machines of this group with each other; `link`, or the
    fastest port that all have, connects everything else.
    """
    machines: list[MachineType] = []
    groups: list[tuple[int, LinkType | None]] = []  # of each machine: its group, and what it uses
    for words in on:
        for part in words.split(","):
            if not part.strip():
                continue
            text, _, inside = part.strip().partition("@")
            name, count = _counted(text.strip())
            machine = catalog.machine(name)
            own = link_of(inside.strip()) if inside.strip() else None
            groups += [(len(groups), own)] * count
            machines += [machine] * count
    if not machines:
        raise UsageError("no machines are named", hint='use --on "m3-ultra-512 x4"', param="on")
    if len(machines) > MAX_MACHINES:
        raise UsageError(f"{len(machines)} machines are more than {MAX_MACHINES}", param="on")
    between = link_of(link) if link else usual_link(machines)
    ways: tuple[tuple[LinkType, ...], ...] = ()
    if any(own for _, own in groups):
        ways = tuple(
            tuple(own if own and group == other else between for other, _ in groups)
            for group, own in groups
        )
    return Fleet(tuple(machines), between, ways=ways)


def mixed_fleet(some: Sequence[MachineType], others: Sequence[MachineType]) -> Fleet:
    """Machines of two kinds: like ones on their best link, unlike ones on the best they share."""
    between = usual_link((some[0], others[0]))
    inside = (usual_link(some), usual_link(others))
    kinds = [0] * len(some) + [1] * len(others)
    ways = tuple(tuple(inside[a] if a == b else between for b in kinds) for a in kinds)
    return Fleet((*some, *others), between, ways=ways)


def _counted(text: str) -> tuple[str, int]:
    """(id, count) of "m3-ultra-512 x4", "4x m3-ultra-512", "m3-ultra-512"."""
    if any(text == machine.id for machine in catalog.machines()):
        return text, 1
    match = _COUNT.match(text)
    if match is None:
        return text, 1
    count = int(match[1] or match[4])
    if count < 1:
        raise UsageError(f"`{text}` names no machine", hint="use a count from 1 on", param="on")
    return (match[2] or match[3]).strip(), count


def link_of(text: str) -> LinkType:
    """A link of the catalogue, or one by its speed: "2.5gbit", "100mbit,5ms"."""
    match = _SPEED.match(text.strip())
    if match is None:
        return catalog.link(text)
    gbps = float(match[1]) / (1 if match[2].lower() == "g" else 1000)
    if gbps <= 0:
        raise UsageError(
            f"a link of {text} carries nothing, so no model can be split over it",
            hint="name a speed above 0, as in --link 1gbit, or a link: --link 10gbe",
            param="link",
        )
    rtt_us = float(match[3]) * 1000 if match[3] else catalog.link(DEFAULT_LINK).rtt_us
    return LinkType(
        id=text, name=text, kind="ethernet", gbps=gbps, rtt_us=rtt_us, per_message_us=10.0,
        source="as asked for",
    )  # fmt: skip


# Ports of a family agree on the speed of the slower one.
FAMILIES = (("10gbe", "5gbe", "2.5gbe", "1gbe"), ("tb5", "tb4", "tb3"), ("wifi7", "wifi6", "wifi5"))


def _speaks(machine: MachineType) -> list[str]:
    """The links that a machine's ports can be, the slower ones of their families included."""
    slower = [
        port
        for family in FAMILIES
        for port in family[min(map(family.index, set(family) & set(machine.ports)), default=9) :]
    ]
    return [*machine.ports, *(port for port in slower if port not in machine.ports)]


def usual_link(machines: Iterable[MachineType]) -> LinkType:
    """The fastest port that all of them have; cards sit in one computer."""
    each = list(machines)
    speaks = [_speaks(one) for one in each]
    shared = [port for port in speaks[0] if all(port in ports for ports in speaks)]
    known = {link.id for link in catalog.links()}
    usable = [catalog.link(port) for port in shared if port in known]
    if usable:
        return max(usable, key=lambda link: (link.kind == "rdma", link.gbps))
    cards = all(one.kind == "gpu" for one in each)
    return catalog.link(DEFAULT_CARD_LINK if cards else DEFAULT_LINK)
