"""What nodes tell each other: the record of each model, each node's report, and calls.

A *record* is what the cluster wants of one model; its steward writes it, every node keeps it. A
*report* is what one node says of itself. Both are replaced whole, the newest wins, so that losing
or reordering messages never matters. Records carry a secret and never leave the control plane.
"""

from __future__ import annotations

import hashlib

import msgspec

from gangline.errors import ErrorBody
from gangline.facts import LoadRequest, ModelId, ModelState, NodeFacts, NodeId
from gangline.plan.shape import ModelCost
from gangline.plan.solve import Plan

RUNNING: tuple[ModelState, ...] = ("loading", "ready")  # states in which workers shall run
BUSY: tuple[ModelState, ...] = ("loading", "recovering")  # states in which disks and cores are


class ModelRecord(msgspec.Struct, frozen=True):
    """A model that the cluster shall run; of two records of one model the greater version wins."""

    id: ModelId
    epoch: int  # grows with every load and every new plan
    sequence: int  # grows with every other change within an epoch
    steward: NodeId
    state: ModelState
    request: LoadRequest
    fingerprint: str
    cost: ModelCost
    plan: Plan
    secret: bytes  # of this epoch
    created: int  # Unix seconds of the load that was asked for
    attempts: int = 0  # plans since it was last ready for long
    error: ErrorBody | None = None  # why it recovers or failed
    gone: bool = False  # unloaded; kept so that an older record cannot come back

    @property
    def version(self) -> tuple[int, int, NodeId, bytes]:
        return self.epoch, self.sequence, self.steward, self.secret

    @property
    def load_key(self) -> str:
        """Tells this very load from every other one without giving the secret away."""
        return load_key(self.secret)


def load_key(secret: bytes) -> str:
    """A name for the load with this secret."""
    return hashlib.blake2s(secret, digest_size=8).hexdigest()


class WorkerDetail(msgspec.Struct, frozen=True):
    """What nodes need to know of a worker beyond its facts."""

    id: str  # as in its WorkerFacts
    load_key: str
    index: int  # of its stage
    hop_address: str = ""  # "" until it is loaded
    front_address: str = ""
    error: ErrorBody | None = None  # why it failed
    knock_on: bool = False  # since another worker did


class NodeReport(msgspec.Struct, frozen=True):
    """A node's facts and what only other nodes need of it; ordered by `facts.sequence`."""

    facts: NodeFacts
    details: tuple[WorkerDetail, ...] = ()
    echo_address: str = ""  # where links to this node are measured
    leaving: bool = False  # its last words
    hosts: tuple[str, ...] = ()  # "10.0.0.2/24": where it listens besides the host of its echo


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a node tells a newcomer."""

    report: NodeReport
    records: tuple[ModelRecord, ...]


class GetSnapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """-> Snapshot"""


class DescribeModel(msgspec.Struct, frozen=True, tag="describe"):
    """What a stored model costs -> ModelCost"""

    model: ModelId


class UnloadModel(msgspec.Struct, frozen=True, tag="unload"):
    """To the steward -> Done"""

    model: ModelId


class Done(msgspec.Struct, frozen=True):
    """A call that only had to be made."""


Call = GetSnapshot | DescribeModel | UnloadModel
