"""Facts: what every node publishes about itself, and the cluster that they add up to.

One shape serves the wire, `GET /cluster/state`, the page and `status --json`. New fields always
get a default, so that nodes of different versions understand each other. "Not measured" is
`None`. Knows no network, no clock and no file.
"""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

from gangline.errors import UsageError

NodeId = NewType("NodeId", str)
ModelId = NewType("ModelId", str)

FACTS_VERSION = 1

# What computes a stage's layers; each machine decides for itself what "auto" is.
BACKENDS = ("auto", "cpu", "mlx", "torch", "reference")

Role = Literal["head", "stage"]
WorkerState = Literal["starting", "loading", "ready", "failed", "stopping"]
ModelState = Literal["loading", "ready", "recovering", "failed", "unloading"]
InterfaceKind = Literal["ethernet", "wifi", "thunderbolt", "virtual"]
PowerSource = Literal["mains", "battery"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Layers `start <= i < end`; travels as `[start, end]`."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Gpu(msgspec.Struct, frozen=True):
    """A graphics processor."""

    name: str
    memory_bytes: int  # that models can have
    shared: bool = False  # whether it is a part of the machine's memory
    free_bytes: int | None = None  # of its own memory; None: not known


class Interface(msgspec.Struct, frozen=True):
    """A network interface that is up."""

    name: str
    kind: InterfaceKind
    gbps: float | None = None  # of its port, as the system says; a link may reach less
    rdma: bool = False
    addresses: tuple[str, ...] = ()  # "10.0.0.2/24"


class Hardware(msgspec.Struct, frozen=True):
    """What a machine is, and what it was measured to do."""

    chip: str
    arch: str
    system: str
    cores: int
    memory_bytes: int
    free_bytes: int
    vector: str = ""  # the cpu back end's kernel path: "scalar", "avx2", …
    read_bytes_per_s: float | None = None  # measured: of weights, while a model decodes
    measured_at: str | None = None  # ISO 8601 date of all that was measured
    operations_per_s: float | None = None  # measured on a prompt's rows: multiply and add are two
    layer_s: float | None = None  # measured: what a layer of one row takes whatever its size
    disk_read_bytes_per_s: float | None = None  # measured
    efficiency_cores: int = 0  # of `cores`, the slower ones
    features: tuple[str, ...] = ()  # vector units: "avx512-vnni", "dotprod", …
    gpus: tuple[Gpu, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    disk_free_bytes: int | None = None
    power: PowerSource | None = None
    measured_busy: bool = False  # something else ran meanwhile: what was measured is too slow
    backend: str = ""  # with which all speeds were measured: what `auto`, or a node's own, is here
    device: str = ""  # the graphics processor that it computed on; "": the processor
    cache_bytes_per_s: float | None = None  # measured: of keys and values, while a model decodes
    attention_operations_per_s: float | None = None  # measured on a prompt's rows
    step_s: float | None = None  # measured: of a step that comes over a hop, besides its layers


class LinkPath(msgspec.Struct, frozen=True):
    """One measured way to another node: by one of its addresses."""

    address: str  # without a port
    kind: InterfaceKind | None = None  # of the interface here that it leaves by
    rtt_us: float | None = None
    gbps: float | None = None  # gigabits per second towards the other node


class Link(msgspec.Struct, frozen=True):
    """The best measured way from the publishing node to another one."""

    to: NodeId
    rtt_us: float | None = None
    gbps: float | None = None  # gigabits per second towards `to`
    address: str = ""  # of `to`, without a port; "" from nodes that know only one
    kind: InterfaceKind | None = None
    paths: tuple[LinkPath, ...] = ()  # all that were measured, the best first
    measured_at: str | None = None  # ISO 8601 date


class WorkerStats(msgspec.Struct, frozen=True):
    """What a head counts; published about once a second while it changes."""

    lanes_active: int = 0
    lanes_waiting: int = 0
    tokens_total: int = 0
    tokens_per_s: float = 0.0  # over the last second or so
    ttft_ms: float | None = None  # of the most recent answer
    steps_total: int = 0
    decode_tps: float | None = None  # of one lane alone, the median of its last steps
    decode_steps: int = 0  # that this median had to choose from, ever


class WorkerFacts(msgspec.Struct, frozen=True):
    """One worker process on a node."""

    id: str
    pid: int
    model: ModelId
    epoch: int
    role: Role
    span: Span
    state: WorkerState
    backend: str = "cpu"
    progress: float = 0.0  # 0..1 while loading
    weight_bytes: int = 0
    cache_bytes: int = 0
    stats: WorkerStats | None = None  # heads only
    reason: str = ""


class StoredModel(msgspec.Struct, frozen=True):
    """A model whose files lie on a node."""

    id: ModelId
    path: str  # on that node
    fingerprint: str  # equal on two nodes exactly when config and weights' headers are equal
    size_bytes: int
    family: str  # "llama"; architecture name of config.json when it is not supported
    n_layers: int
    supported: bool = True
    reason: str = ""


class NodeFacts(msgspec.Struct, frozen=True):
    """Everything one node says about itself."""

    id: NodeId
    name: str
    api: str  # "http://host:port"
    pid: int
    hardware: Hardware
    version: str = ""
    facts_version: int = FACTS_VERSION
    sequence: int = 0  # grows with every publication of this node; the newest wins
    alive: bool = True
    links: tuple[Link, ...] = ()
    workers: tuple[WorkerFacts, ...] = ()
    stored: tuple[StoredModel, ...] = ()


class Stage(msgspec.Struct, frozen=True):
    """One stage of a plan: which node runs which layers, and why."""

    node: NodeId
    role: Role
    span: Span
    why: str = ""


class LeftOut(msgspec.Struct, frozen=True):
    """A node that a plan does not use, and why."""

    node: NodeId
    why: str


class Prediction(msgspec.Struct, frozen=True):
    """What a plan promises: tokens per second of one lane, and by how much that may be wrong."""

    decode_tps: float
    error: float  # relative: 0.12 is ± 12 %
    scale: float = 1.0  # by which earlier measurements corrected the planner's own figure


class ModelFacts(msgspec.Struct, frozen=True):
    """A model that the cluster runs or tries to run."""

    id: ModelId
    state: ModelState
    epoch: int
    steward: NodeId
    stages: tuple[Stage, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    progress: float = 0.0
    reason: str = ""  # why it failed or is recovering
    context: int = 0  # tokens per lane
    lanes: int = 0
    n_layers: int = 0
    stats: WorkerStats | None = None
    created: int = 0  # Unix seconds, for GET /v1/models
    prediction: Prediction | None = None  # what was measured since is in `stats.decode_tps`


class ClusterState(msgspec.Struct, frozen=True):
    """The body of `GET /cluster/state`."""

    cluster: str
    node: NodeId  # the node that answers
    nodes: tuple[NodeFacts, ...]
    models: tuple[ModelFacts, ...]
    version: str = ""
    facts_version: int = FACTS_VERSION


class LoadRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /cluster/models`."""

    model: str  # an id that a node stores, or a path on the node that is asked
    nodes: tuple[str, ...] | None = None  # ids or names; None: the planner chooses
    context: int | None = None
    lanes: int | None = None
    spread: bool = False  # use every node that can help, even where fewer would be faster
    backend: str | None = None  # of `BACKENDS`; None: as each node was told when it started


def check_backend(name: str) -> None:
    """Raise UsageError unless there is a back end of that name, installed here or not."""
    if name not in BACKENDS:
        raise UsageError(
            f"back end `{name}` is not known, expected one of {', '.join(BACKENDS)}",
            param="backend",
        )
