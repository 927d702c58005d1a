"""Which events leave when: a pure machine over the rows of an outbox and one link to a broker.

A row is let go of only after the broker has acknowledged it, so each event arrives at least once.
Rows of one subject leave one after the other, so a subject's events arrive in order. What was sent
and not acknowledged is sent again, with the same id, on the next link.

No row holds up those of other subjects, whatever the broker says to it:
- what can never be sent (`PublishRefused`, final: too large even when cut) is *set aside*: durably let go of,
  with its reason;
- what the broker will not take now (`PublishRefused`: access, quota), or its owner holds back, lets its subject
  *rest*: its rows are
  forgotten, and read and tried again from that one on, less and less often, for as long as it takes.
  Others are read on meanwhile, so a thousand refused rows fill no window;
- a link that breaks while several rows are on their way says nothing about any of them, so these leave
  one by one on the next (*careful*). One that breaks while a row is on its way alone lets the subject
  of that row rest, and from the second on it is sent shorter, because that is how a broker that knows
  no refusal (before MQTT 5), or says it in a way that is not read, speaks of size; after eight such
  in a row the row is set aside. One that the broker ends with the words that access is denied, as AWS IoT Core does, is
  a refusal for now, however often it comes.
A newer state of a subject takes the place of one that waits in the store. One that is held here is sent all
the same, before the newer one; one that rests is found to be gone when it is read again.

Example: a row of 30 kB, a broker that hangs up on 20 kB, 99 small rows beside it: one broken link with
all of them, 99 rows that leave one by one, and seven more broken links within eight minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from services.events.entry import OutboxEntry
from services.events.outbox import effects, events
from shoal.backoff import Backoff

LOSSES_MAX: Final = 8
"""A row is set aside when so many links in a row broke while it was on its way alone."""
RESTS_MAX: Final = 10_000
"""No further rows are read while so many subjects rest."""
_ROUGHLY_FROM_SECONDS: Final = 8.0
_ROUGHLY_SECONDS: Final = 10.0

Subject = tuple[str, str]
"""Namespace and subject."""


class Link(Enum):
    """State of the connection to the broker."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"


class _Stage(Enum):
    WAITING = "waiting"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True)
class _Held:
    entry: OutboxEntry
    stage: _Stage = _Stage.WAITING

    @property
    def subject(self) -> Subject:
        return self.entry.namespace, self.entry.subject


@dataclass(slots=True)
class _Rest:
    """A subject that is left alone from one of its rows on; `until` is None while that is tried."""

    sequence: int
    reason: str = ""
    until: float | None = None
    tries: int = 0
    losses: int = 0


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """`window`: how many rows may be on their way; times in seconds."""

    window: int = 100
    store_retry_seconds: float = 1.0
    backoff: Backoff = Backoff(0.2, 10.0, jitter=0.5)  # noqa: RUF009 - frozen and slotted
    rest: Backoff = Backoff(1.0, 600.0, jitter=0.2)  # noqa: RUF009 - frozen and slotted


class OutboxMachine:
    """The machine; starts with a link that is down and due to be dialled.

    Args:
        config: window and times.
        now: seconds on the clock of `handle` and `tick`.
    """

    def __init__(self, config: OutboxConfig, now: float) -> None:
        self._config = config
        self._held: dict[int, _Held] = {}
        # Of each subject the rows that are held and have not arrived, and the subjects of which one may be sent by now:
        # so a step costs what changed, and not what is held.
        self._lines: dict[Subject, dict[int, _Held]] = {}
        self._stirred: dict[Subject, None] = {}
        # What arrived, or never will, and is not let go of yet; with the reason.
        self._gone: dict[int, str] = {}
        self._through = 0
        self._read_through = 0
        self._reading_after = 0
        self._rests: dict[Subject, _Rest] = {}
        self._careful: set[int] = set()
        self._more = True
        self._reading = False
        self._marking: tuple[int, ...] = ()
        # State of the connection.
        self.link = Link.DOWN
        self._connect_at = now
        self._failures = 0
        self._up_at = now
        self._store_retry_at: float | None = None
        self.reason = ""

    @property
    def held(self) -> int:
        """How many rows are in memory."""
        return len(self._held)

    def resting(self, namespace: str, subject: str) -> str:
        """Why the rows of a subject are not sent now; empty if nothing is known against them."""
        rest = self._rests.get((namespace, subject))
        return "" if rest is None else rest.reason

    @property
    def rests(self) -> int:
        """How many subjects are left alone for a while."""
        return len(self._rests)

    def handle(self, event: events.OutboxEvent, now: float) -> Sequence[effects.OutboxEffect]:
        """Take one event and return what is to be done about it, in order."""
        match event:
            case events.Grown():
                self._more = True
            case events.RowsRead():
                self._take(event)
            case events.LinkUp():
                self.link = Link.UP
                self._up_at = now
                self.reason = ""
            case events.LinkLost():
                self._lose(event, now)
            case events.PublishRefused():
                self._refuse(event, now)
            case events.PublishAcknowledged(sequence):
                self._failures = 0
                # A late one of an earlier link, for a row that is gone, is as good as none.
                if (held := self._held.get(sequence)) is not None:
                    self._let_go(held)
            case events.RestsOver():
                for rest in self._rests.values():
                    if rest.until is not None:
                        rest.until = now
                self._wake(now)
            case events.RowsMarked():
                for sequence in self._marking:
                    self._held.pop(sequence, None)
                    self._gone.pop(sequence, None)
                self._marking = ()
            case events.StoreFailed(reading):
                if reading:
                    self._reading = False
                    self._more = True
                else:
                    self._marking = ()
                self._store_retry_at = now + self._config.store_retry_seconds
            case _:
                assert_never(event)
        return self._next()

    def tick(self, now: float) -> Sequence[effects.OutboxEffect]:
        """Dial, or turn to the store again, if that fell due."""
        out: list[effects.OutboxEffect] = []
        if self.link is Link.DOWN and self._connect_at <= now:
            self.link = Link.CONNECTING
            out.append(effects.Connect())
        self._wake(now)
        if self._store_retry_at is not None and self._store_retry_at <= now:
            self._store_retry_at = None
        out.extend(self._next())
        return out

    def deadline(self) -> float | None:
        """Return when `tick` is next wanted."""
        times = [self._connect_at] if self.link is Link.DOWN else []
        if self.link is Link.UP:
            times.extend(rest.until for rest in self._rests.values() if rest.until is not None)
        if self._store_retry_at is not None:
            times.append(self._store_retry_at)
        return min(times, default=None)

    def _take(self, event: events.RowsRead) -> None:
        self._reading = False
        self._more = self._more or event.more
        first = self._reading_after
        if self._through < first:
            # Meanwhile something before it was to be read again, and these come behind that.
            self._more = True
            return
        self._through = max(self._through, event.through)
        self._read_through = max(self._read_through, self._through)
        for entry in event.entries:
            if entry.sequence in self._held:
                continue
            rest = self._rests.get((entry.namespace, entry.subject))
            # Of a subject that rests only the row that is tried is held.
            if rest is None or (rest.until is None and rest.sequence == entry.sequence):
                self._hold(_Held(entry))
        gone = [
            subject
            for subject, rest in self._rests.items()
            if rest.until is None
            and first < rest.sequence <= event.through
            and rest.sequence not in self._held
        ]
        for subject in gone:
            # A newer state has its place, which was passed over.
            self._read_from(self._rests.pop(subject).sequence)

    def _hold(self, held: _Held) -> None:
        self._held[held.entry.sequence] = held
        self._lines.setdefault(held.subject, {})[held.entry.sequence] = held
        self._stirred[held.subject] = None

    def _leave_line(self, held: _Held) -> None:
        """Let the row behind this one be the next of its subject."""
        line = self._lines[held.subject]
        del line[held.entry.sequence]
        if line:
            self._stirred[held.subject] = None
        else:
            del self._lines[held.subject]

    def _let_go(self, held: _Held, aside: str = "") -> None:
        """Let a row be marked next, and go on with its subject."""
        if held.stage is _Stage.ACKNOWLEDGED:
            return
        held.stage = _Stage.ACKNOWLEDGED
        sequence = held.entry.sequence
        self._gone[sequence] = aside
        self._leave_line(held)
        self._careful.discard(sequence)
        rest = self._rests.get(held.subject)
        if rest is not None and rest.sequence == sequence:
            del self._rests[held.subject]
            self._read_from(sequence)  # what comes behind it was passed over

    def _read_from(self, after: int) -> None:
        self._through = min(self._through, after)
        self._more = True

    def _refuse(self, event: events.PublishRefused, now: float) -> None:
        held = self._held.get(event.sequence)
        if held is None or held.stage is _Stage.ACKNOWLEDGED:
            return
        if event.final:
            self._let_go(held, event.reason)
            return
        self._let_rest(held, event.reason, event.chance, now)

    def _let_rest(self, held: _Held, reason: str, chance: float, now: float) -> _Rest:
        """Leave a subject alone for a while, from this row on."""
        sequence, subject = held.entry.sequence, held.subject
        rest = self._rests.get(subject)
        if rest is None or rest.sequence != sequence:
            rest = self._rests[subject] = _Rest(sequence)
        rest.reason = reason
        rest.tries += 1
        pause = self._config.rest.delay_seconds(rest.tries, chance)
        rest.until = now + pause
        if pause >= _ROUGHLY_FROM_SECONDS:
            # Together with others: each time the outbox is read again from the first of them on.
            rest.until += _ROUGHLY_SECONDS - rest.until % _ROUGHLY_SECONDS
        self._careful.discard(sequence)
        for number in self._lines.pop(subject, {}):
            del self._held[number]
        return rest

    def _wake(self, now: float) -> None:
        """Try again what has rested long enough."""
        if self.link is not Link.UP:
            return
        due = [
            rest for rest in self._rests.values() if rest.until is not None and rest.until <= now
        ]
        for rest in due:
            rest.until = None
        if due:
            self._read_from(min(rest.sequence for rest in due) - 1)

    def _lose(self, event: events.LinkLost, now: float) -> None:
        reason, chance = event.reason, event.chance
        stood = self.link is Link.UP and now - self._up_at >= self._config.backoff.maximum_seconds
        self._failures = 1 if stood else self._failures + 1
        self.link = Link.DOWN
        self._connect_at = now + self._config.backoff.delay_seconds(self._failures, chance)
        self.reason = reason
        under_way = [held for held in self._held.values() if held.stage is _Stage.SENT]
        for held in under_way:
            held.stage = _Stage.WAITING
            self._stirred[held.subject] = None
        if len(under_way) > 1:
            self._careful.update(held.entry.sequence for held in under_way)
        elif under_way:
            [held] = under_way
            rest = self._let_rest(held, f"the link broke as it was sent: {reason}", chance, now)
            rest.losses += not event.denied
            if rest.losses >= LOSSES_MAX:
                why = f"{rest.losses} links broke as it was sent, the last: {reason}"
                self._hold(held)
                self._let_go(held, why)

    def _next(self) -> list[effects.OutboxEffect]:
        """Return what can be done now: let go, send, read; in this order."""
        out: list[effects.OutboxEffect] = []
        store_rests = self._store_retry_at is not None
        # What was read before is read again: a row must not be read as it is marked, and come back.
        again = self._through < self._read_through
        if not self._marking and not store_rests and not (again and self._reading):
            self._marking = tuple(self._gone)
            if self._gone:
                aside = {sequence: why for sequence, why in self._gone.items() if why}
                out.append(effects.MarkRows(self._marking, aside))
        if self.link is not Link.UP:
            return out
        out.extend(self._publish())
        room = self._config.window - len(self._held) if len(self._rests) < RESTS_MAX else 0
        waits = store_rests or (again and self._marking)
        if self._more and not self._reading and not waits and room > 0:
            self._reading, self._reading_after = True, self._through
            self._more = False  # whatever is added from now on says so by `Grown`
            out.append(effects.ReadRows(self._through, room))
        return out

    def _publish(self) -> list[effects.OutboxEffect]:
        """Send what may be sent: in order for each subject, and one row at a time while careful."""
        if self._careful:
            if any(held.stage is _Stage.SENT for held in self._held.values()):
                return []
            self._stirred.update(dict.fromkeys(self._lines))
        found: list[_Held] = []
        for subject in self._stirred:
            if line := self._lines.get(subject):
                first = line[min(line)]
                if first.stage is _Stage.WAITING:
                    found.append(first)
        found.sort(key=lambda held: held.entry.sequence)
        if self._careful:
            del found[1:]
        else:
            self._stirred.clear()
        for held in found:
            held.stage = _Stage.SENT
        return [effects.Publish(held.entry, self._losses(held.subject)) for held in found]

    def _losses(self, subject: Subject) -> int:
        rest = self._rests.get(subject)
        return 0 if rest is None else rest.losses
