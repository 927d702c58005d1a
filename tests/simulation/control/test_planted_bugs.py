"""The histories are worth something: each of these mistakes is found by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from control import inbox
from control.backlog import Backlog
from control.effects import Answer, Effect, Record, Taken
from control.machine import ControlMachine
from control.scheduler.snapshot import NodeState
from control.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from control.store.rows import AttemptRow, Loaded
from control.views import Refusal
from shoal.model import NO_CAPACITY, Reason
from shoal.names import JobRef
from shoal.session.messages import Fenced
from shoal.session.observation import Observation
from tests.simulation.control.world import NO_DEATH, Faults, history

HISTORIES = 120


class AcceptsStaleObservations(ControlMachine):
    """Whatever is said about a job counts, whichever attempt it is about."""

    def _observe(self, node: NodeRecord, seen: Observation) -> Fenced | None:
        job = self._cluster.job(seen.ref.job_ref)
        if job is not None and job.attempt is not None:
            self._advance(job, job.attempt, seen)
            return None
        return super()._observe(node, seen)


class BelievesGossipAboveTheLease(ControlMachine):
    """A dead member's jobs are replaced even if they may not overlap."""

    def _settle_doubt(self, node: NodeRecord) -> None:
        if node.name in self._doubted and not node.session_id:
            for attempt in tuple(node.attempts.values()):
                if attempt.ref in node.attempts:
                    self._lose(attempt, "gossip")
        super()._settle_doubt(node)


class ForgetsRequestIds(ControlMachine):
    """The same key makes two pipelines."""

    def _submit(self, event: inbox.Submit) -> Taken | Refusal:
        self._cluster.requests.clear()
        return super()._submit(event)


class GrantsNoLeaseAtItsStart(ControlMachine):
    """A node that never comes back after a restart is never lost."""

    def _load(self, loaded: Loaded) -> None:
        super()._load(loaded)
        for name in self._cluster.nodes:
            self._leases.end(name)


class KeepsWhatAnAgentHasLost(ControlMachine):
    """An attempt begins twice."""

    def _lose(self, attempt: AttemptRecord, why: str) -> None:
        if "knows nothing" not in why:
            super()._lose(attempt, why)


class TellsNeighboursNothing(ControlMachine):
    """A producer never hears that its consumer is done."""

    def _lanes_changed(self, ref: JobRef) -> None:
        pass


class CountsItsOwnPauses(ControlMachine):
    """A controller that stood still loses everybody."""

    def _load(self, loaded: Loaded) -> None:
        self._leases._pause_seconds = 1e9
        super()._load(loaded)


class Oversubscribes(ControlMachine):
    """Every node looks empty."""

    def _nodes(self) -> tuple[NodeState, ...]:
        return tuple(replace(node, claimed=NO_CAPACITY) for node in super()._nodes())


class EndsPipelinesEarly(ControlMachine):
    """The first job that ends is taken for the last."""

    def _job_ended(self, pipeline: PipelineRecord) -> None:
        pipeline.open_jobs = 1
        super()._job_ended(pipeline)


class ForgetsRetries(ControlMachine):
    """A job that waits for its next attempt waits for ever after a restart."""

    def _load_retry(self, job: JobRecord) -> None:
        pass


class ForgetsTheQueue(ControlMachine):
    """Queued jobs are not queued after a restart."""

    def _load(self, loaded: Loaded) -> None:
        super()._load(loaded)
        self._backlog = Backlog()


class TakesTheSameEpochAgain(ControlMachine):
    """The number of an attempt rises, its epoch does not."""

    def _place(self, ref: JobRef, name: str) -> None:
        job = self._pipeline_of(ref).jobs[ref.job]
        job.epoch = 0
        super()._place(ref, name)


class StopsNobody(ControlMachine):
    """A failed or cancelled pipeline leaves its neighbours waiting for each other."""

    def _stop(self, pipeline: PipelineRecord, reason: Reason) -> None:
        if pipeline.stop is None and not pipeline.state.terminal:
            pipeline.stop = reason
            self._change.pipeline(pipeline)


class AnswersBeforeItRecords(ControlMachine):
    """A crash in between loses what was acknowledged."""

    def handle(self, event: inbox.Event, now: float) -> Sequence[Effect]:
        effects = super().handle(event, now)
        return sorted(effects, key=lambda effect: not isinstance(effect, Answer))


class RecordsNoAttempts(ControlMachine):
    """After a restart nobody knows who runs where."""

    def handle(self, event: inbox.Event, now: float) -> Sequence[Effect]:
        return [
            Record(tuple(row for row in effect.rows if not isinstance(row, AttemptRow)))
            if isinstance(effect, Record)
            else effect
            for effect in super().handle(event, now)
        ]


class FinishesNobody(ControlMachine):
    """A source that is asked to end goes on for ever."""

    def _end_sources(self, pipeline: PipelineRecord) -> None:
        pass


class MovesTheEndsOfSources(ControlMachine):
    """Where a source ends is forgotten with its attempt, so that its replacement ends elsewhere."""

    def _place(self, ref: JobRef, name: str) -> None:
        self._pipeline_of(ref).jobs[ref.job].ends = None
        super()._place(ref, name)


BUGS: tuple[type[ControlMachine], ...] = (
    AcceptsStaleObservations,
    AnswersBeforeItRecords,
    BelievesGossipAboveTheLease,
    CountsItsOwnPauses,
    EndsPipelinesEarly,
    FinishesNobody,
    ForgetsRequestIds,
    ForgetsRetries,
    ForgetsTheQueue,
    GrantsNoLeaseAtItsStart,
    KeepsWhatAnAgentHasLost,
    MovesTheEndsOfSources,
    Oversubscribes,
    RecordsNoAttempts,
    StopsNobody,
    TakesTheSameEpochAgain,
    TellsNeighboursNothing,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug: type[ControlMachine]) -> None:
    assert any(_found(bug, seed) for seed in range(HISTORIES)), f"{bug.__doc__} Nobody noticed."


def _found(bug: type[ControlMachine], seed: int) -> bool:
    short = bug is CountsItsOwnPauses
    try:
        world = history(seed, NO_DEATH if short else Faults(), 40.0 if short else 15.0, bug)
    except Exception:  # noqa: BLE001 -- an invariant, the store or the machine itself objected
        return True
    return short and world.losses > 0
