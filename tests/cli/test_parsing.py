"""What commands make of their arguments, files and event streams; no node is needed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.cli import up
from gangline.cli.chat import choose
from gangline.cli.client import Client, Event, read_events
from gangline.cli.demo import choose_port
from gangline.cli.load import local_path
from gangline.cli.main import COMMANDS
from gangline.cli.ports import listening_inodes
from gangline.cli.settings import Settings, model_folders, settings_of
from gangline.errors import GanglineError, NotFound, UsageError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    return parser.parse_args(arguments)


def test_no_arguments_are_no_settings() -> None:
    assert settings_of(parse()) == Settings()


def test_the_command_line_is_stronger_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gangline.toml"
    file.write_text(
        'model = "demo"\nport = 6000\npeer = "a:1"\nname = "x"\nscout = true\n'
        'models-dir = ["m"]\nthreads = 2\n'
    )
    assert settings_of(parse("--config", str(file))) == Settings(
        model="demo", port=6000, peer=("a:1",), name="x", scout=True, models_dir=("m",), threads=2
    )
    settings = settings_of(
        parse(
            "other",
            "--config",
            str(file),
            "--port",
            "0",
            "--no-scout",
            "--peer",
            "b",
            "--peer",
            "c",
        )
    )
    assert settings == Settings(
        model="other", port=0, peer=("b", "c"), name="x", scout=False, models_dir=("m",), threads=2
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot = 1", "object contains unknown field `prot`"),
        ("port = 70000", "expected `int` <= 65534 - at `$.port`"),
        ('port = "5454"', "expected `int | null`, got `str` - at `$.port`"),
        ("threads = 0", "expected `int` >= 1 - at `$.threads`"),
        ("[up]\nport = 1", "object contains unknown field `up`"),
        ("port =", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "gangline.toml"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        settings_of(parse("--config", str(file)))
    assert message in caught.value.message
    assert str(file) in caught.value.message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        settings_of(parse("--config", str(tmp_path / "none")))


def test_model_folders(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / "folder").mkdir()
    for name in ("folder", "folder/../a.gguf", "."):
        assert model_folders((str(tmp_path / name),)) == (str((tmp_path / name).resolve()),)
    for name in (str(tmp_path / "a.txt"), str(tmp_path / "none"), "~nobody", "a\x00b", "x" * 5000):
        with pytest.raises(UsageError):
            model_folders((name,))
        assert local_path(name) == name


def test_a_model_that_lies_here_becomes_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("own.gguf", "folder/a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert local_path("own.gguf") == str(tmp_path / "own.gguf")
    assert local_path("folder") == str(tmp_path / "folder")
    assert local_path("demo") == "demo"


def test_a_lone_argument_is_a_model_or_a_prompt() -> None:
    assert choose("demo", "hi", ["demo"]) == ("demo", "hi")
    assert choose("demo", None, ["demo"]) == ("demo", None)
    assert choose("What is it?", None, ["demo"]) == ("demo", "What is it?")
    assert choose("-", None, ["demo"]) == ("demo", "-")
    assert choose(None, None, ["demo"]) == ("demo", None)
    for first, second, running in (("demo", "hi", []), (None, None, []), ("hi", None, ["demo"])):
        with pytest.raises(NotFound):
            choose(first, second, running)
    with pytest.raises(UsageError, match="2 models are running: a, b"):
        choose(None, None, ["a", "b"])


def lines_of(*lines: bytes) -> Iterator[bytes]:
    return iter(lines)


def test_events() -> None:
    stream = lines_of(
        b": hello\n", b"\n", b"event: state\n", b"data: {\n", b"data:}\r\n", b"\n",
        b"id: 7\n", b"data: \xff\n", b"\n", b"event: x\n", b"\n", b"data: cut off\n",
    )  # fmt: skip
    assert list(read_events(stream)) == [Event("state", "{\n}"), Event("message", "\ufffd")]


@given(st.lists(st.binary(max_size=20)))
def test_any_lines_are_events_or_none(lines: list[bytes]) -> None:
    for event in read_events(iter(lines)):
        assert "\r" not in event.kind or event.data is not None


@pytest.mark.parametrize("url", ["127.0.0.1:7", "http://127.0.0.1:7", "http://127.0.0.1:7/"])
def test_urls(url: str) -> None:
    assert Client(url).url == "http://127.0.0.1:7"


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:y", "http://x:99999", ""])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError):
        Client(url)


def test_nobody_answers() -> None:
    with pytest.raises(GanglineError, match=r"no node answers at http://127\.0\.0\.1:1"):
        Client("http://127.0.0.1:1").request("GET", "/")


def test_listening_inodes() -> None:
    rows = (
        "sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode",
        "0: 0100007F:154E 00000000:0000 0A 00000000:00000000 00:00000000 00000000   0  0 1665 1 0",
        "1: 0100007F:154E 0100007F:D66E 06 00000000:00000000 03:00000EA4 00000000   0  0 7 3 0",
        "2: 0100007F:154F 00000000:0000 0A 00000000:00000000 00:00000000 00000000 100  0 1666 1 0",
        "3: 000000000001000000:154E 0000:0000 0A 0:0 0:0 0 0 0 9 1",
    )
    table = "\n".join(rows)
    assert listening_inodes(table, 5454) == ["1665", "9"]
    assert listening_inodes(table, 5455) == ["1666"]
    assert listening_inodes(table, 5456) == []


def test_help_opens_with_a_capitalised_verb_and_ends_with_examples() -> None:
    for command in COMMANDS:
        assert command.does[0].isupper()
        assert not command.does.endswith(".")
        assert all(one.startswith(f"gangline {command.name}") for one in command.examples)
        assert 1 <= len(command.examples) <= 2


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("studio", "http://studio:5454"),
        ("192.168.1.20:6000", "http://192.168.1.20:6000"),
        ("[::1]", "http://[::1]:5454"),
        ("http://studio", "http://studio"),
        ("https://studio/nodes/", "https://studio/nodes"),
    ],
)
def test_a_host_alone_means_the_node_there(url: str, asked: str) -> None:
    assert Client(url).url == asked


def test_the_last_port_has_no_room_for_the_control_plane() -> None:
    with pytest.raises(UsageError, match=r"outside 1\.\.65534"):
        choose_port(65535)
