"""The membership machine: SWIM with Lifeguard, sans-IO.

It takes decoded messages with their source and the time, and returns what is to be sent, dialled
or reported. It owns no clock, no socket and no randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, assert_never

from services.membership import effects, events
from services.membership import message as wire
from services.membership.broadcast import BroadcastQueue
from services.membership.compatibility import incompatibility
from services.membership.member import Member
from services.membership.member_states import VOUCH_SEQUENCE, MemberStates
from services.membership.member_table import EMPTY_BASE, TableBase
from services.membership.packet import (
    COMPOUND_HEADER_BYTES,
    COMPOUND_PART_BYTES,
    COMPOUND_PARTS_MAX,
)
from services.membership.probe_order import ProbeOrder
from services.membership.prober import Prober
from services.membership.profile import Profile
from services.membership.refusal import DropReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_CRC_PROTOCOL: Final = 5
_NEVER: Final = float("inf")
_UNPROBED_INTERVALS: Final = 20
_EAGER_SHARE: Final = 1 / 32
_LEAD_BYTES: Final = 64
"""Room kept for the message that leads a packet with piggybacked rumours, besides its name."""


def _no_payload() -> bytes:
    return b""


class SwimMachine:
    """One member of a cluster.

    Args:
        profile: Identity, timing, limits.
        rng: The source of chance.
        now: When it starts, in seconds on the clock of all later calls.
        base: Records it starts with, shared between simulated machines.
    """

    def __init__(
        self,
        profile: Profile,
        rng: Random,
        now: float,
        *,
        base: TableBase = EMPTY_BASE,
    ) -> None:
        self._profile = profile
        self._preset = preset = profile.preset
        self._name = profile.name
        self._rng = rng
        self._ack_payload: Callable[[], bytes] = _no_payload
        self.states = MemberStates(profile, now, base)
        self._prober = Prober(self.states, preset, rng, lifeguard=profile.lifeguard)
        self._order = ProbeOrder(rng)
        self._users: BroadcastQueue[bytes] = BroadcastQueue(4096)
        self._departing = False
        self._lag_seconds = profile.lag_fraction * preset.probe_timeout_seconds
        # Members that start together must not probe together.
        self._prober.due = now + rng.random() * preset.probe_interval_seconds
        period = preset.push_pull_seconds(len(self.states.table))
        # A new member exchanges states soon and then ever less often, so that what it missed of
        # the rumours while it joined is made up for; between acquainted ones there is no hurry.
        self._push_pull_share = _EAGER_SHARE if base is EMPTY_BASE else 1.0
        self._push_pull_due = now + (rng.random() or 1.0) * period * self._push_pull_share
        heal = profile.heal_interval_seconds
        first = min(heal, 2 * preset.probe_interval_seconds)
        self._heal_due = now + (0.5 + rng.random()) * first if heal else _NEVER
        self._gossiped = now
        self._pinged = now
        self._gossip_due = _NEVER
        self._due = _NEVER
        self._plan(now)

    def carry(self, ack_payload: Callable[[], bytes]) -> None:
        """Let acknowledgements carry what `ack_payload` gives (Serf's coordinate)."""
        self._ack_payload = ack_payload

    # ---- what the shell asks --------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This member's own record."""
        return self.states.me

    @property
    def awareness(self) -> int:
        """This member's health score, 0 when it is well."""
        return self.states.awareness.score

    @property
    def stream_rescues(self) -> int:
        """Probes that failed by datagram and succeeded over a stream."""
        return self._prober.stream_rescues

    @property
    def queued(self) -> int:
        """Broadcasts that wait."""
        return len(self.states.queue) + len(self._users)

    def waits(self, key: str) -> bool:
        """Whether the user broadcast under `key` has still to be sent."""
        return key in self._users

    def members(self, *, all_states: bool = False) -> list[Member]:
        """List alive and suspect members; with `all_states` also dead, left and remembered ones."""
        if not all_states:
            return [member for member in self.states.table if member.reachable]
        known = list(self.states.table)
        known.extend(m for m in self.states.departed if self.states.table.get(m.name) is None)
        return known

    def find(self, name: str) -> Member | None:
        """The record under `name`, remembered ones included."""
        found = self.states.table.get(name)
        return found or next((m for m in self.states.departed if m.name == name), None)

    def names(self) -> list[str]:
        """Names of all records."""
        return self.states.table.names()

    def local_state(self, names: Iterable[str] | None = None) -> tuple[wire.PushNodeState, ...]:
        """All records, or those under `names`, as a push/pull exchange carries them."""
        table = self.states.table
        if names is None:
            return tuple(member.as_node_state() for member in table)
        found = map(table.get, names)
        return tuple(member.as_node_state() for member in found if member is not None)

    def refusal(self, nodes: Sequence[wire.PushNodeState]) -> str | None:
        """Say why a remote's records must not be merged, None if they may be."""
        return incompatibility(nodes, self.states.table.versions)

    # ---- machine --------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        return None if self._due == _NEVER else self._due

    def handle(self, event: events.Event, now: float) -> list[effects.Effect]:
        """Take one event."""
        out: list[effects.Effect] = []
        match event:
            case events.PacketReceived():
                for message in event.messages:
                    self._message(message, event, now, out)
            case events.StreamAnswered():
                if event.sequence == VOUCH_SEQUENCE:
                    self.states.vouch(event.node, now, out)
                else:
                    self._prober.stream_ack(event.sequence, now)
            case events.SendFailed():
                self._prober.unreachable(event.address, now)
            case events.RecordsReceived():
                self.states.merge(event.nodes, now, out)
            case events.SetMeta():
                self.states.set_meta(event.meta, now, out)
            case events.Broadcast():
                self._users.put(event.key, event.payload, len(event.payload))
            case events.Leave():
                self._leave(now, out)
            case events.DeclareLeft():
                self.states.declare_left(event.name, now, out, prune=event.prune)
            case events.LoopLag():
                self._overslept(event.seconds)
            case _:
                assert_never(event)
        self._plan(now)
        return out

    def tick(self, now: float) -> list[effects.Effect]:
        """Do what fell due."""
        out: list[effects.Effect] = []
        if now - self._due > self._lag_seconds:
            self._overslept(now - self._due)
        prober = self._prober
        if prober.due <= now:
            if prober.probing:
                failed = prober.advance(now, out)
                if failed is not None:
                    claim = wire.Suspect(failed.incarnation, failed.name, self._name)
                    self.states.suspect(claim, now, out)
                    # The rumour may take a while to reach the accused; this does not.
                    out.append(effects.SendPacket(failed.endpoint, (claim,)))
            if not prober.probing and prober.due <= now:
                self._probe(now, out)
        if prober.relay_due <= now:
            prober.relays_due(now, out)
        if self.states.deadline() <= now:
            self.states.expire(now, out)
        if self._gossip_due <= now:
            self._gossip(now, out)
        if self._push_pull_due <= now:
            self._push_pull(now, out)
        if self._heal_due <= now:
            self._heal(now, out)
        self._plan(now)
        return out

    # ---- messages -------------------------------------------------------------------------------

    def _message(
        self,
        message: wire.PacketMessage,
        received: events.PacketReceived,
        now: float,
        out: list[effects.Effect],
    ) -> None:
        source = received.source
        match message:
            case wire.Suspect():
                self.states.suspect(message, now, out, source)
            case wire.Dead():
                self.states.dead(message, now, out)
            case wire.Alive():
                self.states.alive(message, now, out)
            case wire.Ping():
                self._ping(message, source, now, out)
            case wire.Ack():
                self._prober.ack(message, now, out)
            case wire.User():
                out.append(effects.UserReceived(message.payload, received.sealed))
            case wire.IndirectPing():
                origin = _reply_address(message, source)
                if not message.port or not message.host:
                    out.append(
                        effects.Dropped(DropReason.MALFORMED, "indirect ping without a target")
                    )
                elif not self._prober.relay(message, origin, now, out):
                    out.append(effects.Dropped(DropReason.OVERLOADED, "1024 relays run already"))
            case wire.Nack():
                self._prober.nack(message, now)
            case _:
                assert_never(message)

    def _ping(
        self, ping: wire.Ping, source: wire.Address, now: float, out: list[effects.Effect]
    ) -> None:
        if ping.node and ping.node != self._name:
            detail = f"ping for {ping.node} reached {self._name}"
            out.append(effects.Dropped(DropReason.WRONG_NODE, detail))
            return
        self._pinged = now
        payload = self._ack_payload()
        ack = wire.Ack(ping.sequence, payload)
        lead: tuple[wire.PacketMessage, ...] = (ack,)
        out.append(
            effects.SendPacket(_reply_address(ping, source), self._piggyback(lead, len(payload)))
        )

    # ---- time -----------------------------------------------------------------------------------

    def _plan(self, now: float) -> None:
        """Work out when the next thing is due."""
        states = self.states
        newcomers = states.newcomers
        if newcomers:
            for name in newcomers:
                self._order.add(name)
            newcomers.clear()
        if self._gossip_due == _NEVER and (len(states.queue) or len(self._users)):
            # The first rumour after a silence leaves almost at once; those that follow within
            # the interval share a packet.
            pause = self._preset.gossip_interval_seconds
            soon = now + self._rng.random() * 0.1 * pause
            self._gossip_due = max(self._gossiped + pause, soon)
        prober = self._prober
        self._due = min(
            prober.due,
            prober.relay_due,
            states.deadline(),
            self._gossip_due,
            self._push_pull_due,
            self._heal_due,
        )

    def _overslept(self, seconds: float) -> None:
        """This process did not run for a while: hold that against no member."""
        if not self._profile.lifeguard:
            return
        self.states.awareness.apply(1)
        self._prober.postpone(seconds)
        self.states.postpone(seconds)

    def _probe(self, now: float, out: list[effects.Effect]) -> None:
        target = self._next_target(now, out)
        if target is None:
            self._prober.due = now + self._preset.probe_interval_seconds
            return
        lead = self._prober.begin(target, now)
        messages = lead if len(lead) > 1 else self._piggyback(lead, len(target.name))
        out.append(effects.SendPacket(target.endpoint, messages))

    def _next_target(self, now: float, out: list[effects.Effect]) -> Member | None:
        table = self.states.table
        if table.reachable <= 1 and len(table) <= 1:
            return None
        for _ in range(2 * table.places + 2):
            place = self._order.next()
            if place is None:
                self.states.reap(now, out)
                self._order.restart(table.places)
                if table.reachable <= 1:
                    return None
                continue
            member = table.get(place) if isinstance(place, str) else table.at(place)
            if member is not None and member.reachable and member.name != self._name:
                return member
        return None

    def _gossip(self, now: float, out: list[effects.Effect]) -> None:
        preset = self._preset
        self._gossiped = now
        states = self.states
        targets = states.table.draw(
            self._rng,
            preset.gossip_nodes,
            (self._name,),
            now,
            preset.gossip_to_the_dead_seconds,
        )
        for target in targets:
            messages = self._piggyback((), 0)
            if not messages:
                break
            checksum = target.versions.protocol_max >= _CRC_PROTOCOL
            out.append(effects.SendPacket(target.endpoint, messages, checksum))
        waiting = len(states.queue) or len(self._users)
        self._gossip_due = now + preset.gossip_interval_seconds if waiting else _NEVER
        if self._departing and (self._name not in states.queue or not targets):
            self._departing = False
            out.append(effects.Departed())

    def _push_pull(self, now: float, out: list[effects.Effect]) -> None:
        table = self.states.table
        # Spread by a tenth, so that exchanges do not fall into step.
        period = self._preset.push_pull_seconds(len(table)) * self._push_pull_share
        if table.reachable > 1:
            self._push_pull_share = min(1.0, 2 * self._push_pull_share)
        self._push_pull_due = now + period * (0.9 + 0.2 * self._rng.random())
        if table.reachable <= 1:
            self._pinged = now
        elif now - self._pinged > _UNPROBED_INTERVALS * self._preset.probe_interval_seconds:
            # Whatever the size, a member is probed about once an interval. A responder of another
            # delegate protocol lets us join and then ignores us.
            detail = f"no member has probed us for {now - self._pinged:.0f} s; do versions agree?"
            out.append(effects.Dropped(DropReason.UNPROBED, detail))
        partner = table.draw(self._rng, 1, (self._name,), now)
        out.extend(effects.DialPushPull(member.endpoint, join=False) for member in partner)

    def _heal(self, now: float, out: list[effects.Effect]) -> None:
        """Try a lost member or an absent seed again, at a rate the whole cluster shares.

        All members hold much the same records, so each tries with probability lost/alive (as Serf's
        reconnect does): about `lost` tries an interval from the whole cluster, never more than
        one from each member.
        """
        interval = self._profile.heal_interval_seconds
        states = self.states
        if states.table.reachable <= 1:
            interval = min(interval, 2 * self._preset.probe_interval_seconds)
        self._heal_due = now + interval * (0.5 + self._rng.random())
        if states.leaving:
            return
        candidates = self._missing()
        if not candidates:
            return
        alive = max(1, states.table.reachable)
        if self._rng.random() * alive < max(1, len(candidates)):
            out.append(effects.DialPushPull(self._rng.choice(candidates), join=True))

    def _missing(self) -> list[wire.Address]:
        """Addresses that should be in the cluster and are not."""
        states = self.states
        missing = states.departed.dead()
        missing.extend(
            member.endpoint
            for member in states.table.unreachable()
            if member.state is wire.SwimState.DEAD
        )
        seeds = self._profile.seeds
        if seeds:
            present = {member.endpoint for member in states.table if member.reachable}
            missing.extend(seed for seed in seeds if seed not in present)
        return missing

    def _leave(self, now: float, out: list[effects.Effect]) -> None:
        states = self.states
        if states.leaving:
            return
        states.leaving = True
        me = states.me
        states.dead(wire.Dead(me.incarnation, me.name, me.name), now, out)
        self._departing = True
        if states.table.reachable == 0:
            self._departing = False
            out.append(effects.Departed())

    # ---- packets --------------------------------------------------------------------------------

    def _piggyback(
        self, lead: tuple[wire.PacketMessage, ...], lead_bytes: int
    ) -> tuple[wire.PacketMessage, ...]:
        """Fill a packet behind `lead` with rumours, then with user broadcasts."""
        rumours = self.states.queue
        users = self._users
        if not len(rumours) and not len(users):
            return lead
        room = self._profile.packet_bytes
        budget = (room if isinstance(room, int) else room()) - COMPOUND_HEADER_BYTES
        if lead:
            budget -= _LEAD_BYTES + lead_bytes + COMPOUND_PART_BYTES
        members = len(self.states.table)
        limit = self._preset.retransmit_limit(members)
        most = COMPOUND_PARTS_MAX - len(lead)
        parts: list[wire.PacketMessage] = list(lead)
        taken = rumours.take(budget, COMPOUND_PART_BYTES, limit, most)
        parts.extend(taken)
        if len(users) and len(taken) < most:
            codec = self._profile.codec
            budget -= sum(codec.size(rumour) + COMPOUND_PART_BYTES for rumour in taken)
            payloads = users.take(budget, COMPOUND_PART_BYTES + 1, limit, most - len(taken))
            parts.extend(map(wire.User, payloads))
        return tuple(parts)


def _reply_address(message: wire.Ping | wire.IndirectPing, source: wire.Address) -> wire.Address:
    """Where the answer goes: the address in the message if it is whole, else the source."""
    if message.source_host and message.source_port:
        return wire.Address(message.source_host, message.source_port)
    return source
