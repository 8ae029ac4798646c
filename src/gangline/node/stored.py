"""Which models lie on this machine; reads configs and headers, never weights.

Models are the bundled demo, every folder and GGUF file in `home/models`, and those that the
configuration names or that lie in folders that it names. One that cannot be read is listed with the
reason, so that a user sees why it is not offered. What did not change since the last look is not
read again, so that looking now and then costs next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gangline.checkpoint.config import CONFIG_NAME
from gangline.checkpoint.contents import Contents, read_contents
from gangline.checkpoint.describe import Description, describe_contents
from gangline.checkpoint.gguf import SUFFIX, is_first_file, model_name
from gangline.errors import GanglineError, NotFound, UsageError
from gangline.facts import ModelId, StoredModel
from gangline.paths import demo_model
from gangline.plan.shape import ModelCost, with_layers

DEMO = ModelId("demo")

Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of each file of a model


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
        self._read: dict[Path, tuple[Stamp, Stored]] = {}

    def scan(self) -> bool:
        """Look again at every folder, whether anything is new; some milliseconds per new model."""
        found: dict[ModelId, Stored] = {}
        read: dict[Path, tuple[Stamp, Stored]] = {}
        for model, folder in self._folders():
            if model not in found:
                stamp = stamp_of(folder)
                known = self._read.get(folder)
                unchanged = known is not None and stamp and known[0] == stamp
                stored = known[1] if known and unchanged else describe_folder(model, folder)
                read[folder] = (stamp, stored)
                found[model] = stored
        is_new = found != self._stored
        self._stored, self._read = found, read
        return is_new

    def add(self, folder: Path) -> ModelId:
        """Offer the model in a folder or GGUF file from now on; raises where none can be run."""
        try:
            folder = folder.expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # a name too long, `~nobody`, a NUL
            raise NotFound(
                f"there is no folder or file {folder}", hint="give the folder or file of a model"
            ) from None
        model = model_id(folder)
        stored = describe_folder(model, folder, strict=True)
        if not stored.model.supported:
            raise UsageError(f"{folder} cannot be run: {stored.model.reason}")
        known = self._stored.get(model)
        if known is not None and known.model.path != str(folder):
            raise UsageError(
                f"another model is called `{model}` here: {known.model.path}",
                hint="rename one of them",
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
        named = [path for one in self._named for path in models_at(one)]
        own = models_in(self._models_home)
        return folders + [(model_id(path), path) for path in [*named, *own]]


def is_model(path: Path) -> bool:
    """Whether a path is one model: a folder with a config, or the (first) file of a GGUF."""
    try:
        return (path / CONFIG_NAME).is_file() or (path.is_file() and is_first_file(path))
    except OSError:  # it may not be looked into
        return False


def models_at(path: Path) -> list[Path]:
    """The model at a path, or the models in it; what is not there is to be told as missing."""
    return models_in(path) if path.is_dir() and not is_model(path) else [path]


def models_in(folder: Path) -> list[Path]:
    """The models in a folder and in the folders inside, which may hold several GGUF files."""
    found: list[Path] = []
    try:
        for path in sorted(folder.iterdir()):
            if is_model(path):
                found.append(path)
            elif path.is_dir():
                found += sorted(file for file in path.glob(f"*{SUFFIX}") if is_model(file))
    except OSError:  # there is no such folder, or it may not be looked into
        return found
    return found


def stamp_of(path: Path) -> Stamp:
    """What tells that a model's files changed; a GGUF file may have parts in its folder."""
    folder = path if path.is_dir() else path.parent
    try:
        stats = [(entry.name, entry.stat()) for entry in os.scandir(folder)]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def why_unreadable(path: Path, before: Stamp) -> str:
    """Why a model whose files were as `before` could not be read in place, in words."""
    known = {name: rest for name, *rest in before}
    now = {name: rest for name, *rest in stamp_of(path)}
    changed = [name for name, stat in known.items() if now.get(name) != stat]
    if not changed:
        return f"a part of {path} could not be read: its disk or network share failed"
    folder = path if path.is_dir() else path.parent
    # What was cut is what could not be read; other files may have changed besides.
    cut = [name for name in changed if name not in now or now[name][0] < known[name][0]]
    return f"the file {folder / (cut or changed)[0]} changed or was cut while it was read"


def model_id(path: Path) -> ModelId:
    """A model is called as its folder, or as its GGUF file without number and suffix."""
    return ModelId(model_name(path) if path.suffix == SUFFIX else path.name)


def describe_folder(model: ModelId, folder: Path, *, strict: bool = False) -> Stored:
    """The model at a path; `strict` raises where it cannot be read, else that is its reason."""
    try:
        if not folder.exists():
            raise NotFound(
                f"there is no folder or file {folder}", hint="give the folder or file of a model"
            )
        contents = read_contents(folder)
        description = describe_contents(contents)
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
    return Stored(stored, cost_of(contents, description))


def cost_of(contents: Contents, description: Description) -> ModelCost | None:
    """What a planner needs; None where the model is not supported."""
    shape = description.shape
    if shape is None:
        return None
    cost = ModelCost(
        layer_bytes=description.layer_bytes,
        embedding_bytes=description.embedding_bytes,
        output_bytes=0 if shape.tied else description.output_bytes,
        kv_bytes_per_token=max(shape.cache_bytes_per_token()),
        hidden_size=shape.hidden,
        max_context=shape.context,
    )
    caches = zip(shape.cache_bytes_per_token(), shape.state_bytes_per_lane(), strict=True)
    return with_layers(cost, contents.config, tuple(caches))
