"""Ways to a peer: every network in common, the fastest hop first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangline.facts import Interface, Link, LinkPath, NodeId
from gangline.node.ways import MAX_WAYS, Way, best_first, by_best_way, find_ways, hop_s

OWN = (
    Interface("en0", "ethernet", 10.0, False, ("10.0.0.2/24", "fd00::2/64")),
    Interface("en1", "wifi", None, False, ("192.168.1.2/24",)),
    Interface("en5", "thunderbolt", None, True, ("169.254.7.1/16",)),
    Interface("docker0", "virtual", None, False, ("172.17.0.1/16",)),
)


def test_each_network_in_common_is_a_way() -> None:
    hosts = ("192.168.1.3/24", "169.254.9.9/16", "172.17.0.1/16", "10.7.0.3/24", "10.0.0.3/24")
    assert find_ways(OWN, "10.0.0.3:7001", hosts) == [
        Way("10.0.0.3:7001", "ethernet"),
        Way("192.168.1.3:7001", "wifi"),
        Way("169.254.9.9:7001", "thunderbolt"),
    ]
    assert find_ways(OWN, "[fd00::3]:7001", ()) == [Way("[fd00::3]:7001", "ethernet")]


def test_the_address_that_a_peer_names_is_always_tried() -> None:
    assert find_ways((), "100.64.0.9:7001", ("10.0.0.3/24",)) == [Way("100.64.0.9:7001", None)]
    assert find_ways(OWN, "peer.example:7001", ()) == [Way("peer.example:7001", None)]
    assert find_ways(OWN, "127.0.0.1:7001", ()) == [Way("127.0.0.1:7001", None)]


def test_many_networks_are_cut() -> None:
    hosts = [f"10.0.0.{i}/24" for i in range(3, 30)]
    assert len(find_ways(OWN, "10.0.0.3:1", hosts)) == MAX_WAYS


def test_the_narrowest_network_tells_the_interface() -> None:
    tunnel = Interface("utun0", "virtual", None, False, ("10.0.0.9/8",))
    assert find_ways((tunnel, *OWN), "10.0.0.3:1", ())[0].kind == "ethernet"


WIFI = LinkPath("192.168.1.3", "wifi", 5000.0, 0.6)
CABLE = LinkPath("10.0.0.3", "ethernet", 200.0, 0.94)
UNKNOWN = LinkPath("10.1.0.3", None, None, None)


def test_a_hop_is_half_a_round_trip_and_its_bytes() -> None:
    assert hop_s(CABLE) == pytest.approx(100e-6 + 16384 * 8 / 0.94e9)
    assert hop_s(UNKNOWN) == float("inf")


@given(st.permutations([WIFI, CABLE, UNKNOWN]))
def test_the_fastest_hop_comes_first(paths: list[LinkPath]) -> None:
    assert best_first(paths) == (CABLE, WIFI, UNKNOWN)


def test_a_worker_is_reached_by_the_best_way() -> None:
    link = Link(NodeId("n"), 200.0, 0.94, "10.0.0.3")
    assert by_best_way("192.168.1.3:9000", link) == "10.0.0.3:9000"
    assert by_best_way("192.168.1.3:9000", Link(NodeId("n"), 200.0)) == "192.168.1.3:9000"
    assert by_best_way("192.168.1.3:9000", None) == "192.168.1.3:9000"
    assert by_best_way("[fd00::3]:9", Link(NodeId("n"), address="fd01::3")) == "[fd01::3]:9"
