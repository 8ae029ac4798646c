"""What a node is told, and what that makes of its network."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.errors import UsageError
from gangline.node.config import (
    NodeConfig,
    advertised_address,
    bare_address,
    check_config,
    peer_endpoint,
    scout_address,
    scout_interface,
    zenoh_settings,
)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("studio", "tcp/studio:5455"),
        ("192.168.1.7:6000", "tcp/192.168.1.7:6001"),
        ("tcp/127.0.0.1:7447", "tcp/127.0.0.1:7447"),
        ("[fe80::1]:6000", "tcp/[fe80::1]:6001"),
        ("fe80::1", "tcp/[fe80::1]:5455"),
        ("studio:", "tcp/studio:5455"),
    ],
)
def test_peers(peer: str, expected: str) -> None:
    assert peer_endpoint(peer) == expected


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("[::1]", "::1"),
        ("[fe80::1]", "fe80::1"),
        ("::", "::"),
        ("10.0.0.1", "10.0.0.1"),
        ("[a]",) * 2,
    ],
)
def test_brackets_around_an_address_are_understood(given: str, bare: str) -> None:
    assert bare_address(given) == bare


@pytest.mark.parametrize("peer", ["", ":5454", "studio:http", "studio:99999", "a b", "a/b"])
def test_what_is_no_peer(peer: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_config(NodeConfig(home=Path("unused"), peers=(peer,)))
    assert peer in caught.value.message


@given(st.text())
def test_a_peer_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):  # refused: the other good end
        assert peer_endpoint(text).startswith("tcp/")


@pytest.mark.parametrize("name", ["", "a/b", "*", "a b", "x" * 65, "a?", "$*"])
def test_names_that_no_cluster_may_have(name: str) -> None:
    with pytest.raises(UsageError):
        check_config(NodeConfig(home=Path("unused"), cluster=name))


@pytest.mark.parametrize("name", ["", "x" * 254, "a\nb", "\x1b[2J"])
def test_names_that_no_node_may_have(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a node"):
        check_config(NodeConfig(home=Path("unused"), name=name))


def test_a_node_on_loopback_stays_there() -> None:
    settings = zenoh_settings(NodeConfig(home=Path("unused")), 5455)
    assert settings["listen/endpoints"] == ["tcp/127.0.0.1:5455"]
    assert settings["scouting/multicast/interface"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("listen", "interface"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "auto"), ("10.1.2.3", "10.1.2.3")],
)
def test_scouting_goes_no_further_than_listening(listen: str, interface: str) -> None:
    assert scout_interface(listen) == interface


def test_the_advertised_address() -> None:
    assert advertised_address(NodeConfig(home=Path("unused"))) == "127.0.0.1"
    assert advertised_address(NodeConfig(home=Path("unused"), listen="10.1.2.3")) == "10.1.2.3"
    both = NodeConfig(home=Path("unused"), listen="0.0.0.0", advertise="studio.local")
    assert advertised_address(both) == "studio.local"
    everywhere = advertised_address(NodeConfig(home=Path("unused"), listen="0.0.0.0"))
    assert everywhere not in ("", "0.0.0.0")


def test_clusters_scout_apart() -> None:
    assert scout_address("a") == scout_address("a") != scout_address("b")
