"""Mistakes of the control machine that the mesh has to find.

Each is a `ControlMachine` with one of its decisions made wrongly, put in the place of the right one in a
process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from control import inbox, plane
from control.backlog import Backlog
from control.effects import Effect, Record, Taken
from control.machine import ControlMachine
from control.scheduler.snapshot import NodeState
from control.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from control.store.rows import AttemptRow, Loaded
from control.views import Refusal
from shoal.model import NO_CAPACITY, Reason
from shoal.names import JobRef
from tests.simulation.mesh.mutants import Mutant
from tests.simulation.mesh.story import HARD_ON_CONTROL


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


class StopsNoPipeline(ControlMachine):
    """A failed or cancelled pipeline leaves its neighbours waiting for each other."""

    def _stop(self, pipeline: PipelineRecord, reason: Reason) -> None:
        if pipeline.stop is None and not pipeline.state.terminal:
            pipeline.stop = reason
            self._change.pipeline(pipeline)


class RecordsNoAttempts(ControlMachine):
    """After a restart nobody knows who runs where."""

    def handle(self, event: inbox.Event, now: float) -> Sequence[Effect]:
        return [
            Record(tuple(row for row in effect.rows if not isinstance(row, AttemptRow)))
            if isinstance(effect, Record)
            else effect
            for effect in super().handle(event, now)
        ]


class FinishesNoSource(ControlMachine):
    """A source that is asked to end goes on for ever."""

    def _end_sources(self, pipeline: PipelineRecord) -> None:
        pass


class MovesTheEndsOfSources(ControlMachine):
    """Where a source ends is forgotten with its attempt, so that its replacement ends elsewhere."""

    def _place(self, ref: JobRef, name: str) -> None:
        self._pipeline_of(ref).jobs[ref.job].ends = None
        super()._place(ref, name)


def _plant(machine: type[ControlMachine]) -> None:
    setattr(plane, "ControlMachine", machine)  # noqa: B010 - a module's name, for this process


CONTROL_MUTANTS: tuple[Mutant, ...] = tuple(
    Mutant(name, partial(_plant, machine), None if "source" in name else HARD_ON_CONTROL)
    for name, machine in (
        ("believes-gossip-above-the-lease", BelievesGossipAboveTheLease),
        ("forgets-request-ids", ForgetsRequestIds),
        ("grants-no-lease-at-its-start", GrantsNoLeaseAtItsStart),
        ("keeps-what-an-agent-has-lost", KeepsWhatAnAgentHasLost),
        ("tells-neighbours-nothing", TellsNeighboursNothing),
        ("oversubscribes", Oversubscribes),
        ("ends-pipelines-early", EndsPipelinesEarly),
        ("forgets-retries", ForgetsRetries),
        ("forgets-the-queue", ForgetsTheQueue),
        ("takes-the-same-epoch-again", TakesTheSameEpochAgain),
        ("stops-no-pipeline", StopsNoPipeline),
        ("records-no-attempts", RecordsNoAttempts),
        ("finishes-no-source", FinishesNoSource),
        ("moves-the-ends-of-sources", MovesTheEndsOfSources),
    )
)
"""All of them; that stale observations count, and answers come before commits, is in `mutants.py`."""
