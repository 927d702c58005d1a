"""K11: the address that others are told, and when none is told at all."""

import ipaddress
import socket

import pytest

from services.runtime.outward import Interface, choose, outward_host, pinned
from services.runtime.process import StartRefusedError

ip = ipaddress.ip_address
LO = Interface("lo", ip("127.0.0.1"))
SWITCH = Interface("eth0", ip("10.9.0.2"))
WLAN = Interface("wlan0", ip("192.168.1.7"))
DOCKER = Interface("docker0", ip("172.17.0.1"))
LINK_LOCAL = Interface("eth1", ip("169.254.3.4"))
SIX = Interface("eth0", ip("fd00::2"))


def test_k11_the_network_of_those_whom_it_joins_comes_first() -> None:
    found = choose(4, [LO, SWITCH, WLAN], world=WLAN.address, towards=[SWITCH.address])
    assert found == "10.9.0.2"


def test_k11_a_machine_that_joins_itself_takes_the_default_route() -> None:
    assert choose(4, [LO, WLAN], world=WLAN.address, towards=[LO.address]) == "192.168.1.7"


def test_k11_the_only_address_of_an_isolated_network() -> None:
    down = Interface("usb0", ip("192.168.55.1"), up=False)
    assert choose(4, [LO, SWITCH, SIX, DOCKER, LINK_LOCAL, down]) == "10.9.0.2"
    assert choose(4, [LO, LINK_LOCAL, DOCKER]) == "169.254.3.4"
    assert choose(6, [LO, SWITCH, SIX]) == "fd00::2"


def test_k11_several_addresses_and_no_hint_are_refused_by_name() -> None:
    with pytest.raises(StartRefusedError, match=r"10\.9\.0\.2 \(eth0\), 192\.168\.1\.7 \(wlan0\)"):
        choose(4, [LO, SWITCH, WLAN])
    with pytest.raises(StartRefusedError, match="--advertise HOST"):
        choose(4, [LO, SWITCH, WLAN], towards=[LO.address])


def test_k11_loopback_is_told_only_where_all_the_cluster_is_here() -> None:
    assert choose(4, [LO], towards=[LO.address]) == "127.0.0.1"
    with pytest.raises(StartRefusedError, match="no IPv4 address but loopback"):
        choose(4, [LO])


def test_what_is_bound_is_told() -> None:
    assert outward_host("10.0.0.1") == "10.0.0.1"
    assert outward_host("127.0.0.1", ["10.0.0.2:7946"]) == "127.0.0.1"
    assert outward_host("board-1") == "board-1"


def test_a_wildcard_takes_the_source_towards_a_peer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.2", 9))
        there = probe.getsockname()[0]
    assert there.startswith("127.")
    assert pinned(["0.0.0.0:1", "", ":7947", "127.0.0.1:2", "[::]:3", "10.0.0.1:4", "b:5"]) == (
        "10.0.0.1:4",
        "b:5",
    )
