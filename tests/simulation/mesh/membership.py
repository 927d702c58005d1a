"""The members of the mesh: the real SWIM machine of each process, on datagrams in memory.

Datagrams are lost, doubled and overtake one another as the weather has it; nothing passes where a
link is cut. StreamTransport (push/pull, pings over TCP) take two round trips and pass in both directions or
not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from services.membership.effects import Changed, DialPing, DialPushPull, Effect, SendPacket
from services.membership.events import Event, PacketReceived, RecordsReceived, StreamAnswered
from services.membership.machine import SwimMachine
from services.membership.member import ChangeKind
from services.membership.message import Address, PacketMessage, SwimState
from services.membership.preset import LAN
from services.membership.profile import Profile
from services.runtime.driver import Driver
from shoal.model import MemberState as Shown
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.network import Network
from tests.simulation.mesh.process import Process

PORT = 7946
_SHOWN = {
    SwimState.ALIVE: Shown.ALIVE,
    SwimState.SUSPECT: Shown.SUSPECT,
    SwimState.DEAD: Shown.DEAD,
    SwimState.LEFT: Shown.LEFT,
}


@dataclass(slots=True)
class Weather:
    """Which part of all datagrams is lost, and which arrives twice; from 0 to 1."""

    loss: float = 0.0
    duplication: float = 0.0


class Membership:
    """Every member of one world.

    Args:
        loop: the loop of the world.
        network: says which hosts reach each other.
        rng: its chance.
    """

    def __init__(self, loop: VirtualLoop, network: Network, rng: Random) -> None:
        self.loop = loop
        self.network = network
        self.rng = rng
        self.weather = Weather()
        self.members: dict[str, MeshMember] = {}
        """Those whose process runs, by host."""
        self._addresses: dict[str, Address] = {}
        self._hosts: dict[Address, str] = {}

    def join(
        self, process: Process, told: Callable[[str, Shown], None], incarnation: int
    ) -> MeshMember:
        """Let a process be the member of its host; `told` hears what it believes of others."""
        member = MeshMember(self, process, told, incarnation)
        self.members[process.host] = member
        return member

    def address(self, host: str) -> Address:
        """Where a host is; memberlist writes addresses of IP alone."""
        known = self._addresses.get(host)
        if known is None:
            known = self._addresses[host] = Address(f"10.0.0.{len(self._addresses) + 1}", PORT)
            self._hosts[known] = host
        return known

    def host(self, address: Address) -> str:
        """Which host has an address."""
        return self._hosts[address]

    def carry(self, source: str, target: str, messages: tuple[PacketMessage, ...]) -> None:
        """Send a datagram."""
        weather, rng = self.weather, self.rng
        if (source, target) in self.network.cuts or rng.random() < weather.loss:
            return
        for _ in range(2 if rng.random() < weather.duplication else 1):
            seconds = self.network.latency(source, target) * (1 + rng.random())
            self.network.later(seconds, self._arrive, source, target, messages)

    def _arrive(self, source: str, target: str, messages: tuple[PacketMessage, ...]) -> None:
        member = self.members.get(target)
        if member is not None:
            member.take(PacketReceived(self.address(source), messages))

    def exchange(self, one: MeshMember, host: str) -> None:
        """Let two members exchange all they know, after the time that it takes."""
        if self.network.reachable(one.host, host):
            seconds = 4 * self.network.latency(one.host, host)
            self.network.later(seconds, self._exchange, one, host)

    def _exchange(self, one: MeshMember, host: str) -> None:
        other = self.members.get(host)
        if other is None or self.members.get(one.host) is not one:
            return
        if one.process.frozen or other.process.frozen:
            return
        ours, theirs = one.swim.local_state(), other.swim.local_state()
        other.take(RecordsReceived(ours))
        one.take(RecordsReceived(theirs))

    def ping(self, one: MeshMember, effect: DialPing) -> None:
        """Ask a member over a stream whether it lives."""
        host = self.host(effect.address)
        if self.network.reachable(one.host, host):
            seconds = 4 * self.network.latency(one.host, host)
            self.network.later(seconds, self._pong, one, effect)

    def _pong(self, one: MeshMember, effect: DialPing) -> None:
        other = self.members.get(self.host(effect.address))
        if other is not None and not other.process.frozen:
            one.take(StreamAnswered(effect.sequence, effect.node))


class MeshMember:
    """One member; `run` it in its process."""

    def __init__(
        self,
        membership: Membership,
        process: Process,
        told: Callable[[str, Shown], None],
        incarnation: int,
    ) -> None:
        self.process = process
        self.host = process.host
        self._membership = membership
        self._told = told
        profile = Profile(
            name=self.host,
            address=membership.address(self.host),
            preset=LAN,
            incarnation=incarnation,
        )
        loop = membership.loop
        self.swim = SwimMachine(profile, membership.rng, loop.time())
        self._driver = Driver[Event, Effect](self.swim, self._act, loop.time)
        process.on_end(self._gone)

    async def run(self) -> None:
        """Join those who are there, and be a member until cancelled."""
        for host in self._membership.members:
            if host != self.host:
                self._membership.exchange(self, host)
        await self._driver.run()

    def take(self, event: Event) -> None:
        """Hand it something that has arrived."""
        if not self.process.dead:
            self._driver.offer(event)

    def _gone(self) -> None:
        if self._membership.members.get(self.host) is self:
            del self._membership.members[self.host]

    def _act(self, effect: Effect) -> None:
        match effect:
            case SendPacket(address=address, messages=messages):
                self._membership.carry(self.host, self._membership.host(address), messages)
            case DialPushPull(address=address):
                self._membership.exchange(self, self._membership.host(address))
            case DialPing():
                self._membership.ping(self, effect)
            case Changed(change):
                name = change.member.name
                gone = change.kind is ChangeKind.REAPED
                self._told(name, Shown.UNKNOWN if gone else _SHOWN[change.member.state])
            case _:
                pass  # for people, and for layers that the mesh has not got
