"""A seeded network of membership machines on a virtual clock.

Delay, jitter (and so reordering), loss, duplication, one-way and two-way cuts, clogged links,
crashes, freezes, restarts and drifting clocks. The same seed gives the same trace, to the last
packet; a failing test prints the seed it ran with.
"""

import heapq
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, assert_never

from services.membership import effects
from services.membership.events import Event, Leave, PacketReceived, RecordsReceived, StreamAnswered
from services.membership.machine import SwimMachine
from services.membership.member import ChangeKind, Member, MemberChange
from services.membership.member_table import EMPTY_BASE, TableBase
from services.membership.message import Address, PacketMessage, SwimState
from services.membership.preset import LAN, Preset
from services.membership.profile import Profile

_NEVER = float("inf")
_FROZEN_PACKETS_MAX = 4096
_TRACE = struct.Struct("<dIII")


class Life(IntEnum):
    """What a simulated process does."""

    RUNNING = 0
    FROZEN = 1
    CRASHED = 2


class _Parcel(NamedTuple):
    """A packet under way."""

    source: int
    messages: tuple[PacketMessage, ...]


_Payload = float | _Parcel | Callable[[], None]
"""What happens at a time: a member's timer, a packet's arrival, the end of a stream."""


@dataclass(slots=True)
class Weather:
    """The state of every link.

    Attributes:
        delay_seconds: One way, at least.
        jitter_seconds: Added at random, which also reorders.
        loss: Share of packets lost; streams take longer for it, as TCP does.
        duplication: Share of packets delivered twice.
    """

    delay_seconds: float = 0.0005
    jitter_seconds: float = 0.001
    loss: float = 0.0
    duplication: float = 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from `sources` to `targets`; `clogged` holds it back instead."""

    sources: frozenset[int]
    targets: frozenset[int]
    clogged: bool = False
    packets_only: bool = False


@dataclass(slots=True)
class Seat:
    """One simulated process and its machine."""

    index: int
    swim: SwimMachine
    profile: Profile
    life: Life = Life.RUNNING
    drift: float = 0.0
    scheduled: float = _NEVER
    held: list[_Parcel] = field(default_factory=list[_Parcel])
    departed: bool = False
    packets_sent: int = 0
    drops: int = 0

    @property
    def name(self) -> str:
        """The member's name."""
        return self.profile.name


class Network:
    """Members, the weather between them, and the time.

    Args:
        seed: Decides everything.
        weather: The state of every link; may be changed at any time.
        transcribe: Keep a line for each change of each member.
    """

    def __init__(
        self, seed: int, weather: Weather | None = None, *, transcribe: bool = False
    ) -> None:
        self.seed = seed
        self.weather = weather or Weather()
        self.now = 0.0
        self.seats: list[Seat] = []
        self.changes: list[tuple[float, str, MemberChange]] = []
        self.watch: Callable[[float, str, MemberChange], None] | None = None
        self.transcript: list[str] | None = [] if transcribe else None
        self.steps = 0
        self.keep_changes = True
        self._rng = random.Random(seed)
        self._places: dict[Address, int] = {}
        self._names: dict[str, int] = {}
        self._heap: list[tuple[float, int, int, _Payload]] = []
        self._order = 0
        self._cuts: list[Cut] = []
        self._clogged: list[tuple[int, int, tuple[PacketMessage, ...]]] = []
        self._trace = 0

    # ---- building -------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        preset: Preset = LAN,
        incarnation: int = 1,
        base: TableBase = EMPTY_BASE,
        drift: float = 0.0,
        address: Address | None = None,
        options: Callable[[Profile], Profile] = lambda profile: profile,
    ) -> Seat:
        """Start a member that knows nobody but itself and `base`."""
        index = len(self.seats)
        where = address or _address(index)
        profile = options(Profile(name=name, address=where, preset=preset, incarnation=incarnation))
        seat = Seat(index, self._machine(profile, index, drift, base), profile, drift=drift)
        self.seats.append(seat)
        self._places[where] = index
        self._names[name] = index
        self._schedule(seat)
        return seat

    def add_joined(self, count: int, *, preset: Preset = LAN, incarnation: int = 1) -> None:
        """Start members that all join the first one."""
        for index in range(count):
            self.add(f"n{index}", preset=preset, incarnation=incarnation)
        for seat in self.seats[1:]:
            self.join(seat, self.seats[0])

    def add_acquainted(
        self,
        count: int,
        *,
        preset: Preset = LAN,
        options: Callable[[Profile], Profile] = lambda profile: profile,
    ) -> list[Seat]:
        """Start members that know each other already."""
        first = len(self.seats)
        profiles = [
            options(Profile(name=f"n{index}", address=_address(index), preset=preset))
            for index in range(first, first + count)
        ]
        base = TableBase(
            Member(
                profile.name,
                profile.address.host,
                profile.address.port,
                profile.meta,
                profile.incarnation,
                SwimState.ALIVE,
                self.now,
                profile.versions,
            )
            for profile in profiles
        )
        return [
            self.add(profile.name, preset=preset, base=base, options=options)
            for profile in profiles
        ]

    def seat(self, name: str) -> Seat:
        """Find a member by name."""
        return self.seats[self._names[name]]

    # ---- doing ----------------------------------------------------------------------------------

    def join(self, seat: Seat, other: Seat) -> None:
        """Let `seat` exchange states with `other`."""
        self._perform(seat, [effects.DialPushPull(other.profile.address, join=True)])

    def tell(self, seat: Seat, event: Event) -> None:
        """Hand a member an event, as its user would."""
        self._handle(seat, event)

    def leave(self, seat: Seat) -> None:
        """Let a member say goodbye; it crashes when that has been sent."""
        self._handle(seat, Leave())

    def crash(self, *seats: Seat) -> None:
        """Kill members; their addresses refuse streams and swallow packets."""
        for seat in seats:
            seat.life = Life.CRASHED
            seat.held.clear()

    def freeze(self, seat: Seat) -> None:
        """Stop a member as SIGSTOP does: its socket buffers, nobody reads."""
        seat.life = Life.FROZEN

    def thaw(self, seat: Seat, *, timers_first: bool = False) -> None:
        """Let a frozen member go on; by default packets first, as an event loop does."""
        seat.life = Life.RUNNING
        local = self.now * (1.0 + seat.drift)
        deadline = seat.swim.deadline()
        if timers_first and deadline is not None and deadline <= local:
            self._perform(seat, seat.swim.tick(local))
        held = seat.held[:]
        seat.held.clear()
        for parcel in held:
            where = self.seats[parcel.source].profile.address
            self._handle(seat, PacketReceived(where, parcel.messages))
        seat.scheduled = _NEVER
        self._schedule(seat)

    def restart(self, seat: Seat, *, incarnation: int = 1, address: Address | None = None) -> None:
        """Start a member anew, with its memory gone."""
        profile = replace(
            seat.profile, incarnation=incarnation, address=address or seat.profile.address
        )
        self._places.pop(seat.profile.address, None)
        self._places[profile.address] = seat.index
        seat.profile = profile
        seat.swim = self._machine(profile, seat.index, seat.drift, EMPTY_BASE)
        seat.life = Life.RUNNING
        seat.held.clear()
        seat.departed = False
        seat.scheduled = _NEVER
        self._schedule(seat)

    def cut(
        self,
        sources: Iterable[Seat],
        targets: Iterable[Seat],
        *,
        both_ways: bool = True,
        clogged: bool = False,
        packets_only: bool = False,
    ) -> list[Cut]:
        """Cut links; hand the result to `mend`."""
        here = frozenset(seat.index for seat in sources)
        there = frozenset(seat.index for seat in targets)
        made = [Cut(here, there, clogged, packets_only)]
        if both_ways:
            made.append(Cut(there, here, clogged, packets_only))
        self._cuts += made
        return made

    def mend(self, cuts: Sequence[Cut]) -> None:
        """Undo cuts; what was held back arrives now."""
        for cut in cuts:
            self._cuts.remove(cut)
        held, self._clogged = self._clogged, []
        for source, target, messages in held:
            self._carry(source, target, messages)

    # ---- time -----------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.run_until(None, seconds)

    def run_until(self, predicate: Callable[[], bool] | None, seconds: float) -> float | None:
        """Let time pass until `predicate` holds; None if it never did within `seconds`.

        The predicate is asked every 50 virtual milliseconds.
        """
        end = self.now + seconds
        ask_at = self.now
        heap = self._heap
        while True:
            if predicate is not None and self.now >= ask_at:
                if predicate():
                    return self.now
                ask_at = self.now + 0.05
            when = heap[0][0] if heap else _NEVER
            if predicate is not None and when > ask_at and ask_at < end:
                self.now = ask_at
                continue
            if when > end:
                self.now = end
                return self.now if predicate is not None and predicate() else None
            when, _, index, payload = heapq.heappop(heap)
            self.now = when
            self.steps += 1
            self._step(self.seats[index], payload)

    # ---- asking ---------------------------------------------------------------------------------

    def running(self) -> list[Seat]:
        """The members whose process runs."""
        return [seat for seat in self.seats if seat.life is Life.RUNNING]

    def view(self, seat: Seat) -> dict[str, SwimState]:
        """What a member believes."""
        return {member.name: member.state for member in seat.swim.states.table}

    def agree(self, seats: Sequence[Seat], alive: Sequence[Seat]) -> bool:
        """Whether each of `seats` holds exactly `alive` for alive."""
        names = {seat.name for seat in alive}
        for seat in seats:
            table = seat.swim.states.table
            if table.reachable != len(names):
                return False
            for name in names:
                member = table.get(name)
                if member is None or member.state is not SwimState.ALIVE:
                    return False
        return True

    def acquainted(self, seats: Sequence[Seat]) -> bool:
        """Whether each of `seats` holds as many as they are for alive or suspect."""
        return all(seat.swim.states.table.reachable == len(seats) for seat in seats)

    def all_hold(self, seats: Iterable[Seat], name: str, *states: SwimState) -> bool:
        """Whether each of `seats` holds `name` in one of the states, or has reaped it."""
        for seat in seats:
            member = seat.swim.states.table.get(name)
            if member is not None and member.state not in states:
                return False
        return True

    def died(self, *names: str) -> list[tuple[float, str, str]]:
        """Death verdicts so far: `(when, by whom, about whom)`, all or only about `names`."""
        return [
            (when, by, change.member.name)
            for when, by, change in self.changes
            if change.kind is ChangeKind.DIED and (not names or change.member.name in names)
        ]

    @property
    def trace(self) -> str:
        """A checksum over every packet so far."""
        return f"{self._trace:08x}"

    # ---- inside ---------------------------------------------------------------------------------

    def _machine(self, profile: Profile, index: int, drift: float, base: TableBase) -> SwimMachine:
        rng = random.Random(self.seed * 1_000_003 + index)
        return SwimMachine(profile, rng, self._local(drift), base=base)

    def _local(self, drift: float) -> float:
        return self.now * (1.0 + drift)

    def _push(self, when: float, index: int, payload: _Payload) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, index, payload))

    def _schedule(self, seat: Seat) -> None:
        deadline = seat.swim.deadline()
        if deadline is None:
            return
        if seat.drift:
            deadline /= 1.0 + seat.drift
        if deadline < seat.scheduled:
            seat.scheduled = deadline
            self._push(max(deadline, self.now), seat.index, deadline)

    def _step(self, seat: Seat, payload: _Payload) -> None:
        if isinstance(payload, (float, int)):
            if payload != seat.scheduled or seat.life is not Life.RUNNING:
                return
            seat.scheduled = _NEVER
            local = self.now * (1.0 + seat.drift) if seat.drift else self.now
            deadline = seat.swim.deadline()
            if deadline is not None and deadline <= local + 1e-9:
                self._perform(seat, seat.swim.tick(max(local, deadline)))
            self._schedule(seat)
        elif isinstance(payload, _Parcel):
            if seat.life is Life.RUNNING:
                where = self.seats[payload.source].profile.address
                self._handle(seat, PacketReceived(where, payload.messages))
            elif seat.life is Life.FROZEN and len(seat.held) < _FROZEN_PACKETS_MAX:
                seat.held.append(payload)
        else:
            payload()

    def _handle(self, seat: Seat, event: Event) -> None:
        local = self.now * (1.0 + seat.drift) if seat.drift else self.now
        wanted = seat.swim.handle(event, local)
        if wanted:
            self._perform(seat, wanted)
        deadline = seat.swim.deadline()
        if deadline is not None and (seat.drift or deadline < seat.scheduled):
            self._schedule(seat)

    def _perform(self, seat: Seat, wanted: Sequence[effects.Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.SendPacket():
                    self._send(seat, effect)
                case effects.Changed():
                    self._changed(seat, effect.change)
                case effects.DialPing():
                    self._dial_ping(seat, effect)
                case effects.DialPushPull():
                    self._dial_push_pull(seat, effect)
                case effects.Departed():
                    seat.departed = True
                case effects.Dropped():
                    seat.drops += 1
                case effects.UserReceived() | effects.RoundTripMeasured() | effects.NameConflict():
                    pass
                case _:
                    assert_never(effect)

    def _changed(self, seat: Seat, change: MemberChange) -> None:
        if self.keep_changes:
            self.changes.append((self.now, seat.name, change))
        if self.watch is not None:
            self.watch(self.now, seat.name, change)
        if self.transcript is not None:
            member = change.member
            self.transcript.append(
                f"{self.now:9.3f} {seat.name}: {member.name} {change.kind} "
                f"(incarnation {member.incarnation})"
            )

    # ---- links ----------------------------------------------------------------------------------

    def _send(self, seat: Seat, effect: effects.SendPacket) -> None:
        seat.packets_sent += 1
        target = self._places.get(effect.address)
        if target is None:
            return
        data = _TRACE.pack(self.now, seat.index, target, len(effect.messages))
        self._trace = zlib.crc32(data, self._trace)
        self._carry(seat.index, target, effect.messages)

    def _carry(self, source: int, target: int, messages: tuple[PacketMessage, ...]) -> None:
        weather = self.weather
        rng = self._rng
        if self._cuts:
            cut = self._severed(source, target)
            if cut is not None:
                if cut.clogged:
                    self._clogged.append((source, target, messages))
                return
        if weather.loss and rng.random() < weather.loss:
            return
        copies = 2 if weather.duplication and rng.random() < weather.duplication else 1
        for _ in range(copies):
            when = self.now + weather.delay_seconds + rng.random() * weather.jitter_seconds
            self._push(when, target, _Parcel(source, messages))

    def _severed(self, source: int, target: int, *, stream: bool = False) -> Cut | None:
        for cut in self._cuts:
            if (
                source in cut.sources
                and target in cut.targets
                and not (stream and cut.packets_only)
            ):
                return cut
        return None

    def _stream_seconds(self, source: int, target: int, round_trips: int) -> float | None:
        """How long a stream of so many round trips takes; None when it cannot be made.

        Every lost segment costs a retransmission timeout: 1 s doubling for the handshake, 0.2 s
        doubling afterwards (RFC 6298).
        """
        if self._severed(source, target, stream=True) or self._severed(target, source, stream=True):
            return None
        weather = self.weather
        total = 0.0
        for trip in range(round_trips):
            total += 2 * weather.delay_seconds + self._rng.random() * weather.jitter_seconds
            timeout = 0.2 if trip else 1.0
            for _ in range(2):
                while weather.loss and self._rng.random() < weather.loss:
                    total += timeout
                    timeout *= 2
        return total

    def _later(self, seconds: float, seat: Seat, action: Callable[[], None]) -> None:
        self._push(self.now + seconds, seat.index, action)

    def _dial_ping(self, seat: Seat, effect: effects.DialPing) -> None:
        place = self._places.get(effect.address)
        if place is None:
            return
        taken = self._stream_seconds(seat.index, place, 2)
        left = effect.deadline - self.now * (1.0 + seat.drift)
        if taken is None or taken > left:
            return
        machine = seat.swim

        def answer() -> None:
            other = self.seats[place]
            answers = other.life is Life.RUNNING and other.name == effect.node
            if answers and seat.life is Life.RUNNING and seat.swim is machine:
                self._handle(seat, StreamAnswered(effect.sequence, effect.node))

        self._later(taken, seat, answer)

    def _dial_push_pull(self, seat: Seat, effect: effects.DialPushPull) -> None:
        place = self._places.get(effect.address)
        if place is None or place == seat.index:
            return
        taken = self._stream_seconds(seat.index, place, 3)
        if taken is None or taken > seat.profile.preset.stream_timeout_seconds:
            return
        machine = seat.swim

        def exchange() -> None:
            other = self.seats[place]
            both = seat.life is Life.RUNNING and other.life is Life.RUNNING
            if not both or seat.swim is not machine:
                return
            # Records that neither has changed are the same in both: they are not news to either.
            names = {
                **dict.fromkeys(seat.swim.states.table.changed_names()),
                **dict.fromkeys(other.swim.states.table.changed_names()),
            }
            ours = seat.swim.local_state(names)
            theirs = other.swim.local_state(names)
            if other.swim.refusal(ours) is None:
                self._handle(other, RecordsReceived(ours))
            if seat.swim.refusal(theirs) is None:
                self._handle(seat, RecordsReceived(theirs))

        self._later(taken, seat, exchange)


def _address(index: int) -> Address:
    return Address(f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}", 7946)
