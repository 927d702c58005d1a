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

import heapq
import itertools
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.keeper import effects, events
from edge_agent.keeper.record import ProcessRecord

TIMEOUT_GRACE_SECONDS: Final = 0.5
"""A program that outlives its timeout gets no longer than this between SIGTERM and SIGKILL."""
_MOMENTS_MIN: Final = 64
"""So many moments that have passed by are never too many."""


class UnknownAttemptError(LookupError):
    """The keeper has no process of that name."""


@dataclass(slots=True, eq=False)
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
    ended: events.Ended | None = None


class KeeperMachine:
    """Remembers processes, ends those that are over their time, and forgets on demand.

    States of a process: running → (stopping →) (passing on →) ended. A program with FIFOs has ended
    once its relays have, too: what it wrote last may be on its way. A record only grows.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._moments: list[tuple[float, int, _Kept]] = []
        """A heap of when something is due; the numbers put those of one moment in order."""
        self._order = itertools.count()

    def records(self) -> Sequence[ProcessRecord]:
        """Everything that has not been forgotten, in the order of starting."""
        return [kept.record for kept in self._kept.values() if not kept.forgotten]

    def record(self, attempt: str) -> ProcessRecord | None:
        """The record of one attempt, or None."""
        kept = self._kept.get(attempt)
        return None if kept is None or kept.forgotten else kept.record

    def handle(self, event: events.KeeperEvent, now: float) -> Sequence[effects.KeeperEffect]:
        """Take one event.

        Raises:
            UnknownAttemptError: The attempt was never started, or is forgotten.
            ValueError: An attempt is started twice, or ends twice.
        """
        match event:
            case events.Started():
                return self._started(event, now)
            case events.Ended():
                return self._ended(event)
            case events.RelayEnded():
                return self._relay_ended(event, now)
            case events.StopAsked():
                return self._stop(self._get(event.attempt), event.grace_seconds, now)
            case events.ForgetAsked():
                return self._forget(event.attempt)
            case events.LeaseRenewed():
                return self._renewed(self._get(event.attempt), event.until)
            case events.KillRefused():
                return self._kill_refused(event)

    def tick(self, now: float) -> Sequence[effects.KeeperEffect]:
        """End what is over its time, and kill what did not end within its grace."""
        due = self.deadline()
        if due is None or now < due:
            return []
        wanted: list[effects.KeeperEffect] = []
        for kept in self._kept.values():
            if not kept.record.running:
                continue
            if kept.timeout_at is not None and now >= kept.timeout_at:
                kept.timeout_at = None
                kept.record = replace(kept.record, timed_out=True)
                wanted += self._stop(kept, min(kept.grace_seconds, TIMEOUT_GRACE_SECONDS), now)
            if kept.lease_at is not None and now >= kept.lease_at:
                kept.lease_at = None
                kept.record = replace(kept.record, lease_ended=True)
                wanted += self._stop(kept, min(kept.grace_seconds, kept.lease_grace_seconds), now)
            if kept.kill_at is not None and now >= kept.kill_at:
                kept.kill_at = None
                wanted.append(_signal(kept, signal.SIGKILL))
        return wanted

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        while self._moments:
            moment, _, kept = self._moments[0]
            if kept.record.running and moment in {kept.timeout_at, kept.lease_at, kept.kill_at}:
                return moment
            heapq.heappop(self._moments)
        return None

    def _get(self, attempt: str) -> _Kept:
        kept = self._kept.get(attempt)
        if kept is None or kept.forgotten:
            raise UnknownAttemptError(f"the keeper has no attempt {attempt!r}: start it first")
        return kept

    def _started(self, event: events.Started, now: float) -> Sequence[effects.KeeperEffect]:
        attempt = event.record.attempt
        if attempt in self._kept:
            raise ValueError(f"attempt {attempt!r} was started already")
        leased = event.lease_until > 0
        kept = self._kept[attempt] = _Kept(
            record=event.record,
            grace_seconds=event.grace_seconds,
            timeout_at=now + event.timeout_seconds if event.timeout_seconds > 0 else None,
            lease_at=event.lease_until if leased else None,
            lease_grace_seconds=event.lease_grace_seconds,
            leased=leased,
            relays=set(event.relays),
        )
        self._expect(kept, kept.timeout_at)
        self._expect(kept, kept.lease_at)
        return ()

    def _expect(self, kept: _Kept, moment: float | None) -> None:
        """Have `tick` look at a program at a moment, unless that is not one of its moments any more by then."""
        if moment is None:
            return
        if len(self._moments) > _MOMENTS_MIN + 2 * len(self._kept):
            # What ended long before its timeout is still among them.
            kepts = list(self._kept.values())
            self._moments = [
                (at, next(self._order), one)
                for one in kepts
                for at in (one.timeout_at, one.lease_at, one.kill_at)
                if at is not None and one.record.running
            ]
            heapq.heapify(self._moments)
        heapq.heappush(self._moments, (moment, next(self._order), kept))

    def _renewed(self, kept: _Kept, until: float) -> Sequence[effects.KeeperEffect]:
        if not kept.leased or kept.record.lease_ended or not kept.record.running:
            return ()  # what is being ended is not revived
        kept.lease_at = until
        self._expect(kept, until)
        return (effects.RenewGuard(kept.record.attempt, until + kept.lease_grace_seconds),)

    def _kill_refused(self, event: events.KillRefused) -> Sequence[effects.KeeperEffect]:
        kept = self._kept.get(event.attempt)
        if kept is None or not kept.record.running or kept.ended is not None:
            return ()
        kept.record = replace(kept.record, left=event.why)
        if kept.leased and not kept.forgotten:
            return ()  # what may not run twice is not said to have ended while it runs
        ended = events.Ended(event.attempt, None, None, event.end_time, left=event.why)
        return self._ended(ended)

    def _ended(self, event: events.Ended) -> Sequence[effects.KeeperEffect]:
        kept = self._kept.get(event.attempt)
        if kept is None or not kept.record.running or kept.ended is not None:
            raise ValueError(f"attempt {event.attempt!r} ended, but it did not run")
        kept.ended = event
        kept.kill_at = None
        if not kept.relays:
            return self._over(kept, event)
        kept.record = replace(
            kept.record,
            lease_ended=kept.record.lease_ended or event.lease_ended,
            left=event.left,
        )
        # The records of a program that failed count for nothing, so the last ones are not waited for.
        passes = event.exit_code == 0 and not kept.forgotten
        return ((effects.FinishRelays if passes else effects.KillRelays)(event.attempt),)

    def _relay_ended(self, event: events.RelayEnded, now: float) -> Sequence[effects.KeeperEffect]:
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

    def _over(self, kept: _Kept, event: events.Ended) -> Sequence[effects.KeeperEffect]:
        known = kept.record
        # All of it is said: a copy that changes twelve fields costs twice as much.
        kept.record = ProcessRecord(
            attempt=known.attempt,
            pid=known.pid,
            helper=known.helper,
            start_time=known.start_time,
            timed_out=known.timed_out,
            problem=known.problem,
            made=known.made,
            running=False,
            exit_code=event.exit_code,
            signal=event.signal,
            end_time=event.end_time,
            lease_ended=known.lease_ended or event.lease_ended,
            left=event.left,
            out_of_memory=event.out_of_memory,
            not_begun=event.not_begun,
            memory_kills=event.counts.memory_kills,
            refused_processes=event.counts.refused_processes,
            bounded_memory=event.counts.bounded_memory,
        )
        if kept.forgotten:
            del self._kept[event.attempt]
            return ()
        return (effects.Announce(kept.record),)

    def _stop(
        self, kept: _Kept, grace_seconds: float | None, now: float
    ) -> Sequence[effects.KeeperEffect]:
        if not kept.record.running:
            return ()
        if kept.ended is not None:
            # The number of its group may be that of another by now.
            return (effects.KillRelays(kept.record.attempt),)
        grace = kept.grace_seconds if grace_seconds is None else grace_seconds
        if grace <= 0:
            kept.kill_at = None
            return (_signal(kept, signal.SIGKILL),)
        first = kept.kill_at is None
        # A second request may shorten the grace, never lengthen it.
        kept.kill_at = now + grace if kept.kill_at is None else min(kept.kill_at, now + grace)
        self._expect(kept, kept.kill_at)
        return (_signal(kept, signal.SIGTERM),) if first else ()

    def _forget(self, attempt: str) -> Sequence[effects.KeeperEffect]:
        kept = self._get(attempt)
        if not kept.record.running:
            del self._kept[attempt]
            return (effects.Release(attempt),)
        # The record goes when its end is seen, so that its process is still reaped by name.
        kept.forgotten = True
        if kept.ended is not None:
            return (effects.KillRelays(attempt), effects.Release(attempt))
        return (_signal(kept, signal.SIGKILL), effects.Release(attempt))


def _signal(kept: _Kept, number: signal.Signals) -> effects.SignalGroup:
    return effects.SignalGroup(kept.record.attempt, kept.record.pid, int(number))
