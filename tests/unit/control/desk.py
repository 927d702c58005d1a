"""A control machine on a table: events in, effects sorted, rows in a real (in-memory) database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from typing import cast

from control.core import events
from control.core.answers import Refusal, Submission
from control.core.call_note import CallNote
from control.core.effects import Admitted, Answer, CommitRows, Effect, EndSession, Taken, Tell
from control.core.machine import ControlMachine
from control.core.machine_config import MachineConfig
from control.core.pipeline_query import PipelineQuery
from control.core.rows import OutboxRow
from control.core.state import JobRecord, PipelineRecord
from control.store import schema, statements
from control.store.pipeline_page import page
from shoal.model import JobState, MemberState, Reason, ReasonCode
from shoal.names import AttemptRef, PipelineRef
from shoal.pipeline_order import PipelineOrder
from shoal.session.assignment import Assignment
from shoal.session.messages import Fenced, Hello
from shoal.session.observation import Observation
from shoal.spec import Pipeline
from tests.unit.control.world import BEGAN, artifact, hello, numbered_ids

QUEUE_PAGE = 3


class Desk:
    """Drives the machine by hand; `pass_time` ticks it as a shell would.

    `late` are the answers that came with a tick.
    """

    def __init__(self, config: MachineConfig | None = None) -> None:
        self.config = config or MachineConfig()
        self.now = 0.0
        self.ids = numbered_ids()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema.add_functions(self.connection)
        self.connection.executescript("".join(schema.STEPS))
        self.calls = count(1)
        self.sessions: dict[str, str] = {}
        self.silent: set[str] = set()
        self.ended: list[str] = []
        self.told: list[str] = []
        self.late: list[object] = []
        self.machine = self.start()

    def start(self) -> ControlMachine:
        """Start the machine from what was recorded; all sessions are over."""
        statements.count_start(self.connection, lambda: self.ids(16))
        self.sessions = {}
        loaded = statements.load(self.connection, QUEUE_PAGE)
        self.machine = ControlMachine(
            self.config,
            loaded,
            self.now,
            wall=lambda: BEGAN + timedelta(seconds=self.now),
            ids=self.ids,
        )
        rows = loaded.queued
        while rows:
            rows = statements.queued(self.connection, rows[-1].position, QUEUE_PAGE)
            self.machine.line_up(rows)
        return self.machine

    def post(self, make: Callable[[int], events.Event]) -> object:
        """Let something happen, and return its answer."""
        event = make(next(self.calls))
        self.machine.memory.learn(statements.find(self.connection, *self.machine.prepare([event])))
        answers = self._perform(self.machine.handle(event, self.now))
        self._tick()
        return answers[0] if answers else None

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps; agents with a session speak, unless they are silent."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 0.25, until)
            for node, session in self.sessions.items():
                if node not in self.silent:
                    self.machine.heard(node, session, self.now)
            self._tick()

    def _tick(self) -> None:
        while (deadline := self.machine.deadline()) is not None and deadline <= self.now:
            self.late += self._perform(self.machine.tick(self.now))

    def _perform(self, effects: Sequence[Effect]) -> list[object]:
        answers: list[object] = []
        for effect in effects:
            match effect:
                case CommitRows(rows):
                    self.connection.execute("BEGIN")
                    statements.write(self.connection, rows)
                    self.connection.execute("COMMIT")
                case EndSession(node, session_id, why):
                    self.ended.append(why)
                    if self.sessions.get(node) == session_id:
                        del self.sessions[node]
                case Tell(_, _, text):
                    self.told.append(text)
                case Answer(_, value):
                    answers.append(value)
                case _:
                    pass
        return answers

    # --- people

    def submit(
        self,
        spec: Pipeline,
        request_id: str = "",
        namespace: str = "default",
        note: CallNote | None = None,
    ) -> PipelineRef:
        answer = self.try_submit(spec, request_id, namespace, note)
        assert isinstance(answer, Taken), answer
        return answer.ref

    def try_submit(
        self,
        spec: Pipeline,
        request_id: str = "",
        namespace: str = "default",
        note: CallNote | None = None,
    ) -> Taken | Refusal:
        answer = self.post(
            lambda call: events.Submit(call, Submission(namespace, request_id, spec), note=note)
        )
        assert isinstance(answer, Taken | Refusal)
        return answer

    def cancel(self, ref: PipelineRef, reason: str = "enough") -> object:
        return self.post(lambda call: events.Cancel(call, ref, reason))

    def drain(
        self, node: str, *, drained: bool = True, move_seconds: float | None = None
    ) -> object:
        return self.post(lambda call: events.Drain(call, node, drained, move_seconds))

    def adopt(self, node: str) -> object:
        return self.post(lambda call: events.Adopt(call, node))

    def pipeline(self, ref: PipelineRef) -> PipelineRecord:
        if not self.machine.memory.has(ref):
            self.machine.memory.learn(statements.find(self.connection, [ref]))
        found = self.machine.cluster.pipeline(ref)
        assert found is not None, ref
        return found

    def remembered(self) -> list[PipelineRef]:
        """All pipelines in the store, oldest first."""
        query = PipelineQuery("default", order=PipelineOrder.OLDEST)
        return [ref for _, ref in page(self.connection, query, 1000, None).found]

    def job(self, ref: PipelineRef, job: str) -> JobRecord:
        return self.pipeline(ref).jobs[job]

    def states(self, ref: PipelineRef) -> dict[str, str]:
        return {name: job.state.name for name, job in self.pipeline(ref).jobs.items()}

    def nodes(self, ref: PipelineRef) -> dict[str, str]:
        """Where each placed job is."""
        jobs = self.pipeline(ref).jobs.items()
        return {name: job.attempt.node for name, job in jobs if job.attempt is not None}

    def events(self) -> list[OutboxRow]:
        """What waits in the outbox of pipelines and jobs."""
        return [row for row in self.outbox() if row.namespace]

    def outbox(self) -> list[OutboxRow]:
        """Everything that waits in the outbox."""
        return list(statements.outbox(self.connection, 0, 10_000))

    def waiting(self, subject: str) -> list[str]:
        """The types of what waits in the outbox of one subject, in order."""
        return [row.type for row in self.outbox() if row.subject == subject]

    def leave(self) -> None:
        """Let everything in the outbox arrive."""
        gone = [row.sequence for row in self.outbox()]
        statements.mark_published(self.connection, gone, {}, 10_000, 0)

    # --- agents

    def dial(self, said: Hello) -> tuple[Fenced, ...]:
        answer = self.claim(said)
        assert isinstance(answer, Admitted), answer
        return answer.fenced

    def claim(self, said: Hello) -> object:
        """Let an agent introduce itself, which may be refused; None while that is not clear."""
        session = f"session-{next(self.calls)}"
        answer = self.post(lambda call: events.HelloReceived(call, said, session, "10.0.0.7"))
        if isinstance(answer, Admitted):
            self.sessions[said.node] = session
        return answer

    def restart(self, said: Hello) -> tuple[Fenced, ...]:
        """Let the agent of a node die, with its session, and another process introduce itself."""
        self.hang_up(said.node)
        return self.dial(said)

    def dial_all(self, *names: str) -> None:
        for name in names:
            self.dial(hello(name))

    def hang_up(self, node: str) -> None:
        session = self.sessions.pop(node)
        self.post(lambda call: events.SessionClosed(call, node, session))

    def verdict(self, member: str, state: MemberState) -> None:
        self.post(lambda _: events.MemberVerdict(member, state))

    def current(self, ref: PipelineRef, job: str) -> AttemptRef:
        attempt = self.job(ref, job).attempt
        assert attempt is not None, f"{job} is not placed: {self.job(ref, job).waiting_for}"
        return attempt.ref

    def assignment(self, ref: PipelineRef, job: str) -> Assignment:
        attempt = self.job(ref, job).attempt
        assert attempt is not None
        return self.machine.desired(attempt.node)[attempt.ref]

    def observe(
        self, ref: PipelineRef, job: str, *states: JobState, reason: Reason | None = None
    ) -> tuple[Fenced, ...]:
        """Let the agent of a job's current attempt report states."""
        attempt = self.job(ref, job).attempt
        assert attempt is not None, f"{job} is not placed: {self.job(ref, job).waiting_for}"
        fenced: tuple[Fenced, ...] = ()
        for state in states:
            fenced += self.report(attempt.node, attempt.ref, state, reason=reason)
        return fenced

    def report(
        self, node: str, ref: AttemptRef, state: JobState, *, reason: Reason | None = None
    ) -> tuple[Fenced, ...]:
        artifacts = (artifact(ref),) if state is JobState.SUCCEEDED else ()
        seen = Observation(ref, state, reason or Reason(), artifacts)
        return self.say(node, seen)

    def say(self, node: str, seen: Observation) -> tuple[Fenced, ...]:
        session = self.sessions[node]
        answer = self.post(lambda call: events.Observed(call, node, session, (seen,)))
        return _fenced(answer)

    def succeed(self, ref: PipelineRef, *jobs: str) -> None:
        for job in jobs:
            self.observe(ref, job, JobState.RUNNING, JobState.SUCCEEDED)

    def fail(self, ref: PipelineRef, job: str, code: ReasonCode = ReasonCode.EXIT) -> None:
        reason = Reason(code, 3 if code is ReasonCode.EXIT else 0, "it said so")
        self.observe(ref, job, JobState.RUNNING, JobState.FAILED, reason=reason)


def _fenced(answer: object) -> tuple[Fenced, ...]:
    assert isinstance(answer, tuple), answer
    return cast("tuple[Fenced, ...]", answer)
