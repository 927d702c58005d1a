"""What happens to every attempt on this node, from its assignment to its end: decided, not done.

The machine takes what the controller wants, what the keeper, the stream worker and the store say,
and returns what is to be done. An outcome carries the turn of the effect that it answers, so that
one which was overtaken is told from one that counts. docs/architecture.md §5 has the lifecycle.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from edge_agent.attempts import events
from edge_agent.attempts.effects import (
    AttachStreams,
    AttemptsEffect,
    CancelWork,
    CollectArtifacts,
    Conclude,
    DesiredRecorded,
    DismissKeeper,
    DismissStreamWorker,
    Forget,
    NoteStreamWorker,
    Prepare,
    PrepareBundle,
    PrepareEnvironment,
    PrepareFiles,
    Report,
    StartProgram,
    StopProgram,
    UpdateLanes,
    Upload,
    WantUploads,
    WriteJournal,
)
from edge_agent.attempts.failure import failure
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus, Verdict
from edge_agent.attempts.phase import (
    ALIVE,
    ARCHIVING,
    FAILS_FOR_ITS_DISK,
    MOVES,
    PREPARING,
    STATE_OF,
    InvalidMoveError,
    Phase,
)
from edge_agent.attempts.unsaid import Unsaid
from services.archive.artifact_key import LOG_PATHS
from shoal.limits import HELLO_ARTIFACTS_MAX
from shoal.model import NO_REASON, Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef, JobRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.attempt_lanes import AttemptLanes, merged
from shoal.session.messages import Desired, Fenced
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.session.stage import AttemptStage
from shoal.session.uploads import ArtifactParts, UploadGrant, UploadsGranted
from shoal.spec import Placement

_ARCHIVED = Verdict(JobState.SUCCEEDED, NO_REASON)


_STOPPED = Verdict(
    JobState.CANCELLED, Reason(ReasonCode.CANCELLED, 0, "stopped, as the controller asked")
)


def _lost(words: str) -> Verdict:
    return Verdict(JobState.LOST, Reason(ReasonCode.LOST, 0, words))


_WORKER_LOST = _lost("the stream worker of this node died with the attempt's records")
_RESULTS_LOST = _lost("the node went down before it had stored the results, and lost some")
_PROGRAM_LOST = _lost("the program is gone from this node with the keeper that kept it")
_MAY_HAVE_BEGUN = _lost(
    "agent and keeper of this node died while the program was being started: it may have begun, "
    "and an attempt begins once"
)


SALVAGE_SECONDS = 300.0
"""How long it is tried to archive what an attempt has left that did not succeed."""


LOGS_SECONDS = 900.0
"""How long it is tried to archive what an attempt printed that did not succeed, after its end is told."""


PART_HASHES_MAX = 8_000
"""Most hashes of parts that a question for addresses has, unless one artifact alone has more."""


_SIGPIPE = 13


_SHELL_SIGPIPE = 128 + _SIGPIPE


_BROKEN_PIPE = re.compile(r"broken pipe|\bEPIPE\b", re.IGNORECASE)
"""How the error is called: by strerror(3) and nearly every language, or by its name."""


@dataclass(slots=True)
class AttemptsMachine:
    """Drives every attempt on this node; see the module for the rules."""

    _records: dict[AttemptRef, LocalAttempt] = field(default_factory=dict[AttemptRef, LocalAttempt])
    # An order, not a set: what is decided for several attempts is decided in one order always.
    _by_job: dict[JobRef, dict[AttemptRef, None]] = field(
        default_factory=dict[JobRef, dict[AttemptRef, None]]
    )
    _keeper: str = ""
    """The keeper that was heard of last."""
    _dismissing: bool = False
    """Whether the keeper is about to end: no program is started until there is another one."""
    _unable: bool = False
    """Whether the keeper is of a version that cannot start programs as it has to: none is, until there is another."""
    _now: float = 0.0
    _salvage_until: dict[AttemptRef, float] = field(default_factory=dict[AttemptRef, float])
    """Until when it is tried to archive what attempts have left that did not succeed."""
    _salvage_next: float | None = None
    """No moment of those is before this one."""
    _by_phase: dict[Phase, dict[AttemptRef, None]] = field(
        default_factory=lambda: {phase: {} for phase in Phase}
    )
    """Attempts by where they stand, so that what looks for few passes over no others."""
    _unsaid: Unsaid = field(default_factory=Unsaid)

    @property
    def records(self) -> Mapping[AttemptRef, LocalAttempt]:
        """Every attempt that the node knows."""
        return self._records

    def standing_in(self, *phases: Phase) -> Iterator[LocalAttempt]:
        """Yield the attempts that stand in one of these phases; the machine takes no event meanwhile."""
        for phase, refs in self._by_phase.items():
            if refs and phase in phases:
                yield from map(self._records.__getitem__, refs)

    def observations(self) -> tuple[Observation, ...]:
        """What a new session begins with: every attempt whose end is not acknowledged.

        Of one with many artifacts it says that it has not ended yet; the whole follows at once.
        """
        room = HELLO_ARTIFACTS_MAX
        found: list[Observation] = []
        for record in self._records.values():
            if record.acknowledged or record.phase is Phase.FORGETTING:
                continue
            seen = self._unsaid.recorded(record).observation
            if len(seen.artifacts) > room:
                # What did not succeed may never have been archiving, and is said to be on its way.
                succeeded = seen.state is JobState.SUCCEEDED
                state = JobState.ARCHIVING if succeeded else JobState.RUNNING
                seen = replace(seen, state=state, reason=NO_REASON, artifacts=())
            room -= len(seen.artifacts)
            found.append(seen)
        return tuple(found)

    def spooled(self) -> tuple[int, int]:
        """How many bytes wait for the archive, and of how many attempts."""
        waiting = [
            sum(one.size_bytes for one in record.artifacts)
            for record in self.standing_in(*ARCHIVING)
            if record.artifacts
        ]
        return sum(waiting), len(waiting)

    def deadline(self) -> float | None:
        """When it is to be looked at what has lasted and is to be told, or what the archive does not take."""
        unsaid = self._unsaid.deadline()
        salvage = self._salvage_next
        if salvage is None or not self._salvage_until:
            return unsaid
        return salvage if unsaid is None else min(unsaid, salvage)

    def tick(self, now: float) -> Sequence[AttemptsEffect]:
        """Record and tell what has lasted, and give up to archive what has waited too long; that stays on the node."""
        self._now = now
        effects: list[AttemptsEffect] = []
        for recorded in self._unsaid.due(now):
            record = self._records[recorded.ref]
            effects += [] if recorded is record else [WriteJournal(record)]
            effects += [] if record.acknowledged else [Report(record.observation)]
        if self._salvage_next is not None and self._salvage_next <= now:
            late = [ref for ref, until in self._salvage_until.items() if until <= now]
            effects += [effect for ref in late for effect in self._give_up(ref)]
            self._salvage_next = min(self._salvage_until.values(), default=None)
        return effects

    def handle(self, event: events.AttemptsEvent, now: float) -> Sequence[AttemptsEffect]:
        """Take one event and return what is to be done, in order.

        Raises:
            InvalidMoveError: an outcome in turn led off the table.
        """
        self._now = now
        match event:
            case events.DesiredChanged(desired, sequence, time, at_hand):
                return [*self._desire(desired, time, at_hand), DesiredRecorded(sequence)]
            case events.Restored():
                return self._restore(event)
            case events.ProgramsListed(keeper, programs, unable):
                self._keeper, self._unable = keeper, unable
                self._dismissing = False
                return [*self._listed(programs), *self._start_held()]
            case events.KeeperOutdated(keeper):
                return self._dismiss_keeper() if keeper == self._keeper else []
            case events.StreamWorkerOutdated():
                return [] if self._streams_are_wanted() else [DismissStreamWorker()]
            case events.StreamWorkerLost():
                return self._streams_lost()
            case events.StreamWorkerFound(identity):
                return [NoteStreamWorker(identity)]
            case events.SessionOpened():
                return self._say_again()
            case _:
                record = self._records.get(event.ref)
                if record is None:
                    return []
                if isinstance(event, events.WorkOutcome) and event.turn != record.turn:
                    return []  # it was overtaken
                return self._happened(record, event)

    def _happened(
        self, record: LocalAttempt, event: events.AttemptEvent
    ) -> Sequence[AttemptsEffect]:
        match event:
            case events.ProgramStarted(start_time=start_time):
                return self._started(record, start_time)
            case events.ProgramEnded():
                return self._program_ended(record, event.exit, left_nothing=event.left_nothing)
            case events.Prepared(time=time):
                return self._prepared(record, time)
            case events.WorkFailed(reason=reason):
                return self._work_failed(record, reason)
            case events.StreamsBroken(reason=reason):
                return self._streams_broken(record, reason)
            case events.DiskFull(reason=reason):
                return self._disk_full(record, reason)
            case events.StreamsHeld(holds=holds):
                return self._streams_held(record, holds)
            case events.StreamsClosed():
                return self._streams_closed(record)
            case events.StreamsDrained(ended_inputs=ended_inputs):
                return self._drained(record, ended_inputs)
            case events.ArtifactsCollected():
                return self._collected(record, event)
            case events.Uploaded(artifacts=artifacts, problem=problem):
                return self._stored(record, artifacts, problem)
            case events.GrantsExpired(left=left):
                return [_wanted(self._move(record, Phase.GRANTING), left)]
            case events.Acknowledged(state=state):
                if not state.terminal or record.state is not state:
                    return []
                if record.phase is Phase.FORGETTING:
                    return []  # its shell may have it forgotten already: it would be remembered again
                after = self._keep(record._replace(acknowledged=True))
                if after.forget and after.phase is Phase.ENDED:
                    return self._forget(after)
                # Most are forgotten at once, and one whose end is said again is answered again.
                self._unsaid.add(record, self._now)
                return []
            case events.Forgotten():
                return self._forgotten(record.ref)
            case Fenced() if record.keeping_logs:
                return [CancelWork(record.ref), *self._forget(record)]
            case Fenced():
                return self._release(record)
            case UploadsGranted():
                return self._granted(record, event.grants)
            case _:
                assert_never(event)

    def _say_again(self) -> list[AttemptsEffect]:
        """Ask for what an earlier session did not answer, and say what was too long for its Hello."""
        waiting = self.standing_in(Phase.GRANTING)
        ended = self.standing_in(Phase.ENDED)
        return [
            *(_wanted(record, record.artifacts) for record in waiting),
            *(Report(one.observation) for one in ended if one.artifacts and not one.acknowledged),
        ]

    # ---- what the controller wants

    def _desire(
        self, desired: Desired, time: float, at_hand: frozenset[AttemptRef]
    ) -> list[AttemptsEffect]:
        effects: list[AttemptsEffect] = []
        if desired.snapshot:
            named = {assignment.ref for assignment in desired.assignments}
            for record in tuple(self._records.values()):
                if record.ref not in named:
                    effects += self._release(record)
        for ref in desired.removed:
            known = self._records.get(ref)
            if known is not None:
                effects += self._release(known)
        for assignment in desired.assignments:
            effects += self._assign(assignment, time, at_hand=assignment.ref in at_hand)
        for changed in desired.lanes:
            effects += self._move_lanes(changed)
        return effects

    def _move_lanes(self, changed: AttemptLanes) -> list[AttemptsEffect]:
        record = self._records.get(changed.ref)
        if record is None:
            return []
        lanes = merged(record.assignment.lanes, changed.lanes)
        return self._reassign(record, replace(record.assignment, lanes=lanes))

    def _assign(
        self, assignment: Assignment, time: float, *, at_hand: bool
    ) -> list[AttemptsEffect]:
        record = self._records.get(assignment.ref)
        if record is not None:
            return self._reassign(record, assignment)
        effects: list[AttemptsEffect] = []
        siblings = [self._records[ref] for ref in self._by_job.get(assignment.ref.job_ref, ())]
        if any(sibling.ref.epoch > assignment.ref.epoch for sibling in siblings):
            return effects
        for sibling in siblings:
            effects += self._release(sibling)
        if at_hand and self._may_begin(assignment):
            return effects + self._begin(assignment)
        record = self._keep(LocalAttempt(assignment).reaching(AttemptStage.FETCHING, time=time))
        effects += [WriteJournal(record)]
        if assignment.goal is Goal.STOP:
            return [*effects, *self._end(record, _STOPPED)]
        return [*effects, Report(record.observation), PrepareBundle(assignment, record.turn)]

    def _may_begin(self, assignment: Assignment) -> bool:
        """Whether an attempt may pass all phases before its start in one step, since none has work that may take long.

        One that says its stages, streams, or needs a lease goes through them one by one.
        """
        leased = assignment.job.placement is Placement.AT_MOST_ONE_RUNNING
        if self._dismissing or self._unable or leased or assignment.goal is not Goal.RUN:
            return False
        if assignment.has_ports or assignment.tells_stages:
            return False
        siblings = self._by_job.get(assignment.ref.job_ref, ())
        return all(self._records[ref].phase not in ALIVE for ref in siblings)

    def _begin(self, assignment: Assignment) -> list[AttemptsEffect]:
        """Start the program of an attempt for which everything is at hand: one record, which names the keeper.

        Its folder is made meanwhile. A restart that finds this record prepares what is missing, and starts it only if
        that very keeper says that it has not.
        """
        record = self._keep(LocalAttempt(assignment, Phase.STARTING, keeper=self._keeper))
        self._unsaid.add(record, self._now)
        return [
            Prepare(assignment),
            WriteJournal(record),
            StartProgram(assignment, record.turn, record.keeper),
        ]

    def _reassign(self, record: LocalAttempt, assignment: Assignment) -> list[AttemptsEffect]:
        """Take over what may change: the goal, the lanes and the addresses.

        Its secrets stay those that its program was given, whatever they are by now: they are hidden by them.
        """
        before = record.assignment
        if assignment.secrets != before.secrets:
            secrets = {**assignment.secrets, **before.secrets}
            assignment = replace(assignment, secrets=secrets)
        if record.forget or record.phase is Phase.FORGETTING or assignment == before:
            return []
        record = self._keep(record._replace(assignment=assignment))
        effects = self._record(record)
        if assignment.lanes != before.lanes and record.phase in {
            Phase.RUNNING,
            Phase.STOPPING,
            Phase.DRAINING,
        }:
            effects.append(UpdateLanes(record.ref, assignment.lanes))
        if assignment.goal is Goal.STOP and before.goal is not Goal.STOP:
            effects += self._conclude(record, _STOPPED)
        return effects + self._finish(record)

    # ---- ends

    def _conclude(self, record: LocalAttempt, verdict: Verdict) -> list[AttemptsEffect]:
        """Bring an attempt to an end; a program that runs is stopped first."""
        match record.phase:
            case Phase.ENDED | Phase.FORGETTING:
                return []
            case Phase.COLLECTING | Phase.GRANTING | Phase.UPLOADING if (
                record.salvaging or record.keeping_logs
            ):
                return []  # it is on its way out already
            case Phase.DRAINING:
                return [CancelWork(record.ref), *self._failed(record, verdict)]
            case Phase.STARTING | Phase.STOPPING:
                if record.verdict is not None or record.forget:
                    return []
                return self._stop_starting(record._replace(verdict=verdict))
            case Phase.RUNNING:
                return self._stop(record._replace(verdict=verdict))
            case _:
                return [CancelWork(record.ref), *self._end(record, verdict)]

    def _release(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """End an attempt and forget it, once what it printed is kept; its end is not reported."""
        if record.keeping_logs:
            if record.forget:
                return []
            return self._record(self._keep(record._replace(forget=True)))
        match record.phase:
            case Phase.FORGETTING:
                return []
            case Phase.ENDED:
                return self._forget(record)
            case Phase.STARTING | Phase.STOPPING:
                if record.forget:
                    return []
                return self._stop_starting(record._replace(forget=True))
            case Phase.RUNNING:
                return self._stop(record._replace(forget=True))
            case _:
                return [CancelWork(record.ref), *self._forget(record)]

    def _stop(self, record: LocalAttempt) -> list[AttemptsEffect]:
        record = self._move(record, Phase.STOPPING)
        stop = StopProgram(record.ref, record.assignment.job.grace_seconds)
        return [*self._record(record), stop]

    def _finish(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Tell a program to end that is to be finished, once its streams are where they are to end.

        It stays RUNNING: whatever way it ends from then on, it has done what was wanted.
        """
        wanted = record.assignment.goal is Goal.FINISH and record.phase is Phase.RUNNING
        if not wanted or record.finishing or (record.assignment.sends and not record.closed):
            return []
        record = self._keep(record._replace(finishing=True))
        stop = StopProgram(record.ref, record.assignment.job.grace_seconds)
        return [*self._record(record), stop]

    def _end(self, record: LocalAttempt, verdict: Verdict) -> list[AttemptsEffect]:
        self._salvage_until.pop(record.ref, None)
        record = self._move(
            record._replace(
                state=verdict.state,
                reason=verdict.reason,
                verdict=None,
                # One that was found and never stored belongs to no attempt.
                artifacts=tuple(artifact for artifact in record.artifacts if artifact.key),
                parts=(),
            ),
            Phase.ENDED,
        )
        return [
            *self._tell(record),
            *self._start_ready(record),
            *(self._keep_logs(record) if _logs_are_wanted(record) else ()),
        ]

    def _keep_logs(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Archive what an attempt printed whose end is told; another attempt may run meanwhile."""
        record = self._move(record._replace(artifacts=(), parts=()), Phase.COLLECTING)
        self._salvage(record.ref, LOGS_SECONDS)
        return [*self._record(record), CollectArtifacts(record.assignment, record.turn, False)]

    def _logs_kept(self, record: LocalAttempt, logs: tuple[Artifact, ...]) -> list[AttemptsEffect]:
        """Say what is kept of what an attempt printed; if it is nothing, there is nothing to say."""
        self._salvage_until.pop(record.ref, None)
        stored = tuple(one for one in logs if one.key)
        acknowledged = record.acknowledged and not stored
        record = record._replace(artifacts=stored, parts=(), acknowledged=acknowledged)
        record = self._move(record, Phase.ENDED)
        if stored:
            return self._tell(record)
        forgetting = self._forget(record) if record.forget else []
        return [*self._record(record), *forgetting]

    def _forget(self, record: LocalAttempt) -> list[AttemptsEffect]:
        self._salvage_until.pop(record.ref, None)
        self._unsaid.drop(record.ref)
        # What is found as one that has ended is ended by its controller again, and forgotten then.
        ended = record.phase is Phase.ENDED
        record = self._move(record, Phase.FORGETTING)
        return [
            *([] if ended else [WriteJournal(record)]),
            Forget(record.ref, record.assignment.has_ports, record.left_something),
            *self._start_ready(record),
        ]

    def _forgotten(self, ref: AttemptRef) -> list[AttemptsEffect]:
        del self._by_phase[self._records.pop(ref).phase][ref]
        siblings = self._by_job[ref.job_ref]
        del siblings[ref]
        if not siblings:
            del self._by_job[ref.job_ref]
        return []

    # ---- preparing

    def _prepared(self, record: LocalAttempt, time: float) -> list[AttemptsEffect]:
        match record.phase:
            case Phase.BUNDLE:
                record = self._move(record, Phase.FILES)
                return [PrepareFiles(record.assignment, record.turn)]
            case Phase.FILES:
                reaching = record.reaching(AttemptStage.FETCHED, AttemptStage.INSTALLING, time=time)
                after = self._move(reaching, Phase.ENVIRONMENT)
                work = PrepareEnvironment(after.assignment, after.turn)
                return [*self._say_stages(record, after), work]
            case _:
                reaching = record.reaching(AttemptStage.INSTALLED, time=time)
                after = self._move(reaching, Phase.READY)
                return [*self._say_stages(record, after), *self._start(after)]

    def _say_stages(self, before: LocalAttempt, after: LocalAttempt) -> list[AttemptsEffect]:
        """Record new stages, then say them: the controller may not hear it at the first try."""
        told = after.assignment.tells_stages and after.stages != before.stages
        return self._tell(after) if told else []

    def _dismiss_keeper(self) -> list[AttemptsEffect]:
        """Let the keeper go once nothing of it is needed: with it go its records of ends."""
        busy = any(
            record.phase not in PREPARING and not record.over for record in self._records.values()
        )
        if busy or self._streams_are_wanted():
            return []
        self._dismissing = True
        return [DismissKeeper(self._keeper)]

    def _streams_are_wanted(self) -> bool:
        """Whether an attempt streams here, or is about to: without a worker a controller takes it for lost."""
        return any(
            record.assignment.has_ports and not record.over for record in self._records.values()
        )

    def _start_held(self) -> list[AttemptsEffect]:
        """Start what was ready while there was no keeper to start it."""
        ready = [*self.standing_in(Phase.READY)]
        return [effect for record in ready for effect in self._start(record)]

    def _start(self, record: LocalAttempt) -> list[AttemptsEffect]:
        if self._dismissing or self._unable:
            return []
        siblings = (self._records[ref] for ref in self._by_job[record.ref.job_ref])
        if any(sibling.phase in ALIVE for sibling in siblings if sibling.ref != record.ref):
            return []
        record = self._move(record._replace(keeper=self._keeper), Phase.STARTING)
        return [WriteJournal(record), StartProgram(record.assignment, record.turn, record.keeper)]

    def _stop_starting(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Note that a program is not wanted any more, and start none that still waits for a lease."""
        effects = self._record(self._keep(record))
        job = record.assignment.job
        if record.phase is Phase.STARTING and job.placement is Placement.AT_MOST_ONE_RUNNING:
            effects.append(StopProgram(record.ref, job.grace_seconds))
        return effects

    def _start_ready(self, gone: LocalAttempt) -> list[AttemptsEffect]:
        """Start what waited for `gone`; the newest attempt goes first, and the others are stale."""
        refs = self._by_job[gone.ref.job_ref]
        if len(refs) == 1:
            return []
        siblings = [self._records[ref] for ref in refs]
        ready = [sibling for sibling in siblings if sibling.phase is Phase.READY]
        return self._start(max(ready, key=lambda record: record.ref.epoch)) if ready else []

    def _work_failed(self, record: LocalAttempt, reason: Reason) -> list[AttemptsEffect]:
        if record.phase is Phase.STARTING:
            return self._program_gone(record, Verdict(JobState.FAILED, reason))
        if record.keeping_logs:
            return self._logs_kept(record, ())
        if record.salvaging:
            return self._end_unsalvaged(record, reason.message)
        return self._end(record, Verdict(JobState.FAILED, reason))

    # ---- the program

    def _started(self, record: LocalAttempt, start_time: float) -> list[AttemptsEffect]:
        if record.phase is not Phase.STARTING:
            raise InvalidMoveError(f"{record.ref.name} started while it was {record.phase}")
        record = record._replace(start_time=start_time)
        if record.verdict is not None or record.forget:
            return self._stop(record)
        before = self._records[record.ref]
        record = self._move(record, Phase.RUNNING)
        effects: list[AttemptsEffect] = []
        if record.assignment.has_ports:
            effects += [*self._tell(record), AttachStreams(record.assignment)]
        elif record.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING:
            effects += self._tell(record)
        else:
            self._unsaid.add(before, self._now, soon=True)
        return effects + self._finish(record)

    def _program_ended(
        self, record: LocalAttempt, program_exit: ProgramExit, *, left_nothing: bool = False
    ) -> list[AttemptsEffect]:
        if record.phase not in ALIVE:
            # The keeper says it again to a new watcher.
            return []
        record = record._replace(end_time=program_exit.end_time)
        effects: list[AttemptsEffect] = []
        if record.phase is Phase.STARTING and record.verdict is None and not record.forget:
            # It ended before the keeper's answer was read.
            effects += self._started(record, record.start_time or program_exit.end_time)
            record = self._records[record.ref]._replace(end_time=program_exit.end_time)
        ended = program_exit.timed_out or program_exit.lease_ended
        succeeded = not ended and _ended_well(record, program_exit)
        if record.assignment.has_ports:
            effects.append(Conclude(record.ref, succeeded and record.phase is Phase.RUNNING))
        if record.phase is not Phase.RUNNING or not succeeded:
            verdict = record.verdict or failure(record, program_exit)
            if program_exit.left:
                verdict = _with(verdict, program_exit.left)
                record = record._replace(verdict=verdict)
            return effects + self._failed(record, verdict)
        if record.assignment.sends:
            record = self._move(record, Phase.DRAINING)
            return [*effects, *self._tell(record)]
        if left_nothing and not record.assignment.has_ports:
            return effects + self._end(record, _ARCHIVED)
        return effects + self._archive(record)

    def _listed(self, programs: Mapping[AttemptRef, ProgramStatus]) -> list[AttemptsEffect]:
        effects: list[AttemptsEffect] = []
        # One that is starting hears from its own start.
        for record in tuple(self.standing_in(Phase.RUNNING, Phase.STOPPING)):
            program = programs.get(record.ref)
            if program is None:
                effects += self._program_gone(record, _PROGRAM_LOST)
            elif program.exit is not None:
                effects += self._program_ended(record, program.exit)
        return effects

    def _program_gone(self, record: LocalAttempt, verdict: Verdict) -> list[AttemptsEffect]:
        if record.forget:
            return self._forget(record)
        return self._end(record, record.verdict or verdict)

    def _failed(self, record: LocalAttempt, verdict: Verdict) -> list[AttemptsEffect]:
        """End an attempt whose program is gone, once what it wrote is archived, if that is wanted."""
        verdict = record.verdict or verdict
        wanted = (
            record.assignment.job.archive_on.takes(succeeded=False)
            and verdict.state in {JobState.FAILED, JobState.CANCELLED}
            and verdict.reason.code is not ReasonCode.DISK  # what it wrote has to go
            and Phase.COLLECTING in MOVES[record.phase]
        )
        if record.forget or not wanted:
            return self._program_gone(record, verdict)
        record = self._move(record._replace(verdict=verdict), Phase.COLLECTING)
        self._salvage(record.ref, SALVAGE_SECONDS)
        return [*self._record(record), self._collect(record), *self._start_ready(record)]

    def _salvage(self, ref: AttemptRef, seconds: float) -> None:
        until = self._now + seconds
        self._salvage_until[ref] = until
        self._salvage_next = until if self._salvage_next is None else min(self._salvage_next, until)

    def _give_up(self, ref: AttemptRef) -> list[AttemptsEffect]:
        """End an attempt whose files the archive did not take in time."""
        del self._salvage_until[ref]
        record = self._records[ref]
        if record.keeping_logs:
            return [CancelWork(ref), *self._logs_kept(record, ())]
        words = f"its files were not archived within {SALVAGE_SECONDS:g} s, and stay on its node"
        return [CancelWork(ref), *self._end_unsalvaged(record, words)]

    def _end_unsalvaged(self, record: LocalAttempt, words: str) -> list[AttemptsEffect]:
        record = _with_problem(record, words)._replace(artifacts=())
        return self._end(record, record.verdict or _STOPPED)

    # ---- streams

    def _streams_broken(self, record: LocalAttempt, reason: Reason) -> list[AttemptsEffect]:
        if record.phase in ALIVE or record.phase is Phase.DRAINING:
            # A stream worker that died is no mistake of the job, and does not count as one.
            state = JobState.LOST if reason.code is ReasonCode.LOST else JobState.FAILED
            return self._conclude(record, Verdict(state, reason))
        return []

    def _streams_held(
        self, record: LocalAttempt, holds: tuple[PortHold, ...]
    ) -> list[AttemptsEffect]:
        """Record how far ports are, then say so: the controller may not hear it at the first try.

        That a hold is over needs no word: its number does not come again.
        """
        streaming = record.phase in ALIVE or record.phase is Phase.DRAINING
        if not holds or record.holds == holds or not streaming:
            return []
        return self._tell(self._keep(record._replace(holds=holds)))

    def _streams_closed(self, record: LocalAttempt) -> list[AttemptsEffect]:
        if record.closed or record.phase not in ALIVE:
            return []
        record = self._keep(record._replace(closed=True))
        return [*self._record(record), *self._finish(record)]

    def _streams_lost(self) -> list[AttemptsEffect]:
        streaming = [
            record
            for record in self.standing_in(
                Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.DRAINING
            )
            if record.assignment.has_ports
        ]
        return [effect for record in streaming for effect in self._conclude(record, _WORKER_LOST)]

    def _drained(self, record: LocalAttempt, ended_inputs: tuple[str, ...]) -> list[AttemptsEffect]:
        """Archive what has sent all it had; a sink is being archived already, since its program ended.

        Which inputs have ended is recorded and said with the next step, and the worker says it to
        every start of the agent.
        """
        if record.phase is Phase.DRAINING or record.phase in ARCHIVING:
            record = self._keep(record._replace(ended_inputs=ended_inputs))
        return self._archive(record) if record.phase is Phase.DRAINING else []

    # ---- the disk

    def _disk_full(self, record: LocalAttempt, reason: Reason) -> list[AttemptsEffect]:
        if record.keeping_logs:
            return [CancelWork(record.ref), *self._logs_kept(record, ())]
        if record.phase in FAILS_FOR_ITS_DISK:
            return self._conclude(record, Verdict(JobState.FAILED, reason))
        return []

    # ---- archiving

    def _archive(self, record: LocalAttempt) -> list[AttemptsEffect]:
        before = self._records[record.ref]
        record = self._move(record, Phase.COLLECTING)
        effects: list[AttemptsEffect] = []
        if record.assignment.has_ports:
            effects += self._tell(record)
        else:
            # Where nothing is found it ends at once; until then the keeper knows how its program ended.
            self._unsaid.add(before, self._now)
        return [*effects, self._collect(record), *self._start_ready(record)]

    def _collect(self, record: LocalAttempt) -> CollectArtifacts:
        return CollectArtifacts(record.assignment, record.turn, not record.salvaging)

    def _collected(
        self, record: LocalAttempt, found: events.ArtifactsCollected
    ) -> list[AttemptsEffect]:
        if record.keeping_logs:
            logs = tuple(one for one in found.artifacts if one.path in LOG_PATHS)
            if not logs:
                return self._logs_kept(record, ())
            record = record._replace(artifacts=logs, parts=found.parts)
            record = self._move(record, Phase.GRANTING)
            return [*self._record(record), _wanted(record, logs)]
        if record.artifacts and _results(record.artifacts) != _results(found.artifacts):
            return self._lost_with_machine(record)  # they were looked at before it went down
        record = _with_problem(record._replace(missing=bool(found.problem)), found.problem)
        if record.assignment.traceparent and found.time:
            record = record.reaching(AttemptStage.COLLECTING, time=found.begun)
            record = record.reaching(AttemptStage.COLLECTED, time=found.time)
        if not found.artifacts:
            return self._end(record, record.verdict or _ARCHIVED)
        parts = _with_uploads(found.parts, {one.part_sha256: one for one in record.parts})
        record = record._replace(artifacts=found.artifacts, parts=parts)
        record = self._move(record, Phase.GRANTING)
        return [*self._record(record), _wanted(record, found.artifacts)]

    def _granted(
        self, record: LocalAttempt, grants: tuple[UploadGrant, ...]
    ) -> list[AttemptsEffect]:
        if record.phase is not Phase.GRANTING:
            return []
        keys = {grant.path: grant.key for grant in grants if grant.stored}
        if all(one.path in keys for one in record.artifacts):
            stored = tuple(replace(one, key=keys[one.path]) for one in record.artifacts)
            return self._stored(record, stored)
        begun = {grant.path: grant.upload_id for grant in grants if grant.upload_id}
        parts = tuple(
            replace(one, upload_id=begun.get(one.path, one.upload_id)) for one in record.parts
        )
        changed = parts != record.parts
        record = self._move(record._replace(parts=parts), Phase.UPLOADING)
        upload = Upload(
            record.assignment,
            record.turn,
            record.artifacts,
            grants,
            parts,
            record.salvaging or record.keeping_logs,
        )
        # Recorded before the first part is sent: the next start of the agent goes on there.
        return [WriteJournal(record), upload] if changed else [upload]

    def _stored(
        self, record: LocalAttempt, artifacts: tuple[Artifact, ...], problem: str = ""
    ) -> list[AttemptsEffect]:
        """End an attempt of which this is in the archive, and nothing else comes there."""
        if record.keeping_logs:
            return self._logs_kept(record, artifacts)
        whole = not problem and not record.missing
        record = _with_problem(record._replace(artifacts=artifacts, archived=whole), problem)
        return self._end(record, record.verdict or _ARCHIVED)

    # ---- after a start of the agent

    def _restore(self, event: events.Restored) -> list[AttemptsEffect]:
        self._keeper, self._unable = event.keeper, event.unable
        for record in event.records:
            self._keep(record)
        effects: list[AttemptsEffect] = []
        for record in event.records:
            effects += self._resume(record, event)
        return effects

    def _resume(self, record: LocalAttempt, event: events.Restored) -> list[AttemptsEffect]:
        program = event.programs.get(record.ref)
        if record.phase in PREPARING:
            record = self._keep(record._replace(phase=Phase.BUNDLE, turn=record.turn + 1))
            return [PrepareBundle(record.assignment, record.turn)]
        if record.phase in ALIVE:
            return self._resume_program(record, program, event)
        if record.keeping_logs:
            return self._keep_logs(self._keep(record._replace(phase=Phase.ENDED)))
        if record.salvaging:
            if event.rebooted:
                words = (
                    "its node went down before its files were archived; what is left stays there"
                )
                return self._end_unsalvaged(record, words)
            self._salvage(record.ref, SALVAGE_SECONDS)
        match record.phase:
            case Phase.DRAINING if not event.streams_survived:
                return self._end(record, _WORKER_LOST)
            case Phase.DRAINING:
                # The agent may have died after it had recorded this and before it was heard.
                return [
                    UpdateLanes(record.ref, record.assignment.lanes),
                    Conclude(record.ref, succeeded=True),
                ]
            case Phase.COLLECTING if event.rebooted and not record.artifacts:
                # What the program wrote last may not have been on the disk, and nothing says so.
                return self._lost_with_machine(record)
            case Phase.COLLECTING:
                return [self._collect(record)]
            case Phase.GRANTING | Phase.UPLOADING if event.rebooted:
                record = self._move(record._replace(verdict=None), Phase.COLLECTING)
                return [*self._record(record), self._collect(record)]
            case Phase.UPLOADING:
                self._move(record, Phase.GRANTING)
                return []
            case Phase.FORGETTING:
                return [Forget(record.ref, record.assignment.has_ports, record.left_something)]
            case _:
                # Granting waits for the session.
                return []

    def _resume_program(
        self, record: LocalAttempt, program: ProgramStatus | None, event: events.Restored
    ) -> list[AttemptsEffect]:
        """Take over a program, or what was to become one.

        An attempt begins once (docs/adr/0006). Which keeper is to start it is recorded before that one is
        told, no other is ever told, and one keeper starts an attempt once, whichever agent asks again. So where
        that very keeper answers and does not know it, it has not begun and may be started; where another
        keeper answers, or one that does not say its name, it may have begun and have been killed with the
        keeper that started it. Only a machine that went down is sure to have taken it along.
        """
        wanted = record.verdict is None and not record.forget
        if program is None:
            starting = record.phase is Phase.STARTING
            if wanted and event.rebooted and (starting or not record.assignment.has_ports):
                return self._begin_again(record)
            same = bool(record.keeper) and record.keeper == event.keeper
            if wanted and starting and same:
                return [StartProgram(record.assignment, record.turn, record.keeper)]
            return self._program_gone(record, _MAY_HAVE_BEGUN if starting else _PROGRAM_LOST)
        effects: list[AttemptsEffect] = []
        if record.phase is Phase.STARTING:
            effects += self._started(record, program.start_time)
            record = self._records[record.ref]
        elif record.phase is Phase.STOPPING:
            effects.append(StopProgram(record.ref, record.assignment.job.grace_seconds))
        elif record.assignment.has_ports and event.streams_survived:
            # The stream worker has it, or has it now if the agent died just before it said so.
            effects.append(AttachStreams(record.assignment))
        if record.finishing and record.phase is Phase.RUNNING:
            effects.append(StopProgram(record.ref, record.assignment.job.grace_seconds))
        if record.assignment.has_ports and not event.streams_survived:
            # Told before the end of the program, which may have taken the worker's for its input's.
            effects += self._conclude(record, _WORKER_LOST)
            record = self._records[record.ref]
        if program.exit is not None:
            effects += self._program_ended(record, program.exit)
        return effects

    def _begin_again(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Run again here what went down with the machine.

        The program cannot run any more and has stored nothing, so it needs no leave of the controller: there
        may be no network to ask over. What was prepared may be as broken as what it wrote.
        """
        record = record._replace(
            artifacts=(), parts=(), verdict=None, closed=False, finishing=False
        )
        record = self._move(record, Phase.BUNDLE)
        return [*self._record(record), PrepareBundle(record.assignment, record.turn)]

    def _lost_with_machine(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Do without results that went down with the machine; what streamed is not run again here."""
        if record.assignment.has_ports:
            return self._end(record, _RESULTS_LOST)
        return self._begin_again(record)

    # ---- the table

    def _move(self, record: LocalAttempt, phase: Phase) -> LocalAttempt:
        if phase not in MOVES[record.phase]:
            raise InvalidMoveError(
                f"{record.ref.name} cannot go from {record.phase} to {phase}; "
                f"it may go to {', '.join(sorted(MOVES[record.phase])) or 'nothing'}"
            )
        state = STATE_OF.get(phase, record.state)
        if phase in ARCHIVING and record.verdict is not None:
            state = record.state  # what is archiving has ended well
        return self._keep(
            # The state only grows, also when a phase is gone through again.
            record._replace(phase=phase, turn=record.turn + 1, state=max(state, record.state))
        )

    def _keep(self, record: LocalAttempt) -> LocalAttempt:
        ref = record.ref
        known = self._records.get(ref)
        self._records[ref] = record
        if known is None:
            self._by_job.setdefault(ref.job_ref, {})[ref] = None
            self._by_phase[record.phase][ref] = None
        elif known.phase is not record.phase:
            del self._by_phase[known.phase][ref]
            self._by_phase[record.phase][ref] = None
        return record

    def _record(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Record an attempt; say what it is, too, where something of it was left unsaid."""
        unsaid = self._unsaid.drop(record.ref) and not (record.acknowledged or record.forget)
        return [WriteJournal(record), *([Report(record.observation)] if unsaid else [])]

    def _tell(self, record: LocalAttempt) -> list[AttemptsEffect]:
        """Record an attempt, then say what it is."""
        self._unsaid.drop(record.ref)
        return [WriteJournal(record), Report(record.observation)]


def _wanted(record: LocalAttempt, left: tuple[Artifact, ...]) -> WantUploads:
    """Ask about what is left, with the hashes of so many parts; of more it is asked in the next turn."""
    parts = {one.path: one for one in record.parts}
    asked: list[Artifact] = []
    cut: list[ArtifactParts] = []
    hashes = 0
    for artifact in left:
        one = parts.get(artifact.path)
        if one is not None:
            if cut and hashes + len(one.part_sha256) > PART_HASHES_MAX:
                continue
            hashes += len(one.part_sha256)
            cut.append(one)
        asked.append(artifact)
    return WantUploads(record.ref, tuple(asked), tuple(cut))


def _with_uploads(
    found: tuple[ArtifactParts, ...], known: Mapping[tuple[str, ...], ArtifactParts]
) -> tuple[ArtifactParts, ...]:
    """Go on with uploads of the very same parts."""
    return tuple(
        replace(one, upload_id=same.upload_id)
        if (same := known.get(one.part_sha256)) is not None and same.path == one.path
        else one
        for one in found
    )


def _logs_are_wanted(record: LocalAttempt) -> bool:
    """Whether an attempt that has ended printed something that is in no archive, and may stay on its disk."""
    return (
        record.state in {JobState.FAILED, JobState.CANCELLED}
        and bool(record.start_time)
        and not record.assignment.job.archive_on.takes(succeeded=False)  # else it was salvaged
        and not record.artifacts
        and record.reason.code is not ReasonCode.DISK
    )


def _results(artifacts: tuple[Artifact, ...]) -> Mapping[str, str]:
    """What the program made, by path, with its SHA-256; logs may end where the power did."""
    return {one.path: one.sha256 for one in artifacts if one.path not in LOG_PATHS}


def _with_problem(record: LocalAttempt, problem: str) -> LocalAttempt:
    """Let an attempt fail, once its other artifacts are stored, for those that cannot be.

    One that failed before fails for what it did, and says the other, too.
    """
    if not problem:
        return record
    verdict = record.verdict
    if verdict is None:
        verdict = Verdict(JobState.FAILED, Reason(ReasonCode.ARCHIVE, 0, problem))
    else:
        verdict = _with(verdict, problem)
    return record._replace(verdict=verdict)


def _ended_well(record: LocalAttempt, program_exit: ProgramExit) -> bool:
    """Whether an end is a good one; see docs/jobs.md, "How a job ends".

    A program whose output no consumer reads any more may end by that: by SIGPIPE, with the status that a shell
    makes of it, or with one of its own, if its last words are those of the error (EPIPE).
    """
    if record.finishing:
        return True
    closed = record.closed or record.assignment.unread
    if program_exit.exit_code == 0:
        return closed or not program_exit.problem
    # Of a port that was ended on request, the program may hear before we do.
    return (closed or record.assignment.goal is Goal.FINISH) and (
        program_exit.signal == _SIGPIPE
        or program_exit.exit_code == _SHELL_SIGPIPE
        or _BROKEN_PIPE.search(program_exit.stderr_tail) is not None
    )


def _with(verdict: Verdict, left: str) -> Verdict:
    """Say, too, what could not be done."""
    message = f"{verdict.reason.message}; {left}" if verdict.reason.message else left
    return replace(verdict, reason=replace(verdict.reason, message=message))
