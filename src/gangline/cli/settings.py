"""What `gangline up` is told: the command line over a TOML file over the defaults."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gangline.cli.options import MAX_THREADS
from gangline.errors import UsageError
from gangline.node.stored import is_model


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Keys of the file are the names of the options without dashes in front; all are optional."""

    model: str | None = None  # loaded as soon as the node has started
    port: Annotated[int, Meta(ge=0, le=65534)] | None = None  # 0: any free one
    listen: str | None = None
    advertise: str | None = None
    peer: tuple[str, ...] = ()
    name: str | None = None
    cluster: str | None = None
    scout: bool | None = None
    threads: Annotated[int, Meta(ge=1, le=MAX_THREADS)] | None = None
    backend: str | None = None
    models_dir: tuple[str, ...] = ()


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a parsed command line, its `--config` file included."""
    file = read_file(Path(options.config)) if options.config else Settings()
    given = {
        name: value
        for name in Settings.__struct_fields__
        if (value := getattr(options, name)) is not None
    }
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    merged = msgspec.structs.replace(file, **given | lists)
    return check(msgspec.to_builtins(merged), "the command line")


def read_file(path: Path) -> Settings:
    """A configuration file; an unknown key or a wrong value is an error that names it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"`{path}` is not TOML: {error}") from None
    for key in ("peer", "models-dir"):
        if isinstance(content.get(key), str):
            content[key] = [content[key]]
    return check(content, f"`{path}`")


def check(content: dict[str, Any], source: str) -> Settings:
    """Typed settings, or an error that says where it is wrong."""
    try:
        return msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        keys = ", ".join(Settings.__struct_encode_fields__)
        text = str(error)
        raise UsageError(f"{source}: {text[:1].lower()}{text[1:]}", hint=f"keys: {keys}") from None


def model_folders(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Where models lie: a model, or a folder of them, as an absolute path."""
    found: list[Path] = []
    for name in folders:
        try:
            found.append(Path(name).expanduser().resolve(strict=True))
        except (OSError, RuntimeError, ValueError):  # no such folder, `~nobody`, a NUL
            raise UsageError(
                f"there is no folder `{name}`", hint="--models-dir names a folder"
            ) from None
        if not (found[-1].is_dir() or is_model(found[-1])):
            raise UsageError(f"`{name}` is no model", hint="--models-dir names a folder")
    return tuple(map(str, found))
