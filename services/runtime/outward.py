"""The address under which others reach this machine, where a process listens on all that it has.

Rule, the first that says something wins:
1. what was bound, unless it is a wildcard;
2. the address that this machine takes towards the members that it is to join, since they are on that network;
3. the address that it takes towards the world, by its default route;
4. the only address there is. Not counted are loopback, links that are down, bridges of containers,
   and, unless there is nothing else, link-local addresses (RFC 3927, RFC 4291 section 2.5.6);
5. loopback, if all members that it is to join are on this machine.
Else it cannot be known, and the start is refused with the addresses there are: a guess would be announced
to the whole cluster, which then suspects a machine that is well (three boards on a switch with static
addresses all announced 127.0.0.1).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

from services.runtime.address import AddressError, host_port
from services.runtime.process import StartRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_OF_CONTAINERS: Final = re.compile(r"(docker|podman|br-|virbr|lxc|lxd|cni|veth|flannel|cali)")
_WORLD: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses of documentation (RFC 5737, RFC 3849): no machine has them, and a route is chosen all the same."""
_DISCARD: Final = 9


class NoAddressError(StartRefusedError):
    """This machine has no network: no address but loopback, and no way to the members that it is to join."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An address of this machine; `up` if its link is."""

    name: str
    address: Address
    up: bool = True


def choose(
    version: int,
    interfaces: Sequence[Interface],
    *,
    world: Address | None = None,
    towards: Sequence[Address] = (),
) -> str:
    """Choose an address for a process that listens on all of them.

    Args:
        version: 4 or 6, of the wildcard that was bound.
        interfaces: what this machine has.
        world: its address by its default route; None if it has no such route.
        towards: its address towards each member that it is to join.

    Raises:
        NoAddressError: There is none.
        StartRefusedError: There are several, and nothing says which.
    """
    outside = [one for one in towards if not one.is_loopback]
    for found in (*outside, *([world] if world is not None and not world.is_loopback else [])):
        if found.version == version:
            return str(found)
    usable = [
        one
        for one in interfaces
        if one.up and one.address.version == version and not one.address.is_loopback
    ]
    machines = [one for one in usable if _OF_CONTAINERS.match(one.name) is None]
    routed = [one for one in machines if not one.address.is_link_local]
    candidates = routed or machines
    if len(candidates) == 1:
        return str(candidates[0].address)
    if not candidates and towards:
        return str(towards[0])  # this machine is the whole cluster
    remedy = "say with --advertise HOST under which address others reach this machine"
    if not candidates:
        raise NoAddressError(
            f"this machine has no IPv{version} address but loopback: {remedy}; for a cluster of "
            "this machine alone, listen on 127.0.0.1"
        )
    those = ", ".join(f"{one.address} ({one.name})" for one in candidates)
    raise StartRefusedError(
        f"this machine has no default route and several addresses, {those}: {remedy}"
    )


def outward_host(bound: str, towards: Iterable[str] = ()) -> str:
    """Return the host under which others reach what listens at `bound`; may wait for a name server.

    Args:
        bound: the host that was bound; a name is returned as it is, since others resolve it too.
        towards: `host[:port]` of the members that this machine is to join; names that are not known now
            say nothing.

    Raises:
        StartRefusedError: It is a wildcard, and nothing says what to put into its place.
    """
    try:
        wildcard = ipaddress.ip_address(bound or "0.0.0.0")  # noqa: S104 - recognised, not bound
    except ValueError:
        return bound
    if not wildcard.is_unspecified:
        return bound
    version = wildcard.version
    sources = (_source(version, _host(peer)) for peer in towards)
    return choose(
        version,
        interfaces(),
        world=_source(version, _WORLD[version]),
        towards=[source for source in sources if source is not None],
    )


def pinned(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return those of `host:port` whose host is one address, which others may reach: no wildcard."""
    return tuple(address for address in addresses if address and _is_pinned(_host(address)))


def _is_pinned(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host or "0.0.0.0")  # noqa: S104 - recognised, not bound
    except ValueError:
        return host != "localhost"
    return not found.is_unspecified and not found.is_loopback


def on_loopback(address: str) -> bool:
    """Whether only this machine reaches a `host:port`."""
    host = _host(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def interfaces() -> list[Interface]:
    """Return the addresses of this machine."""
    states = psutil.net_if_stats()
    found: list[Interface] = []
    for name, addresses in psutil.net_if_addrs().items():
        up = name not in states or states[name].isup
        for one in addresses:
            if one.family in {socket.AF_INET, socket.AF_INET6}:
                # A link-local address comes with its zone, which means nothing to others.
                text = one.address.partition("%")[0]
                found.append(Interface(name, ipaddress.ip_address(text), up))
    return found


def _host(peer: str) -> str:
    with suppress(AddressError):
        return host_port(peer, hostless=True)[0]
    return peer.strip("[]")


def _source(version: int, peer: str) -> Address | None:
    """Return our address towards a peer: connecting a datagram socket sends nothing."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError, UnicodeError):
        probe.connect((peer, _DISCARD))
        return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0])
    return None
