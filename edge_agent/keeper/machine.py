"""What the keeper decides: when a program is asked to end, when it is killed, and what is said of its end.

Rule 1, one record. A record is added to by what happens and taken back by nothing: once it says that a
program timed out, lost its lease or ended, no later event says otherwise. It stays until it is forgotten
on request, so an agent that was killed finds what happened without it.

Rule 2, ending. Every end goes the same way: SIGTERM to the process group, then SIGKILL after the grace. A
second request may shorten the grace and never lengthens it. A grace of 0 is SIGKILL at once.

Rule 3, lease. A renewal moves the moment of a program that runs, and revives none that is being ended:
the controller may have replaced it already. The guard gets the same moment, and acts if the keeper is
killed or held up.

Rule 4, the end. A program with FIFOs has ended once its relays have ended, too: what it wrote last may be on
its way. Relays pass on what is left after exit status 0; after any other end its records count for nothing,
and they are killed.

Invariant. No signal is sent to a process group whose leader was reaped: its number may belong to other
processes by then. So after `Ended` there are effects for relays alone.

Why the keeper, and not the agent: programs outlive an agent that is killed or replaced, and only their
parent sees their exit status.

Example. Timeout 10 s, grace 5 s. At 10 s SIGTERM, and 0.5 s later SIGKILL, since a program that had its time
gets `TIMEOUT_GRACE_SECONDS` at most. A `StopAsked` with a grace of 0.1 s at 10.2 s makes that 10.3 s.

Sources: docs/architecture.md, section 2; leases as in edge_agent/lease.py.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.keeper.record import ProcessRecord

TIMEOUT_GRACE_SECONDS: Final = 0.5
"""A program that outlives its timeout gets no longer than this between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Started:
    """A program runs. `timeout_seconds` and `lease_until` of 0 mean without limit.

    At `lease_until`, on the machine's own clock, it is asked to end, and `lease_grace_seconds` later
    it has to be gone. `relays` names the ports that are FIFOs, each of which has a relay.
    """

    record: ProcessRecord
    timeout_seconds: float = 0.0
    grace_seconds: float = 5.0
    lease_until: float = 0.0
    lease_grace_seconds: float = 0.0
    relays: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _OfAttempt:
    """Something about one attempt, or to do for it."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Ended(_OfAttempt):
    """The leader of a process group has ended; exactly one of `exit_code` and `signal` is set.

    `lease_ended` says that its guard ended it, `left` what of it could not be ended.
    """

    exit_code: int | None
    signal: int | None
    end_time: float
    lease_ended: bool = False
    left: str = ""


@dataclass(frozen=True, slots=True)
class RelayEnded(_OfAttempt):
    """The relay of a FIFO has ended; `problem` says why records may be missing, if they may be."""

    port: str
    problem: str


@dataclass(frozen=True, slots=True)
class StopAsked(_OfAttempt):
    """The program is to end; None means the grace that it was started with."""

    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ForgetAsked(_OfAttempt):
    """The record is needed no more; what still runs of it is killed."""


@dataclass(frozen=True, slots=True)
class LeaseRenewed(_OfAttempt):
    """The program may run until then; without another renewal it is ended then."""

    until: float


@dataclass(frozen=True, slots=True)
class KillRefused(_OfAttempt):
    """A program that was to be killed belongs to another user; `why` says so."""

    why: str
    end_time: float


Event = Started | Ended | RelayEnded | StopAsked | ForgetAsked | LeaseRenewed | KillRefused


@dataclass(frozen=True, slots=True)
class SignalGroup(_OfAttempt):
    """Send a signal to the whole process group."""

    pid: int
    signal: int


@dataclass(frozen=True, slots=True)
class RenewGuard(_OfAttempt):
    """Tell the guard of an attempt at which moment it kills it."""

    until: float


@dataclass(frozen=True, slots=True)
class FinishRelays(_OfAttempt):
    """Tell the relays of an attempt that its program has ended: they pass on what is left, and end."""


@dataclass(frozen=True, slots=True)
class KillRelays(_OfAttempt):
    """End the relays of an attempt at once."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every watcher that a process has ended."""

    record: ProcessRecord


@dataclass(frozen=True, slots=True)
class Release(_OfAttempt):
    """Close the descriptors that are held for an attempt."""


Effect = SignalGroup | RenewGuard | FinishRelays | KillRelays | Announce | Release


class UnknownAttemptError(LookupError):
    """The keeper has no process of that name."""


@dataclass(slots=True)
class _Kept:
    record: ProcessRecord
    grace_seconds: float
    timeout_at: float | None
    lease_at: float | None = None
    lease_grace_seconds: float = 0.0
    leased: bool = False
    kill_at: float | None = None
    forgotten: bool = False
    relays: set[str] = field(default_factory=set[str])
    ended: Ended | None = None


class KeeperMachine:
    """Remembers processes, ends those that are over their time, and forgets on demand.

    States of a process: running → (stopping →) (passing on →) ended. A program with FIFOs has ended
    once its relays have, too: what it wrote last may be on its way. A record only grows.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def records(self) -> Sequence[ProcessRecord]:
        """Everything that has not been forgotten, in the order of starting."""
        return [kept.record for kept in self._kept.values() if not kept.forgotten]

    def record(self, attempt: str) -> ProcessRecord | None:
        """The record of one attempt, or None."""
        kept = self._kept.get(attempt)
        return None if kept is None or kept.forgotten else kept.record

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        """Take one event.

        Raises:
            UnknownAttemptError: The attempt was never started, or is forgotten.
            ValueError: An attempt is started twice, or ends twice.
        """
        match event:
            case Started():
                return self._started(event, now)
            case Ended():
                return self._ended(event)
            case RelayEnded():
                return self._relay_ended(event, now)
            case StopAsked():
                return self._stop(self._get(event.attempt), event.grace_seconds, now)
            case ForgetAsked():
                return self._forget(event.attempt)
            case LeaseRenewed():
                return self._renewed(self._get(event.attempt), event.until)
            case KillRefused():
                return self._kill_refused(event)

    def tick(self, now: float) -> Sequence[Effect]:
        """End what is over its time, and kill what did not end within its grace."""
        effects: list[Effect] = []
        for kept in self._kept.values():
            if not kept.record.running:
                continue
            if kept.timeout_at is not None and now >= kept.timeout_at:
                kept.timeout_at = None
                kept.record = replace(kept.record, timed_out=True)
                effects += self._stop(kept, min(kept.grace_seconds, TIMEOUT_GRACE_SECONDS), now)
            if kept.lease_at is not None and now >= kept.lease_at:
                kept.lease_at = None
                kept.record = replace(kept.record, lease_ended=True)
                effects += self._stop(kept, min(kept.grace_seconds, kept.lease_grace_seconds), now)
            if kept.kill_at is not None and now >= kept.kill_at:
                kept.kill_at = None
                effects.append(_signal(kept, signal.SIGKILL))
        return effects

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [
            at
            for kept in self._kept.values()
            for at in (kept.timeout_at, kept.lease_at, kept.kill_at)
            if at is not None and kept.record.running
        ]
        return min(times, default=None)

    def _get(self, attempt: str) -> _Kept:
        kept = self._kept.get(attempt)
        if kept is None or kept.forgotten:
            raise UnknownAttemptError(f"the keeper has no attempt {attempt!r}: start it first")
        return kept

    def _started(self, event: Started, now: float) -> Sequence[Effect]:
        attempt = event.record.attempt
        if attempt in self._kept:
            raise ValueError(f"attempt {attempt!r} was started already")
        self._kept[attempt] = _Kept(
            record=event.record,
            grace_seconds=event.grace_seconds,
            timeout_at=now + event.timeout_seconds if event.timeout_seconds > 0 else None,
            lease_at=event.lease_until if event.lease_until > 0 else None,
            lease_grace_seconds=event.lease_grace_seconds,
            leased=event.lease_until > 0,
            relays=set(event.relays),
        )
        return ()

    def _renewed(self, kept: _Kept, until: float) -> Sequence[Effect]:
        if not kept.leased or kept.record.lease_ended or not kept.record.running:
            return ()  # what is being ended is not revived
        kept.lease_at = until
        return (RenewGuard(kept.record.attempt, until + kept.lease_grace_seconds),)

    def _kill_refused(self, event: KillRefused) -> Sequence[Effect]:
        kept = self._kept.get(event.attempt)
        if kept is None or not kept.record.running or kept.ended is not None:
            return ()
        kept.record = replace(kept.record, left=event.why)
        if kept.leased and not kept.forgotten:
            return ()  # what may not run twice is not said to have ended while it runs
        ended = Ended(event.attempt, None, None, event.end_time, left=event.why)
        return self._ended(ended)

    def _ended(self, event: Ended) -> Sequence[Effect]:
        kept = self._kept.get(event.attempt)
        if kept is None or not kept.record.running or kept.ended is not None:
            raise ValueError(f"attempt {event.attempt!r} ended, but it did not run")
        kept.ended = event
        kept.kill_at = None
        kept.record = replace(
            kept.record,
            lease_ended=kept.record.lease_ended or event.lease_ended,
            left=event.left,
        )
        if not kept.relays:
            return self._over(kept, event)
        # The records of a program that failed count for nothing, so the last ones are not waited for.
        passes = event.exit_code == 0 and not kept.forgotten
        return ((FinishRelays if passes else KillRelays)(event.attempt),)

    def _relay_ended(self, event: RelayEnded, now: float) -> Sequence[Effect]:
        kept = self._kept.get(event.attempt)
        if kept is None or event.port not in kept.relays:
            raise ValueError(f"attempt {event.attempt!r} has no relay for {event.port!r}")
        kept.relays.remove(event.port)
        if (
            event.problem
            and not kept.record.problem
            and (kept.ended is None or kept.ended.exit_code == 0)
        ):
            kept.record = replace(kept.record, problem=event.problem)
        if kept.ended is None:
            # Without its records there is nothing to go on for.
            return self._stop(kept, None, now) if event.problem else ()
        return () if kept.relays else self._over(kept, kept.ended)

    def _over(self, kept: _Kept, event: Ended) -> Sequence[Effect]:
        kept.record = replace(
            kept.record,
            running=False,
            exit_code=event.exit_code,
            signal=event.signal,
            end_time=event.end_time,
        )
        if kept.forgotten:
            del self._kept[event.attempt]
            return ()
        return (Announce(kept.record),)

    def _stop(self, kept: _Kept, grace_seconds: float | None, now: float) -> Sequence[Effect]:
        if not kept.record.running:
            return ()
        if kept.ended is not None:
            # The number of its group may be that of another by now.
            return (KillRelays(kept.record.attempt),)
        grace = kept.grace_seconds if grace_seconds is None else grace_seconds
        if grace <= 0:
            kept.kill_at = None
            return (_signal(kept, signal.SIGKILL),)
        first = kept.kill_at is None
        # A second request may shorten the grace, never lengthen it.
        kept.kill_at = now + grace if kept.kill_at is None else min(kept.kill_at, now + grace)
        return (_signal(kept, signal.SIGTERM),) if first else ()

    def _forget(self, attempt: str) -> Sequence[Effect]:
        kept = self._get(attempt)
        if not kept.record.running:
            del self._kept[attempt]
            return (Release(attempt),)
        # The record goes when its end is seen, so that its process is still reaped by name.
        kept.forgotten = True
        if kept.ended is not None:
            return (KillRelays(attempt), Release(attempt))
        return (_signal(kept, signal.SIGKILL), Release(attempt))


def _signal(kept: _Kept, number: signal.Signals) -> SignalGroup:
    return SignalGroup(kept.record.attempt, kept.record.pid, int(number))
