"""Machines, links and models that can be bought or downloaded, each figure with its source.

The entries are the TOML files in `catalog/`, which are part of the package; `docs/catalog.md` says
how one is added. Figures are specifications and other people's measurements: what *this* machine
was measured to do is in the facts. 0 is "no figure was found", never a guess.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from gangline.errors import NotFound

MachineKind = Literal["soc", "gpu", "cpu", "board"]
LinkKind = Literal["ethernet", "wifi", "thunderbolt", "rdma", "bus"]


class MachineType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine, or a graphics card with its host left out, as its maker specifies it.

    `soc`: memory that processor and graphics share; `gpu`: the card alone; `cpu`: a computer that
    calculates on its processor; `board`: the same on a single board.
    """

    id: str  # "m3-ultra-512"
    name: str
    vendor: str
    kind: MachineKind
    chip: str
    memory_gb: float  # GB as sold: 2^30 bytes each
    usable_fraction: float  # of the memory, that models can have by default
    memory_gbps: float  # GB/s (1e9 bytes) by specification
    measured_gbps: float = 0.0  # GB/s that streaming reads reach, as published
    fp16_tflops: float = 0.0  # dense, sums in float32 where the chip has a choice
    int8_tops: float = 0.0  # dense
    watts_idle: float = 0.0  # at the wall, except for cards: the card alone
    watts_busy: float = 0.0  # while a model answers where known, else the maker's limit
    price_usd: float = 0.0
    price_date: str = ""  # "2025-03": the price is of this month or year
    ports: tuple[str, ...] = ()  # ids of links, the fastest first
    source: str

    @property
    def usable_bytes(self) -> int:
        """Bytes that weights, caches and buffers can have together."""
        return int(self.memory_gb * self.usable_fraction * (1 << 30))


class LinkType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way between two machines, as it behaves in practice between two programs."""

    id: str  # "tb5-rdma"
    name: str
    kind: LinkKind
    gbps: float  # gigabits (1e9) per second in one direction
    rtt_us: float  # round trip of a small message
    per_message_us: float  # what each message costs its sender besides, on the processor
    source: str


class ModelType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An open model: the fields of its published config.json that determine sizes and work."""

    id: str  # "llama-3.1-405b"
    name: str
    parameters_b: float  # 1e9 parameters, as published
    active_parameters_b: float  # 1e9 parameters that one token uses, as published
    bits: tuple[float, ...]  # bits per weight of the usual quantizations, the publisher's first
    config: dict[str, Any]
    source: str


class _Entry(Protocol):
    @property
    def id(self) -> str: ...


FEW = 40  # names that a hint may list

E = TypeVar("E", bound=_Entry)


def machines() -> tuple[MachineType, ...]:
    """Every machine, in the order of the file: by maker, then by age."""
    return tuple(_machines().values())


def links() -> tuple[LinkType, ...]:
    """Every link, in the order of the file: the slowest kind first."""
    return tuple(_links().values())


def models() -> tuple[ModelType, ...]:
    """Every model, in the order of the file: by publisher."""
    return tuple(_models().values())


def machine(name: str) -> MachineType:
    """The machine with this id; NotFound names the nearest ones."""
    return _find("machine", name, _machines())


def link(name: str) -> LinkType:
    """The link with this id; NotFound names the nearest ones."""
    return _find("link", name, _links())


def model(name: str) -> ModelType:
    """The model with this id; NotFound names the nearest ones."""
    return _find("model", name, _models())


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """At most three of the known ids: those that contain the name, else those spelled alike."""
    ids = list(known)
    wanted = normal_id(name)
    containing = [candidate for candidate in ids if wanted and wanted in candidate]
    return containing[:3] or difflib.get_close_matches(wanted, ids, n=3, cutoff=0.5)


def normal_id(name: str) -> str:
    """`m3-ultra-512` of " M3 Ultra 512"."""
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())


def _find(what: str, name: str, entries: Mapping[str, E]) -> E:
    found = entries.get(normal_id(name))
    if found is not None:
        return found
    close = nearest(name, entries)
    if close:
        hint = "did you mean " + " or ".join(f"`{candidate}`" for candidate in close) + "? "
    else:
        hint = f"it has {', '.join(entries)}; " if len(entries) <= FEW else ""
    hint += f"`gangline plan --list {what}s` lists all {len(entries)}"
    raise NotFound(f"the catalogue has no {what} `{name}`", hint=hint)


@functools.cache
def _machines() -> dict[str, MachineType]:
    return _by_id(
        msgspec.convert(fields, MachineType)
        for entry in _read("machines.toml")["machine"]
        for fields in _sizes(entry)
    )


@functools.cache
def _links() -> dict[str, LinkType]:
    return _by_id(msgspec.convert(entry, LinkType) for entry in _read("links.toml")["link"])


@functools.cache
def _models() -> dict[str, ModelType]:
    return _by_id(msgspec.convert(entry, ModelType) for entry in _read("models.toml")["model"])


def _sizes(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One machine per memory size it is sold with: an option overrides what they share."""
    options = entry.pop("options", None)
    if options is None:
        return [entry]
    return [
        {
            **entry,
            "id": f"{entry['id']}-{option['memory_gb']}",
            "name": f"{entry['name']}, {option['memory_gb']} GB",
            **option,
        }
        for option in options
    ]


def _by_id(entries: Iterable[E]) -> dict[str, E]:
    found: dict[str, E] = {}
    for entry in entries:
        assert entry.id not in found, f"the catalogue has `{entry.id}` twice"
        found[entry.id] = entry
    return found


def _read(file: str) -> dict[str, Any]:
    folder = importlib.resources.files("gangline.plan") / "catalog"
    return tomllib.loads((folder / file).read_text(encoding="utf-8"))
