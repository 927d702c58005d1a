"""The session of an agent with a controller: which controller to dial and to follow, and when to speak.

Both sides number their messages from 1 and acknowledge cumulatively. Nothing is sent twice by the
session itself: a new session begins with a Hello that says everything anew, and what waits for
a confirmation hears of the end of the session (docs/architecture.md §5).

A controller's snapshot ends what it does not name, so only a controller is followed that knows all
that this agent was told: one of the same cluster whose term is not lower than what was followed
before (`control/core/quarantine.py` has the theory, and the same decision on the other side). With any
other one the agent is *quarantined*: it keeps what it has as it is, says that it lives and nothing
else, hears nothing, and confirms nothing. Only a person ends that, by having the node adopted.

A node with an identity belongs to one cluster, that of its certificate. What it hears of a controller by
gossip is a hint: a welcome of another cluster is left at once, nothing of it is kept, and the next
address is dialled.

A controller that speaks no protocol of sessions that this agent does is followed in nothing either
(`shoal.protocol_version`): the agent says so once, keeps all that it has, and asks again from time to time.
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from edge_agent.session import effects, events
from shoal.backoff import Backoff
from shoal.limits import BATCH_ARTIFACTS_MAX, BATCH_BYTES_MAX
from shoal.model import Followed
from shoal.names import AttemptRef
from shoal.protocol_version import (
    SESSION,
    SESSION_SPOKEN,
    LinkEnd,
    NoCommonProtocolError,
    Protocols,
    agreed,
)
from shoal.session.bundles import BundlesWanted
from shoal.session.folder_files import FilesGranted
from shoal.session.messages import (
    Desired,
    FactsWanted,
    Fenced,
    FromAgent,
    FromController,
    Heartbeat,
    Hello,
    Refused,
    Welcome,
)
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.trust import CertificateIssued, Trust
from shoal.session.uploads import UploadsGranted, UploadsWanted

_CONTENT_BYTES: Final = BATCH_BYTES_MAX // BATCH_ARTIFACTS_MAX
"""So many bytes of small artifacts count as much as the name of one."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How an agent keeps its session; times in seconds."""

    flush_messages: int = 64
    flush_seconds: float = 0.001
    """How long a message waits for others to travel with, while one is under way; else it goes at once."""
    acknowledge_seconds: float = 0.25
    """How long the acknowledgement of what was heard waits for something that it can travel with."""
    in_flight_batches: int = 64
    """How many unacknowledged batches there may be; what comes meanwhile travels in the next one."""
    open_seconds: float = 5.0
    """How long dialling and the controller's welcome may take, each."""
    heartbeat_seconds: float = 1.0
    """Until the controller says something else."""
    heartbeat_seconds_min: float = 0.01
    """A controller has the agent speak at most so often: one below is no pause at all."""
    quarantine_seconds: float = 30.0
    """How long to leave a controller alone that must not be followed, if it does not know that."""
    retry_seconds_max: float = 300.0
    """At most so long a controller may have the agent wait before it dials again."""
    other_seconds: float = 5.0
    """After this long in quarantine another controller is tried, if one is known."""
    backoff: Backoff = Backoff(0.05, 2.0)  # noqa: RUF009 - frozen and slotted, as any value
    """Between dials. Its maximum is at most a heartbeat, once a controller has said how long that is."""
    backoff_seconds_max_min: float = 0.2
    """A heartbeat below this shortens the pauses no further."""


class SessionState(enum.StrEnum):
    """Where the session stands."""

    IDLE = "idle"
    """There is no controller to dial, or not yet again."""
    DIALLING = "dialling"
    OPENING = "opening"
    """Hello is sent, and Welcome is awaited."""
    OPEN = "open"
    QUARANTINED = "quarantined"
    """The stream is open, to a controller that must not be followed."""


@dataclass(slots=True)
class SessionMachine:
    """Keeps one session; `chance` draws from [0, 1) for the jitter of its waits."""

    config: SessionConfig
    chance: Callable[[], float]
    state: SessionState = SessionState.IDLE
    followed: Followed | None = None
    """What was followed last; the shell sets it from the journal."""
    cluster: str = ""
    """Id of the only cluster that the node belongs to; empty for a node without an identity."""
    protocols: Protocols = SESSION_SPOKEN
    """What this agent speaks."""
    _addresses: tuple[str, ...] = ()
    _next_address: int = 0
    _failures: int = 0
    _link: int = 0
    _dial_at: float | None = None
    _open_until: float | None = None
    _heartbeat_seconds: float = 0.0
    _spoken_at: float = 0.0
    _sequence: int = 0
    _heard: int = 0
    _acknowledged: int = 0
    _answered_soon: int = 0
    """The last batch that said more than that the agent lives."""
    _queue: OrderedDict[Hashable, FromAgent] = field(
        default_factory=OrderedDict[Hashable, FromAgent]
    )
    """What waits to be sent, by its attempt if it is an observation: of each attempt the newest one waits."""
    _said: int = 0
    """Counts what else was said, as its key."""
    _progress: dict[AttemptRef, Progress] = field(default_factory=dict[AttemptRef, Progress])
    _queued_at: float | None = None
    _owed_at: float | None = None
    """Since when something that was heard is not acknowledged."""
    _in_flight: deque[tuple[int, float, tuple[FromAgent, ...]]] = field(
        default_factory=deque[tuple[int, float, tuple[FromAgent, ...]]]
    )
    _lease_seconds: float = 0.0
    _retry_seconds: float = 0.0
    _leave_at: float | None = None
    _said_quarantine: str = ""
    _snapshot: int | None = None
    _parts: list[Desired] = field(default_factory=list[Desired])
    _knows_all: bool = False
    _heard_at: float | None = None
    """When the last batch was sent that this session's controller has acknowledged."""
    _deliveries: int = 0
    _unrecorded: dict[int, int] = field(default_factory=dict[int, int])

    def handle(self, event: events.SessionEvent, now: float) -> Sequence[effects.SessionEffect]:
        """Take one event and return what is to be done, in order."""
        match event:
            case events.Say():  # the most frequent first
                return self._say(event.message, now)
            case events.Received():
                return self._received(event, now) if event.link == self._link else []
            case events.Recorded():
                return self._recorded(event.delivery, now)
            case events.ControllersKnown(addresses):
                return self._controllers(addresses, now)
            case events.LinkOpened() | events.LinkClosed() if event.link != self._link:
                return []  # from a stream that was hung up
            case events.LinkOpened(hello=hello):
                return self._link_opened(hello, now)
            case events.Moved():
                said = self.state in {SessionState.OPENING, SessionState.OPEN}
                return self._break("the agent introduces itself anew", now) if said else []
            case events.LinkClosed(reason=reason):
                return self._closed(reason, now)
            case _:
                assert_never(event)

    def tick(self, now: float) -> Sequence[effects.SessionEffect]:
        """Dial, give up dialling, flush, or show a sign of life."""
        match self.state:
            case SessionState.OPEN:
                return [*self._flush(now), *self._show_life(now)]
            case SessionState.IDLE:
                return self._dial(now) if _due(self._dial_at, now) else []
            case SessionState.DIALLING | SessionState.OPENING:
                if not _due(self._open_until, now):
                    return []
                what = "a connection" if self.state is SessionState.DIALLING else "a welcome"
                return self._break(f"no {what} within {self.config.open_seconds:g} s", now)
            case SessionState.QUARANTINED:
                if _due(self._leave_at, now):
                    return self._break("this controller is not followed", now)
                return self._show_life(now)
            case _:
                assert_never(self.state)

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        match self.state:
            case SessionState.OPEN:
                heartbeat_at = self._spoken_at + self._heartbeat_seconds
                if self._queued_at is None and self._owed_at is None:
                    return heartbeat_at
                flush_at = self._flush_at()
                return heartbeat_at if flush_at is None else min(heartbeat_at, flush_at)
            case SessionState.IDLE:
                return self._dial_at
            case SessionState.DIALLING | SessionState.OPENING:
                return self._open_until
            case SessionState.QUARANTINED:
                heartbeat_at = self._spoken_at + self._heartbeat_seconds
                return heartbeat_at if self._leave_at is None else min(heartbeat_at, self._leave_at)
            case _:
                assert_never(self.state)

    # ---- the link

    def _controllers(self, addresses: tuple[str, ...], now: float) -> list[effects.SessionEffect]:
        if addresses == self._addresses:
            return []
        self._addresses = addresses
        self._next_address = 0
        if self.state is SessionState.QUARANTINED:
            return [*self._break("other controllers are known now", now), *self._dial(now)]
        if self.state is SessionState.IDLE and addresses:
            # News is reason enough to try at once.
            return self._dial(now)
        return []

    def _dial(self, now: float) -> list[effects.SessionEffect]:
        self._dial_at = None
        if not self._addresses:
            return []
        address = self._addresses[self._next_address % len(self._addresses)]
        self._next_address += 1
        self.state = SessionState.DIALLING
        self._open_until = now + self.config.open_seconds
        self._link += 1
        return [effects.Dial(self._link, address)]

    def _link_opened(self, hello: Hello, now: float) -> list[effects.SessionEffect]:
        if self.state is not SessionState.DIALLING:
            return []
        self.state = SessionState.OPENING
        self._open_until = now + self.config.open_seconds
        self._enqueue(hello)
        return self._write(now)

    def _break(self, reason: str, now: float) -> list[effects.SessionEffect]:
        return [effects.HangUp(reason), *self._closed(reason, now)]

    def _quarantine(
        self, reason: str, welcome: Welcome, retry_seconds: float, now: float
    ) -> list[effects.SessionEffect]:
        """Follow this controller in nothing; it is left, or stays open for what a person decides."""
        self.state = SessionState.QUARANTINED
        self._open_until = self._queued_at = self._owed_at = None
        self._queue.clear()
        self._progress.clear()
        self._retry_seconds = min(max(retry_seconds, 0.0), self.config.retry_seconds_max)
        self._heartbeat_seconds = self._pause(welcome)
        self._spoken_at = now
        if not welcome.quarantine:
            self._leave_at = now  # it does not know, and would wait for us
        elif len(self._addresses) > 1:
            self._leave_at = now + self.config.other_seconds
        self._said_quarantine, said = reason, self._said_quarantine
        return [effects.Quarantined(reason)] if reason != said else []

    def _foreign(self, welcome: Welcome) -> str:
        """Why a controller cannot be that of the node's cluster; empty if it can."""
        if not self.cluster or (welcome.following is None and welcome.quarantine):
            return ""  # one that follows nothing is followed in nothing
        told = "" if welcome.following is None else welcome.following.cluster_id
        if told == self.cluster:
            return ""
        return (
            f"the controller {welcome.controller_id or '?'} says that it is of cluster {told or '?'}, and the "
            f"certificate of this node is of cluster {self.cluster}: join that one with a token of its own"
        )

    def _unknown_protocol(self, welcome: Welcome) -> str:
        """Why this agent and a controller cannot work together; empty if they can."""
        controller = LinkEnd(
            "the controller",
            welcome.protocols,
            "upgrade it before its agents, or put the version before back onto this node",
        )
        agent = LinkEnd(
            "this agent", self.protocols, "upgrade it, its keeper and its jobs go on meanwhile"
        )
        try:
            agreed(SESSION, agent, controller)
        except NoCommonProtocolError as error:
            return str(error)
        return ""

    def _was_left(self) -> bool:
        return self.state is SessionState.IDLE

    def _is_quarantined(self) -> bool:
        return self.state is SessionState.QUARANTINED

    def _backoff(self) -> Backoff:
        """How long to wait between dials: as soon as a controller is back, the lease has to be renewed.

        A lease is six heartbeats long, and only every second heartbeat is acknowledged, so four are left
        at worst as the controller dies. Pauses of two would leave two for its restart, and a program that
        may not run twice would be ended after an outage well below the lease.
        """
        usual = self.config.backoff
        if not self._heartbeat_seconds:
            return usual
        longest = max(self._heartbeat_seconds, self.config.backoff_seconds_max_min)
        return replace(usual, maximum_seconds=min(usual.maximum_seconds, longest))

    def _pause(self, welcome: Welcome) -> float:
        """How long to be silent at most with this controller."""
        asked = welcome.heartbeat_seconds or self.config.heartbeat_seconds
        return max(asked, self.config.heartbeat_seconds_min)

    def _show_life(self, now: float) -> list[effects.SessionEffect]:
        """Say a heartbeat, if it is time; to one that acknowledges nothing, no more."""
        if now < self._spoken_at + self._heartbeat_seconds:
            return []
        if len(self._in_flight) >= 2 * self.config.in_flight_batches:
            return self._break("the controller acknowledges nothing any more", now)
        self._enqueue(Heartbeat())
        return self._write(now)

    def _closed(self, reason: str, now: float) -> list[effects.SessionEffect]:
        if self.state is SessionState.IDLE:
            return []
        was_open = self.state is SessionState.OPEN
        if self.state is SessionState.QUARANTINED:
            self._failures = 0
        self.state = SessionState.IDLE
        if was_open:
            self._failures = 0
            self._next_address -= 1  # the one that served is asked first
        self._failures += 1
        delay = self._backoff().delay_seconds(self._failures, self.chance())
        # Agents that one reason sent away do not come back at one moment.
        self._dial_at = now + delay + self._retry_seconds * (1.0 + 0.2 * self.chance())
        self._retry_seconds = 0.0
        self._leave_at = None
        self._open_until = self._queued_at = self._owed_at = None
        self._sequence = self._heard = self._acknowledged = self._answered_soon = 0
        self._queue.clear()
        self._progress.clear()
        self._in_flight.clear()
        self._unrecorded.clear()
        self._parts = []
        self._snapshot = None
        self._knows_all = False
        self._heard_at = None
        return [effects.Closed(reason)] if was_open else []

    # ---- hearing

    def _received(self, batch: events.Received, now: float) -> list[effects.SessionEffect]:
        if self.state is SessionState.QUARANTINED:
            return self._hear_in_quarantine(batch)
        if self.state is not SessionState.OPEN and self.state is not SessionState.OPENING:
            return []
        if batch.sequence != self._heard + 1:
            return self._break(f"message {batch.sequence} came instead of {self._heard + 1}", now)
        if not self._acknowledged <= batch.acknowledged <= self._sequence:
            return self._break(
                f"{batch.acknowledged} was acknowledged, but {self._acknowledged} was before and "
                f"{self._sequence} is the last that was sent",
                now,
            )
        self._heard = batch.sequence
        self._acknowledged = batch.acknowledged
        out: list[effects.SessionEffect] = []
        for message in batch.messages:
            out += self._take(message, now)
            if self._was_left():
                return out
            if self._is_quarantined():
                return [*out, *self._hear_in_quarantine(batch)]
        confirmed: list[FromAgent] = []
        heard_at: float | None = None
        while self._in_flight and self._in_flight[0][0] <= batch.acknowledged:
            _, heard_at, messages = self._in_flight.popleft()
            confirmed += messages
        if heard_at is not None:
            self._heard_at = heard_at
            out += self._renewed()
        if confirmed:
            out.append(effects.Confirmed(tuple(confirmed)))
        if self.state is SessionState.OPENING:
            return self._break("the controller spoke before its welcome", now)
        if any(not isinstance(message, Welcome) for message in batch.messages):
            self._owed_at = now if self._owed_at is None else self._owed_at
        out += self._flush(now)
        return out

    def _renewed(self) -> list[effects.SessionEffect]:
        """Renew the lease for the last batch that was answered.

        It counts from when that was sent: the controller counts from when it arrived.
        """
        if self._heard_at is None or not self._knows_all:
            return []
        return [effects.LeaseRenewed(self._heard_at + self._lease_seconds, self._lease_seconds)]

    def _hear_in_quarantine(self, batch: events.Received) -> list[effects.SessionEffect]:
        """Take note of what has arrived there; nothing that is said counts, and nothing is confirmed."""
        self._heard = batch.sequence
        while self._in_flight and self._in_flight[0][0] <= batch.acknowledged:
            self._in_flight.popleft()
        return []

    def _take(self, message: FromController, now: float) -> list[effects.SessionEffect]:
        match message:
            case Welcome():
                if self.state is not SessionState.OPENING:
                    return []
                if foreign := self._foreign(message):
                    return self._break(foreign, now)
                if message.quarantine:
                    return self._quarantine(message.quarantine, message, message.retry_seconds, now)
                against = self._unknown_protocol(message) or _against(self.followed, message)
                if against:
                    return self._quarantine(against, message, self.config.quarantine_seconds, now)
                follow = self._follow(_further(self.followed, message.following))
                self._said_quarantine = ""
                self.state = SessionState.OPEN
                self._lease_seconds = message.lease_seconds
                self._open_until = None
                self._heartbeat_seconds = self._pause(message)
                self._spoken_at = now
                return [*follow, effects.Opened(message)]
            case Desired() if message.part or message.more:
                whole = self._assemble(message)
                return [] if whole is None else self._take(whole, now)
            case (
                Desired()
                | UploadsGranted()
                | FilesGranted()
                | Refused()
                | Fenced()
                | Trust()
                | CertificateIssued()
                | FactsWanted()
                | BundlesWanted()
            ):
                self._deliveries += 1
                follow = []
                if isinstance(message, Desired):
                    if self.followed is not None and message.commit > self.followed.commit:
                        follow = self._follow(replace(self.followed, commit=message.commit))
                    self._unrecorded[self._deliveries] = self._heard
                    if message.snapshot and self._snapshot is None:
                        self._snapshot = self._deliveries
                return [*follow, effects.Deliver(message, self._deliveries)]
            case _:
                assert_never(message)

    def _follow(self, followed: Followed | None) -> list[effects.SessionEffect]:
        """Remember which controller this agent follows; a controller that does not say is not remembered."""
        if followed is None:
            return []
        self.followed = followed
        return [effects.Follow(followed)]

    def _assemble(self, part: Desired) -> Desired | None:
        """Put a long list together; one of which a part is missing is dropped as a whole.

        Half of a snapshot would end every attempt that the other half names.
        """
        if part.part == 0:
            self._parts = []
        elif part.part != len(self._parts):
            self._parts = []
            return None
        self._parts.append(part)
        if part.more:
            return None
        parts, self._parts = self._parts, []
        return replace(
            part,
            assignments=tuple(one for each in parts for one in each.assignments),
            removed=tuple(one for each in parts for one in each.removed),
            lanes=tuple(one for each in parts for one in each.lanes),
            part=0,
            more=False,
        )

    # ---- speaking

    def _recorded(self, delivery: int, now: float) -> list[effects.SessionEffect]:
        if self._unrecorded.pop(delivery, None) is None:
            return []  # it came in an earlier session
        if self._owed_at is None:
            self._owed_at = now
        if delivery != self._snapshot:
            return self._flush(now)
        self._knows_all = True
        # Said at once: the lease counts from the last message that is answered.
        return [*self._renewed(), *self._write(now)]

    def _say(self, message: FromAgent, now: float) -> list[effects.SessionEffect]:
        if self.state is not SessionState.OPEN and self.state is not SessionState.OPENING:
            return []  # the next Hello says it, or its source says it again
        if isinstance(message, Progress):
            # Only the latest counters of an attempt are news.
            self._progress[message.ref] = message
        else:
            self._enqueue(message)
        if self._queued_at is None:
            self._queued_at = now
        return self._flush(now)

    def _enqueue(self, message: FromAgent) -> None:
        """Let a message be sent after those that wait.

        An observation takes the place of an older one of its attempt: it says all that the older one did, and
        the controller takes the last of several steps. It goes to the end, behind what the attempt has printed.
        """
        if isinstance(message, Observation):
            self._queue.pop(message.ref, None)
            self._queue[message.ref] = message
        else:
            self._said += 1
            self._queue[self._said] = message

    def _flush(self, now: float) -> list[effects.SessionEffect]:
        """Write what waits, if it is enough or has waited long enough."""
        if self.state is not SessionState.OPEN:
            return []
        out: list[effects.SessionEffect] = []
        while len(self._queue) >= self.config.flush_messages and self._has_room():
            out += self._write(now)
        at = self._flush_at()
        if at is not None and at <= now:
            out += self._write(now)
        return out

    def _write(self, now: float) -> list[effects.SessionEffect]:
        room = self.config.flush_messages
        messages: list[FromAgent] = []
        artifacts = 0
        while self._queue and len(messages) < room:
            key, message = self._queue.popitem(last=False)
            artifacts += _artifacts(message)
            if messages and artifacts > BATCH_ARTIFACTS_MAX:
                self._queue[key] = message
                self._queue.move_to_end(key, last=False)
                break
            messages.append(message)
        while self._progress and len(messages) < room:
            messages.append(self._progress.pop(next(iter(self._progress))))
        self._sequence += 1
        self._spoken_at = now
        self._queued_at = now if self._queue or self._progress else None
        self._owed_at = None
        batch = tuple(messages)
        if len(batch) > 1 or (batch and not isinstance(batch[0], Heartbeat)):
            self._answered_soon = self._sequence
        self._in_flight.append((self._sequence, now, batch))
        recorded = min(self._unrecorded.values()) - 1 if self._unrecorded else self._heard
        return [effects.Write(self._sequence, recorded, batch)]

    def _flush_at(self) -> float | None:
        if len(self._in_flight) >= self.config.in_flight_batches:
            return None
        queued, owed = self._queued_at, self._owed_at
        if queued is not None and self._answered_soon > self._acknowledged:
            queued += self.config.flush_seconds
        if owed is None:
            return queued
        owed += self.config.acknowledge_seconds
        return owed if queued is None else min(queued, owed)

    def _has_room(self) -> bool:
        return len(self._in_flight) < self.config.in_flight_batches


def _due(at: float | None, now: float) -> bool:
    return at is not None and at <= now


def _further(followed: Followed | None, told: Followed | None) -> Followed | None:
    """What is followed from a welcome on: within one start, the commits that are known stay known."""
    if followed is None or told is None:
        return told
    same = replace(followed, commit=0) == told
    return followed if same else told


def _against(followed: Followed | None, welcome: Welcome) -> str:
    """Why a controller may not be followed after what was followed before; empty if it may.

    A controller of before this rule does not know what it is, and one that does compares for itself
    (`control/core/quarantine.py`): what is refused here is one that did not, or that is not what it was.
    """
    if followed is None or welcome.adopted:
        return ""
    told = welcome.following
    here = (
        f"this node follows cluster {followed.cluster_id}, start {followed.term} of its controller"
    )
    if told is None:
        return (
            f"the controller does not say which cluster it is of, and {here}: is it an old version?"
        )
    if told.cluster_id != followed.cluster_id:
        return f"the controller is of cluster {told.cluster_id}, and {here}"
    if told.term < followed.term:
        return (
            f"the controller is at start {told.term}, and {here}: it has an older copy of its store"
        )
    if told.term == followed.term and told.start_id != followed.start_id:
        return (
            f"the controller has another start {told.term} than was followed, and {here}: "
            "it has an older copy of its store"
        )
    return ""


def _artifacts(message: FromAgent) -> int:
    """How many artifacts a message lists, or takes the room of."""
    match message:
        case UploadsWanted():
            contents = sum(len(one.data) for one in message.contents)
            return len(message.artifacts) + contents // _CONTENT_BYTES
        case Observation():
            return len(message.artifacts)
        case _:
            return 0
