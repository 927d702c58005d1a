"""What has been promised, recorded and seen in one world, and the invariants that follow.

The numbers are those of docs/guarantees.md. An invariant is looked at where it could first be broken:
when a transaction becomes durable, an answer reaches its user, a program begins, an object is
stored, an event arrives, an agent hears that it was acknowledged.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from control.core import rows
from shoal.model import DeadLetter, JobState, PipelineState, ReasonCode, ScaleState
from shoal.names import AttemptRef, JobRef, PipelineRef, parse_attempt
from shoal.session.assignment import Goal
from shoal.session.lane import Lane
from shoal.session.messages import Desired
from shoal.spec import Pipeline
from tests.simulation.mesh.program import TAKES_TOO_MUCH

_MESSAGES = frozenset({rows.OutboxKind.MESSAGE, rows.OutboxKind.KEPT_MESSAGE})
_STORED, _TOLD = 7, 8
"""The first text that only an attempt that succeeded has, and the last."""
_FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


class BrokenError(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Trace:
    """A checksum over everything that was seen, in order; with `lines` they are kept, too."""

    now: Callable[[], float]
    sum: int = 0
    count: int = 0
    lines: list[str] | None = None

    def note(self, *words: object) -> None:
        """Take something down."""
        line = f"{self.now():.6f} " + " ".join(map(str, words))
        self.sum = zlib.crc32(line.encode(), self.sum)
        self.count += 1
        if self.lines is not None:
            self.lines.append(line)

    @property
    def hash(self) -> str:
        """The checksum, in hex."""
        return f"{self.sum:08x}"


@dataclass(slots=True)
class Ledger:
    """Everything that must never be taken back."""

    trace: Trace
    specs: dict[PipelineRef, Pipeline] = field(default_factory=dict[PipelineRef, Pipeline])
    """What is recorded of submissions."""
    promised: dict[str, tuple[Pipeline, PipelineRef]] = field(
        default_factory=dict[str, tuple[Pipeline, PipelineRef]]
    )
    epochs: dict[JobRef, int] = field(default_factory=dict[JobRef, int])
    attempts: dict[AttemptRef, JobState] = field(default_factory=dict[AttemptRef, JobState])
    salvaged: dict[JobRef, rows.ManifestRow] = field(default_factory=dict[JobRef, rows.ManifestRow])
    """What jobs have in the archive that did not succeed."""
    committed: dict[JobRef, rows.ManifestRow] = field(
        default_factory=dict[JobRef, rows.ManifestRow]
    )
    events: dict[str, rows.OutboxRow] = field(default_factory=dict[str, rows.OutboxRow])
    """Recorded events by id."""
    marked: dict[str, None] = field(default_factory=dict[str, None])
    arrived: dict[str, int] = field(default_factory=dict[str, int])
    """How often each event has arrived at the broker."""
    reached: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Of each subject the sequence of the newest event that has arrived."""
    finals: dict[PipelineRef, str] = field(default_factory=dict[PipelineRef, str])
    states: dict[str, str] = field(default_factory=dict[str, str])
    """The recorded state of pipelines and jobs, by name."""
    cuts: dict[JobRef, int] = field(default_factory=dict[JobRef, int])
    """After how many records a source was told to end."""
    scales: dict[tuple[PipelineRef, int], ScaleState] = field(
        default_factory=dict[tuple[PipelineRef, int], ScaleState]
    )
    broken: Callable[[BaseException], None] = lambda _: None
    """Is told of an invariant that does not hold, before the process hears that looked."""
    look: Callable[[], None] = lambda: None
    """Looks at the whole after each transaction."""
    updates: dict[AttemptRef, int] = field(default_factory=dict[AttemptRef, int])
    """How many texts a dashboard was told of each attempt."""
    losses: int = 0
    begun: dict[AttemptRef, int] = field(default_factory=dict[AttemptRef, int])
    """In which life of its board the program of each attempt began."""
    begun_on: dict[AttemptRef, str] = field(default_factory=dict[AttemptRef, str])
    """The disk that remembers that it was."""

    def check(self, good: bool, *words: object) -> None:  # noqa: FBT001 - a condition, as of assert
        """Raise if an invariant does not hold."""
        if not good:
            error = BrokenError(" ".join(map(str, words)))
            self.broken(error)
            raise error

    # ---- the store

    def record(self, recorded: Sequence[rows.Row]) -> None:
        """A transaction is durable."""
        for row in recorded:
            match row:
                case rows.PipelineAdded(ref):
                    self.trace.note("added", ref.name)
                    self.specs[ref] = row.spec
                case rows.PipelineRow(ref, state):
                    self.trace.note("pipeline", ref.name, state.name)
                    letter = row.dead_letter is DeadLetter.KEPT
                    dead = state is PipelineState.FAILED
                    self.check(letter == dead, "1:", ref.name, "failed, and is no dead letter")
                    self.states[ref.name] = state.name
                    if row.final_event_id:
                        known = self.finals.setdefault(ref, row.final_event_id)
                        self.check(known == row.final_event_id, "6: two final events of", ref.name)
                case rows.JobRow(ref, state, epoch=epoch):
                    self.trace.note("job", ref.name, state.name, epoch)
                    self.states[ref.name] = state.name
                    self.check(
                        epoch >= self.epochs.get(ref, 0),
                        "3: the epoch of",
                        ref.name,
                        "fell to",
                        epoch,
                    )
                    self.epochs[ref] = epoch
                    if row.ends:
                        (ends,) = row.ends.values()
                        cut = self.cuts.setdefault(ref, ends)
                        self.check(cut == ends, "the end of", ref.name, "moved to", ends)
                case rows.AttemptRow():
                    self._attempt(row)
                case rows.ManifestRow():
                    self._manifest(row)
                case rows.ScaleRow(ref):
                    self.trace.note("scale", ref.name, row.replicas, row.state.name)
                    self.scales[ref, row.number] = row.state
                case rows.OutboxRow() if row.is_told:
                    self.check(row.id not in self.events, "6: event", row.id, "was recorded twice")
                    self.events[row.id] = row
                case rows.PipelineForgotten(ref):
                    self.check(ref in self.finals, "1:", ref.name, "was forgotten before its end")
                case _:
                    pass
        for row in recorded:
            if isinstance(row, rows.OutboxRow) and row.kind is rows.OutboxKind.EVENT:
                self._event(row)
            if isinstance(row, rows.OutboxRow) and row.kind in _MESSAGES:
                self._update(row)
        self.look()

    def _event(self, row: rows.OutboxRow) -> None:
        """An event says nothing that is not recorded with it."""
        state = row.type.rpartition(".")[2].upper()
        known = self.states.get(row.subject, "")
        if state in _FINAL:
            self.check(known == state, "event", row.id, "says", state, "and recorded is", known)

    def _update(self, row: rows.OutboxRow) -> None:
        """A dashboard is told the stages of an attempt one after the other, the last two of a success alone."""
        data = json.loads(row.data)
        number, name = data["stage"], data["attempt"]
        self.trace.note("update", row.id)
        if not number:
            return
        attempt = parse_attempt(name, row.namespace, int(row.id.rpartition("/")[2]))
        known = self.updates.get(attempt, 0)
        self.check(number == known + 1, "11:", row.id, "follows on stage", known)
        self.updates[attempt] = number
        newest = max(one.epoch for one in self.updates if one.job_ref == attempt.job_ref)
        self.check(attempt.epoch == newest, "11:", row.id, "was told after one of epoch", newest)
        succeeded = self.attempts.get(attempt) is JobState.SUCCEEDED
        self.check(succeeded or number < _STORED, "11:", row.id, "was told before the commit")

    def _attempt(self, row: rows.AttemptRow) -> None:
        before = self.attempts.get(row.ref)
        # What a stream worker has to say of its peers is that it cannot go on from where they are.
        self.check(row.reason.code is not ReasonCode.STREAM, row.ref.name, row.reason.message)
        self.trace.note("attempt", row.ref.name, row.ref.epoch, row.node, row.state.name)
        self._reason(row)
        if before is not None and before.terminal:
            self.check(
                row.state is before,
                "4:",
                row.ref.name,
                "was",
                before.name,
                "and is",
                row.state.name,
            )
        if row.state is JobState.LOST and before is not JobState.LOST and row.ref in self.begun:
            self.losses += 1
        self.attempts[row.ref] = row.state

    def _reason(self, row: rows.AttemptRow) -> None:
        """What took more than it may have fails for that, whatever fails beside it."""
        spec = self.specs.get(row.ref.job_ref.pipeline_ref)
        if spec is None or row.state is not JobState.FAILED:
            return
        run = next((job.run for job in spec.jobs if job.name == row.ref.job), ())
        taken = TAKES_TOO_MUCH.get(run[0]) if run else None
        code = row.reason.code
        if taken is not None:
            good = code not in {ReasonCode.EXIT, ReasonCode.SIGNAL}
            self.check(good, row.ref.name, "took too much:", taken, "and failed with", code)
        elif run:
            good = code not in TAKES_TOO_MUCH.values()
            self.check(good, row.ref.name, "took nothing, and failed with", code)

    def _manifest(self, row: rows.ManifestRow) -> None:
        job = row.attempt.job_ref
        self.trace.note("commit", row.attempt.name, row.attempt.epoch)
        twice = job in self.committed or job in self.salvaged
        self.check(not twice, "2:", job.name, "was committed twice")
        self.check(
            row.attempt.epoch == self.epochs.get(job),
            f"4: {row.attempt.name} of epoch {row.attempt.epoch} was committed, "
            f"the epoch is {self.epochs.get(job)}",
        )
        if self.attempts.get(row.attempt) is JobState.SUCCEEDED:
            self.committed[job] = row
        else:
            self.salvaged[job] = row

    def fail(self, words: str) -> None:
        """Say that an invariant does not hold."""
        self.check(False, words)

    # ---- users

    def answered(self, key: str, spec: Pipeline, ref: PipelineRef, *, repeated: bool) -> None:
        """A user was told that a submission is taken."""
        self.check(ref in self.specs, "1:", ref.name, "was promised and not recorded")
        if key in self.promised:
            self.check(self.promised[key][1] == ref, "1: request", key, "made two pipelines")
            self.check(repeated, "1: request", key, "was taken for new when it came again")
        self.promised[key] = (spec, ref)

    # ---- agents

    def acknowledged(self, ref: AttemptRef, state: JobState) -> None:
        """An agent heard that the controller has recorded the end of an attempt."""
        known = self.attempts.get(ref)
        # What is stale is acknowledged, too: the job has a newer epoch, and its attempt has ended.
        good = known is None or known.terminal or not state.terminal
        self.check(
            good,
            f"1: {ref.name} of epoch {ref.epoch} was acknowledged as {state.name}, "
            f"and is recorded as {known.name if known else 'nothing'}",
        )

    def told(self, desired: Desired) -> None:
        """An agent is told where streams end: as it is recorded, which it was before, and nowhere else."""
        for one in desired.assignments:
            self._told_ends(one.ref, one.lanes)
            cut = self.cuts.get(one.ref.job_ref)
            for lane in one.lanes if one.goal is not Goal.STOP else ():
                wanted = cut if one.goal is Goal.FINISH and lane.output else None
                self.check(
                    lane.end == wanted,
                    f"{one.ref.name} is told to {one.goal.name} with the end {lane.end} of "
                    f"{lane.id}, and {wanted} is recorded",
                )
        for moved in desired.lanes:
            self._told_ends(moved.ref, moved.lanes)

    def _told_ends(self, ref: AttemptRef, lanes: Sequence[Lane]) -> None:
        cut = self.cuts.get(ref.job_ref)
        for lane in lanes:
            good = lane.end is None or (lane.output and lane.end == cut)
            self.check(good, f"{ref.name} is told the end {lane.end} of {lane.id}, not {cut}")

    def begins(
        self,
        ref: AttemptRef,
        node: str,
        boot: int,
        others: Sequence[tuple[AttemptRef, str]],
        *,
        disk: str,
    ) -> None:
        """A program begins; `others` are those of the same job that run now and must not overlap.

        An attempt begins once (docs/adr/0006), and again only where its board lost its power and its disk
        remembers it: another board, or another disk, may not begin it.
        """
        self.trace.note("begins", ref.name, ref.epoch, node)
        place = self.begun_on.setdefault(ref, disk)
        self.check(
            place == disk,
            f"3: {ref.name} of epoch {ref.epoch} began with {place}, and begins again with {disk}",
        )
        self.check(boot > self.begun.get(ref, 0), ref.name, "of epoch", ref.epoch, "begins again")
        self.begun[ref] = boot
        self.check(
            not others,
            f"5: {ref.name} of epoch {ref.epoch} begins on {node} beside",
            *(f"epoch {other.epoch} on {at}" for other, at in others),
        )

    def ends(self, ref: AttemptRef, node: str, how: object) -> None:
        """A program has ended."""
        self.trace.note("ends", ref.name, ref.epoch, node, how)

    # ---- archive and broker

    def stored(self, key: str, data: bytes, objects: dict[str, bytes]) -> None:
        """An object is in the archive; a manifest only after everything that it names."""
        self.trace.note("stored", key)
        if not key.endswith("/manifest.json"):
            return
        found = json.loads(data)
        for one in found["artifacts"]:
            name = one["key"]
            self.check(name in objects, "7:", key, "names", name, "which is not there")
            good = hashlib.sha256(objects[name]).hexdigest() == one["sha256"]
            self.check(good, "7:", name, "is not what the manifest says")
        attempt = parse_attempt(found["attempt"], found["namespace"], found["epoch"])
        committed = self.committed.get(attempt.job_ref) or self.salvaged.get(attempt.job_ref)
        good = committed is not None and committed.attempt == attempt
        self.check(good, "2: the manifest of", attempt.name, "is not that of the commit")

    def event_arrived(self, event: str) -> None:
        """An event has arrived at the broker, in the order of its subject if it is the first time."""
        self.trace.note("event", event)
        self.check(event in self.events, "event", event, "arrived and was not recorded")
        row = self.events[event]
        subject = row.namespace, row.subject
        if event not in self.arrived:
            before = self.reached.get(subject, 0)
            self.check(row.sequence > before, "event", event, "arrived behind a later one")
            self.reached[subject] = row.sequence
        self.arrived[event] = self.arrived.get(event, 0) + 1

    def newest(self, namespace: str, subject: str) -> rows.OutboxRow | None:
        """The last event of a subject that was recorded."""
        found = (one for one in self.events.values() if one.subject == subject)
        return max(
            (one for one in found if one.namespace == namespace),
            key=lambda one: one.sequence,
            default=None,
        )

    def check_nothing_lost(self) -> None:
        """Of each event it has arrived, or it is a state and a newer one of its subject has."""
        for row in self.events.values():
            newer = self.reached.get((row.namespace, row.subject), 0) > row.sequence
            good = row.id in self.arrived or (row.kind is rows.OutboxKind.STATE and newer)
            self.check(good, "6: event", row.id, "never arrived, and none took its place")

    def check_final_events(self) -> None:
        """Invariant 6, when all has ended: one final event of each job, and a pipeline's is the last."""
        finals: dict[tuple[str, str], rows.OutboxRow] = {}
        last: dict[tuple[str, str], int] = {}
        for row in self.events.values():
            over = (row.namespace, row.subject) in finals
            self.check(not over, "6:", row.id, "was told after the end of its subject")
            pipeline = "/".join(row.subject.split("/")[:2])
            last[row.namespace, pipeline] = max(
                last.get((row.namespace, pipeline), 0), row.sequence
            )
            if row.type.rpartition(".")[2].upper() in _FINAL:
                key = row.namespace, row.subject
                self.check(key not in finals, "6:", row.subject, "has two final events")
                finals[key] = row
        for job in self.epochs:
            self.check((job.namespace, job.name) in finals, "6: no final event of", job.name)
        for ref in self.finals:
            row = finals[ref.namespace, ref.name]
            good = row.sequence == last[ref.namespace, ref.name]
            self.check(good, "6: something was told of", ref.name, "after its end")

    def check_updates(self) -> None:
        """When all has ended: of each attempt that succeeded, and was to tell a dashboard, all was told."""
        for job in self.committed:
            compat = self.specs[job.pipeline_ref].compat
            attempt = self.committed[job].attempt
            told = self.updates.get(attempt, 0)
            wanted = _TOLD if compat is not None and compat.updates_topic else 0
            self.check(told == wanted, "11:", attempt.name, "was told", told, "texts, not", wanted)

    def marked_published(self, events: Sequence[str]) -> None:
        """Events were deleted from the outbox: only what has arrived may be."""
        for event in events:
            self.check(event in self.arrived, "6: event", event, "was let go of and never arrived")
            self.marked[event] = None
