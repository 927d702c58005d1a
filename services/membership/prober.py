"""One probe at a time: direct, then through others and over a stream; and relaying for others.

Sources: SWIM section 3.1 (probe, indirect probe), Lifeguard section IV-A (NACKs, awareness).
Unlike upstream, a relay sends its NACK at 80 % of its probe timeout, so that it arrives while the
prober still listens, and it forwards an acknowledgement that comes after the NACK. And a ping that is
not answered within half of the timeout is sent once more: it costs nothing while nothing is lost,
and halves the failures when a third of the packets are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.membership import message as wire
from services.membership.effects import DialPing, Effect, RoundTripMeasured, SendPacket
from services.membership.member import Member

if TYPE_CHECKING:
    from random import Random

    from services.membership.member_states import MemberStates
    from services.membership.preset import Preset

_STREAM_PING_PROTOCOL: Final = 3
_NACK_PROTOCOL: Final = 4
_REPEAT_AT: Final = 0.5
_RELAYS_MAX: Final = 1024
_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Probe:
    """The probe that is under way."""

    sequence: int
    target: Member
    started: float
    deadline: float
    repeated: bool = False
    indirect: bool = False
    nacks_wanted: int = 0
    nacks: int = 0


@dataclass(slots=True)
class _Relay:
    """A probe made for another member."""

    origin: wire.Address
    sequence: int
    nack: bool
    started: float


class Prober:
    """Runs probes and relays; returns the members to suspect.

    Args:
        states: Where targets are looked up and awareness is kept.
        preset: Timing.
        rng: The source of chance.
        lifeguard: Whether NACKs and awareness are used.
    """

    def __init__(
        self, states: MemberStates, preset: Preset, rng: Random, *, lifeguard: bool
    ) -> None:
        self._states = states
        self._preset = preset
        self._rng = rng
        self._lifeguard = lifeguard
        self._sequence = 0
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}
        self._late = (0, 0.0, 0)
        self._timers: list[tuple[float, int]] = []
        self.due = _NEVER
        self.stream_rescues = 0

    @property
    def probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probe is not None

    @property
    def relay_due(self) -> float:
        """When a relay needs attention."""
        return self._timers[0][0] if self._timers else _NEVER

    # ---- own probes -----------------------------------------------------------------------------

    def begin(self, target: Member, now: float) -> tuple[wire.PacketMessage, ...]:
        """Start a probe; what comes back goes to the target in one packet."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        interval = self._preset.probe_interval_seconds
        if self._lifeguard:
            interval = self._states.awareness.scale(interval)
        self._probe = _Probe(self._sequence, target, now, now + interval)
        self.due = now + self._preset.probe_timeout_seconds * _REPEAT_AT
        # No source address: we send from the port we listen on, so the answer finds its way.
        ping = wire.Ping(self._sequence, target.name)
        if target.state is wire.SwimState.SUSPECT:
            # So that it can refute at once.
            word = wire.Suspect(target.incarnation, target.name, self._states.me.name)
            return (ping, word)
        return (ping,)

    def advance(self, now: float, out: list[Effect]) -> Member | None:
        """Do what is due of the probe; a member that comes back has failed it."""
        probe = self._probe
        if probe is None:
            return None
        if not probe.repeated:
            probe.repeated = True
            self.due = max(now, probe.started + self._preset.probe_timeout_seconds)
            again = wire.Ping(probe.sequence, probe.target.name)
            out.append(SendPacket(probe.target.endpoint, (again,)))
            return None
        if not probe.indirect:
            self._ask_others(probe, now, out)
            return None
        self._finish(now)
        if probe.nacks_wanted:
            # Helpers that neither reached the target nor said so: it may be us.
            missing = probe.nacks_wanted - probe.nacks
            self._aware(missing)
            self._late = (probe.sequence, now + self._preset.probe_timeout_seconds, missing)
        else:
            self._aware(1)
        return probe.target

    def unreachable(self, address: wire.Address, now: float) -> None:
        """The direct ping could not even be sent: go on to the others at once."""
        probe = self._probe
        if probe is not None and not probe.indirect and probe.target.endpoint == address:
            probe.repeated = True
            self.due = now

    def ack(self, ack: wire.Ack, now: float, out: list[Effect]) -> None:
        """Take an acknowledgement, for an own probe or a relayed one."""
        probe = self._probe
        if probe is not None and probe.sequence == ack.sequence:
            if not probe.repeated:
                seconds = now - probe.started
                out.append(RoundTripMeasured(probe.target, seconds, ack.payload))
            self._succeed(now)
            return
        relay = self._relays.pop(ack.sequence, None)
        if relay is not None:
            out.append(SendPacket(relay.origin, (wire.Ack(relay.sequence),)))

    def stream_ack(self, sequence: int, now: float) -> None:
        """Take an acknowledgement that came over a stream."""
        probe = self._probe
        if probe is not None and probe.sequence == sequence:
            self.stream_rescues += 1
            self._succeed(now)

    def nack(self, nack: wire.Nack, now: float) -> None:
        """Take a helper's word that it is well, but had no answer.

        Upstream's helpers say so when the probe is just over: what was held against our own
        health for that is taken back.
        """
        probe = self._probe
        if probe is not None and probe.sequence == nack.sequence:
            probe.nacks = min(probe.nacks + 1, probe.nacks_wanted)
            return
        sequence, until, missing = self._late
        if sequence == nack.sequence and now <= until and missing:
            self._late = (sequence, until, missing - 1)
            self._aware(-1)

    def postpone(self, seconds: float) -> None:
        """Shift the probe: this process slept while the answer may have come."""
        if self._probe is not None:
            self._probe.started += seconds
            self._probe.deadline += seconds
            self.due += seconds

    def _ask_others(self, probe: _Probe, now: float, out: list[Effect]) -> None:
        probe.indirect = True
        self.due = max(probe.deadline, now)
        target = probe.target
        me = self._states.me.name
        helpers = self._states.table.draw(
            self._rng, self._preset.indirect_checks, (me, target.name), now
        )
        for helper in helpers:
            nack = self._lifeguard and helper.versions.protocol_max >= _NACK_PROTOCOL
            probe.nacks_wanted += nack
            request = wire.IndirectPing(probe.sequence, *target.endpoint, target.name, nack)
            out.append(SendPacket(helper.endpoint, (request,)))
        if target.versions.protocol_max >= _STREAM_PING_PROTOCOL:
            out.append(DialPing(target.endpoint, target.name, probe.sequence, probe.deadline))

    def _succeed(self, now: float) -> None:
        self._finish(now)
        self._aware(-1)

    def _finish(self, now: float) -> None:
        probe = self._probe
        self._probe = None
        if probe is not None:
            self.due = max(now, probe.started + self._preset.probe_interval_seconds)

    def _aware(self, delta: int) -> None:
        if self._lifeguard:
            self._states.awareness.apply(delta)

    # ---- probes for others ----------------------------------------------------------------------

    def relay(
        self, request: wire.IndirectPing, origin: wire.Address, now: float, out: list[Effect]
    ) -> bool:
        """Probe on behalf of `origin`; False when too many relays run already."""
        if len(self._relays) >= _RELAYS_MAX:
            return False
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._relays[self._sequence] = _Relay(origin, request.sequence, request.nack, now)
        timeout = self._preset.probe_timeout_seconds
        first = timeout * self._preset.nack_fraction if request.nack else 2 * timeout
        heapq.heappush(self._timers, (now + first, self._sequence))
        ping = wire.Ping(self._sequence, request.node)
        out.append(SendPacket(wire.Address(request.host, request.port), (ping,)))
        return True

    def relays_due(self, now: float, out: list[Effect]) -> None:
        """Send the NACKs that are due, and forget relays that are over."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, sequence = heapq.heappop(timers)
            relay = self._relays.get(sequence)
            if relay is None:
                continue
            if relay.nack:
                relay.nack = False
                out.append(SendPacket(relay.origin, (wire.Nack(relay.sequence),)))
                over = relay.started + 2 * self._preset.probe_timeout_seconds
                heapq.heappush(timers, (over, sequence))
            else:
                del self._relays[sequence]
