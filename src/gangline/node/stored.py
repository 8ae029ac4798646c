"""Which models lie on this machine; reads configs and headers, never weights.

Folders are the bundled demo, every folder in `home/models`, and those the configuration names.
A folder that cannot be read is listed with the reason, so that a user sees why it is not offered.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from gangline.checkpoint.config import read_config
from gangline.checkpoint.describe import Description, describe
from gangline.errors import GanglineError, NotFound, UsageError
from gangline.facts import ModelId, StoredModel
from gangline.paths import demo_model
from gangline.plan.shape import ModelCost, with_layers

DEMO = ModelId("demo")


class Stored(msgspec.Struct, frozen=True):
    """A model on this machine and what it costs to run; no cost where it is not supported."""

    model: StoredModel
    cost: ModelCost | None


class ModelStore:
    """The models of this machine as they were at the last scan."""

    def __init__(self, home: Path, folders: Iterable[str]) -> None:
        self._models_home = home / "models"
        self._named = [Path(folder).expanduser() for folder in folders]
        self._stored: dict[ModelId, Stored] = {}

    def scan(self) -> None:
        """Look again at every folder; blocks for some milliseconds per model."""
        found: dict[ModelId, Stored] = {}
        for model, folder in self._folders():
            if model not in found:
                found[model] = describe_folder(model, folder)
        self._stored = found

    def add(self, folder: Path) -> ModelId:
        """Offer the model in `folder` from now on; raises where there is none that can be run."""
        try:
            folder = folder.expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # a name too long, `~nobody`, a NUL
            raise NotFound(
                f"there is no folder {folder}", hint="give the folder of a model"
            ) from None
        model = ModelId(folder.name)
        stored = describe_folder(model, folder, strict=True)
        if not stored.model.supported:
            raise UsageError(f"{folder} cannot be run: {stored.model.reason}")
        known = self._stored.get(model)
        if known is not None and known.model.path != str(folder):
            raise UsageError(
                f"another model is called `{model}` here: {known.model.path}",
                hint="rename one of the folders",
            )
        if folder not in self._named:
            self._named.append(folder)
        self._stored = {**self._stored, model: stored}
        return model

    def get(self, model: ModelId) -> Stored | None:
        return self._stored.get(model)

    def listing(self) -> tuple[StoredModel, ...]:
        """What is published, ordered by id."""
        return tuple(self._stored[model].model for model in sorted(self._stored))

    def _folders(self) -> list[tuple[ModelId, Path]]:
        folders = []
        if demo_model().is_dir():
            folders.append((DEMO, demo_model()))
        folders += [(ModelId(folder.name), folder) for folder in self._named]
        if self._models_home.is_dir():
            inside = sorted(path for path in self._models_home.iterdir() if path.is_dir())
            folders += [(ModelId(path.name), path) for path in inside]
        return folders


def describe_folder(model: ModelId, folder: Path, *, strict: bool = False) -> Stored:
    """The model in a folder; `strict` raises where it cannot be read, else that is its reason."""
    try:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="give the folder of a model")
        description = describe(folder)
    except GanglineError as error:
        if strict:
            raise
        unreadable = StoredModel(model, str(folder), "", 0, "", 0, False, error.message)
        return Stored(unreadable, None)
    stored = StoredModel(
        id=model,
        path=str(folder),
        fingerprint=description.fingerprint,
        size_bytes=description.size_bytes,
        family=description.family,
        n_layers=description.n_layers,
        supported=description.supported,
        reason=description.reason,
    )
    return Stored(stored, cost_of(description))


def cost_of(description: Description) -> ModelCost | None:
    """What a planner needs; None where the model is not supported."""
    shape = description.shape
    if shape is None:
        return None
    cost = ModelCost(
        layer_bytes=description.layer_bytes,
        embedding_bytes=description.embedding_bytes,
        output_bytes=0 if shape.tied else description.output_bytes,
        kv_bytes_per_token=shape.cache_bytes_per_token(1),
        hidden_size=shape.hidden,
        max_context=shape.context,
    )
    folder = Path(description.path)
    return with_layers(cost, read_config(folder)) if folder.is_dir() else cost
