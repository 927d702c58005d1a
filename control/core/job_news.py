"""What is told of jobs that find no node, and of streams that stand still.

Both are how something is for a while, and no step of a job. A job is *unplaced* if for `unplaced_seconds`
no known node could take it even if nothing else ran, or if it was the first of the queue and found no room.
That is told once for each reason, and that it is *placed* when it finds a node. Jobs that wait behind the
first one, of which there may be 100,000, wait their turn, and that is no news.
A stream is *still* once no counter of its port has moved for `still_seconds`, while the program of its job
runs and its agent has a session. When it moves again, it *flows*.

Rule: what is told of streams is decided by counters, which may be lost, so it may come late; and nothing
else is decided by it. Time in which the controller stood still does not count. Which ports are still, as it
was told last, is recorded with the attempt, so that a controller that starts again says when they flow.

Example: the camera of a pipeline hangs. Its output, and the inputs of its two consumers, are still after
60 s: one event for each of the three jobs. The camera is plugged in again, and three more say that they flow.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.core import outbox_rows
from control.core.machine_part import MachinePart
from control.core.news import News
from control.core.situation import Situation
from control.core.state import AttemptRecord, JobRecord
from shoal.model import NO_REASON, JobState, Reason, StreamCounters
from shoal.names import AttemptRef, JobRef

_ALWAYS = float("-inf")
_FIRST = "the first of the queue"
_LOOKS_TOGETHER = 100
"""So many jobs are told of in one step; each is a row, and other events wait meanwhile."""


@dataclass(slots=True)
class _Port:
    """The counters of a port, and since when they have not moved, in seconds of `Leases.listened`."""

    counters: StreamCounters
    since: float


class JobNews(MachinePart):
    """Tells the world of jobs that wait for a node, and of streams that are still."""

    def __init__(self, situation: Situation) -> None:
        super().__init__(situation)
        self._news: News[JobRef] = News(situation.config.news_pause)
        # Why jobs are unplaced, and as it was told.
        self._reasons: dict[JobRef, str] = {}
        self._unplaced: dict[JobRef, str] = {}
        self._ports: dict[AttemptRef, dict[str, _Port]] = {}
        self._first: JobRef | None = None

    def deadline(self) -> float | None:
        """When a job is to be looked at."""
        return self._news.deadline()

    def waits(self, job: JobRecord, never: str, *, first: bool) -> None:
        """A plan found no node for a job.

        Args:
            job: Which one.
            never: Why no known node could take it if nothing else ran; empty if one could.
            first: Whether it is known to be the first of the queue.
        """
        reason = never or (_FIRST if first else "")
        if first and self._first != job.ref:
            before, self._first = self._first, job.ref
            if before is not None and self._reasons.get(before) == _FIRST:
                del self._reasons[before]
                self._news.drop(before)
        if not reason:
            self._reasons.pop(job.ref, None)
        elif reason != self._unplaced.get(job.ref):
            self._reasons[job.ref] = reason
            self._news.expect(job.ref, self._situation.now + self._config.unplaced_seconds)
            return
        self._news.drop(job.ref)

    def placed(self, job: JobRecord) -> None:
        """A job found a node; its streams are another matter, which may be told at once."""
        self._reasons.pop(job.ref, None)
        if self._unplaced.pop(job.ref, ""):
            self._tell(job, "placed", NO_REASON)
        self._news.forget(job.ref)

    def runs(self, job: JobRecord, attempt: AttemptRecord) -> None:
        """The program of an attempt began; that nothing passed before says nothing."""
        ports = self._ports.get(attempt.ref)
        if ports is None:
            return  # it has none, or has not said its counters yet
        listened = self._situation.leases.listened(self._situation.now)
        for port in ports.values():
            port.since = listened
        self._news.expect(job.ref, self._situation.now + self._config.still_seconds)

    def progressed(self, job: JobRecord, attempt: AttemptRecord) -> None:
        """The current attempt of a job has said its counters."""
        listened = self._situation.leases.listened(self._situation.now)
        ports = self._ports.setdefault(attempt.ref, {})
        flows = False
        for one in job.streams:
            name = _name(one)
            port = ports.get(name)
            if port is None:
                # What was still before a start of ours has not moved because it is seen again.
                ports[name] = _Port(one, _ALWAYS if name in attempt.still else listened)
            elif _mark(port.counters) != _mark(one):
                ports[name] = _Port(one, listened)
                flows = flows or name in attempt.still
        now = self._situation.now
        self._news.expect(job.ref, now if flows else now + self._config.still_seconds)

    def forget(self, job: JobRecord, attempt: AttemptRecord | None = None) -> None:
        """A job or its attempt has ended, and other events tell of that."""
        self._news.forget(job.ref)
        self._reasons.pop(job.ref, None)
        self._unplaced.pop(job.ref, None)
        if attempt is not None:
            self._ports.pop(attempt.ref, None)

    def look_again(self) -> None:
        """Look at the jobs whose moment has come; the rest of many is due at the next step."""
        for ref in self._news.take(self._situation.now, _LOOKS_TOGETHER):
            job = self._cluster.job(ref)
            if job is not None and job.state is JobState.QUEUED:
                self._look_at_place(job)
            elif job is not None and job.attempt is not None:
                self._look_at_ports(job, job.attempt)

    def _look_at_place(self, job: JobRecord) -> None:
        reason = self._reasons.get(job.ref, "")
        is_news = reason and reason != self._unplaced.get(job.ref)
        if is_news and self._news.may_tell(job.ref, self._situation.now):
            self._unplaced[job.ref] = reason
            self._tell(job, "unplaced", Reason(message=job.waiting_for))

    def _look_at_ports(self, job: JobRecord, attempt: AttemptRecord) -> None:
        now, ports = self._situation.now, self._ports.get(attempt.ref, {})
        if not ports or job.state is not JobState.RUNNING:
            return
        if not self._cluster.nodes[attempt.node].session_id:
            # It says nothing, so it is not known; its node may soon be told of.
            self._news.expect(job.ref, now + self._config.still_seconds)
            return
        moments = {
            name: self._situation.leases.moment(port.since) + self._config.still_seconds
            for name, port in ports.items()
            if not port.counters.ended
        }
        still = tuple(sorted(name for name, at in moments.items() if at <= now))
        if still != attempt.still and self._news.may_tell(job.ref, now):
            attempt.still = still
            self._change.attempt(attempt)
            self._tell(job, "still" if still else "flows", self._why(job, still), still)
        later = [at for at in moments.values() if at > now]
        if later:
            self._news.expect(job.ref, min(later))

    def _tell(
        self, job: JobRecord, what: str, reason: Reason, still: tuple[str, ...] | None = None
    ) -> None:
        self._news.told(job.ref, self._situation.now)
        self._change.outbox(
            outbox_rows.job_state(job, what, reason, self._situation.wall_time, still)
        )

    def _why(self, job: JobRecord, still: tuple[str, ...]) -> Reason:
        """Say for people which ports are still, and which of their neighbours do not run."""
        if not still:
            return NO_REASON
        pipeline = self._situation.pipeline_of(job)
        peers = {
            end.peer: pipeline.jobs[end.peer].state
            for end in pipeline.topology.ends[job.ref.job]
            if end.peer and outbox_rows.port_name(end.lane.port, output=end.lane.output) in still
        }
        said = [
            f"{peer} is {state.name}"
            for peer, state in peers.items()
            if state not in {JobState.RUNNING, JobState.DRAINING}
        ]
        silent = f"no record passed {', '.join(still)} for {self._config.still_seconds:g} s"
        return Reason(message="; ".join((silent, *said)))


def _name(one: StreamCounters) -> str:
    return outbox_rows.port_name(one.port, output=one.output)


def _mark(one: StreamCounters) -> tuple[object, ...]:
    """What changes as records pass."""
    return one.records, one.bytes, one.acknowledged, one.dropped, one.ended
