"""Mistakes of the control machine that the mesh has to find.

Each is a part of the control machine with one of its decisions made wrongly, put in the place of the
right one in a process of its own.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from control.core import events, lifecycle, machine, situation
from control.core.answers import Refusal
from control.core.backlog import Backlog
from control.core.dashboard import Dashboard
from control.core.effects import CommitRows, Effect, Taken
from control.core.errors import ControlError
from control.core.gossip import GossipVerdicts
from control.core.leases import Leases
from control.core.loading import Loading
from control.core.machine import ControlMachine
from control.core.node_news import NodeNews
from control.core.outcomes import Outcomes
from control.core.placement import Placer
from control.core.presence import Presence
from control.core.rows import AttemptRow, Loaded, Row
from control.core.scheduler.snapshot import NodeSnapshot
from control.core.sources import Sources
from control.core.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from control.core.submissions import Submissions
from control.core.topology import LaneEnd, Topology
from control.front import control_plane
from control.leader import leader
from control.leader.leader import Leader
from shoal.model import NO_CAPACITY, Reason
from shoal.session.lane import Lane, LanePeer
from shoal.session.observation import Observation
from tests.simulation.mesh.mutants import Mutant
from tests.simulation.mesh.story import HARD_ON_CONTROL, PAUSES, Faults


class BelievesGossipAboveTheLease(GossipVerdicts):
    """A dead member's jobs are replaced even if they may not overlap."""

    def settle_doubt(self, node: NodeRecord) -> None:
        if node.name in self.doubted and not node.session_id:
            for attempt in tuple(node.attempts.values()):
                if attempt.ref in node.attempts:
                    self._outcomes.lose(attempt, "gossip")
        super().settle_doubt(node)


class ForgetsRequestIds(Submissions):
    """The same key makes two pipelines."""

    def submit(self, event: events.Submit) -> Taken | Refusal:
        self._situation.requests.clear()
        return super().submit(event)


class GrantsNoLeaseAtItsStart(Loading):
    """A node that never comes back after a restart is never lost."""

    def load(self, loaded: Loaded) -> None:
        super().load(loaded)
        for name in self._cluster.nodes:
            self._situation.leases.end(name)


class KeepsWhatAnAgentHasLost(Outcomes):
    """An attempt begins twice."""

    def lose(self, attempt: AttemptRecord, why: str) -> None:
        if "knows nothing" not in why:
            super().lose(attempt, why)


class TellsDoneBeforeTheCommit(Dashboard):
    """A dashboard reads `Done` of a task whose results are on their way."""

    def observed(self, pipeline: PipelineRecord, attempt: AttemptRecord, seen: Observation) -> None:
        super().observed(pipeline, attempt, seen)
        if seen.state in lifecycle.ENDED_WELL:
            self.succeeded(pipeline, attempt)


class TellsNeighboursNothing(Placer):
    """A producer never hears that its consumer is done."""

    def lanes_changed(self, job: JobRecord) -> None:
        pass


class Oversubscribes(Placer):
    """Every node looks empty."""

    def nodes(self) -> tuple[NodeSnapshot, ...]:
        return tuple(replace(node, claimed=NO_CAPACITY) for node in super().nodes())


class EndsPipelinesEarly(Outcomes):
    """The first job that ends is taken for the last."""

    def job_ended(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        pipeline.open_jobs = 1
        super().job_ended(pipeline, job)


class ForgetsRetries(Loading):
    """A job that waits for its next attempt waits for ever after a restart."""

    def load_retry(self, job: JobRecord) -> None:
        pass


class ForgetsTheQueue(Loading):
    """Queued jobs are not queued after a restart."""

    def load(self, loaded: Loaded) -> None:
        super().load(loaded)
        self._situation.backlog = Backlog()


class TakesTheSameEpochAgain(Placer):
    """The number of an attempt rises, its epoch does not."""

    def place(self, job: JobRecord, name: str) -> None:
        job.epoch = 0
        super().place(job, name)


class StopsNoPipeline(Outcomes):
    """A failed or cancelled pipeline leaves its neighbours waiting for each other."""

    def stop(self, pipeline: PipelineRecord, reason: Reason) -> None:
        if pipeline.stop is None and not pipeline.state.terminal:
            pipeline.stop = reason
            self._change.pipeline(pipeline)


class RecordsNoAttempts(ControlMachine):
    """After a restart nobody knows who runs where."""

    def step(self, batch: Iterable[events.Event], now: float) -> Sequence[Effect]:
        return [
            replace(
                effect, rows=tuple(row for row in effect.rows if not isinstance(row, AttemptRow))
            )
            if isinstance(effect, CommitRows)
            else effect
            for effect in super().step(batch, now)
        ]


class FinishesNoSource(Sources):
    """A source that is asked to end goes on for ever."""

    def end(self, pipeline: PipelineRecord) -> None:
        pass


class MovesTheEndsOfSources(Placer):
    """Where a source ends is forgotten with its attempt, so that its replacement ends elsewhere."""

    def place(self, job: JobRecord, name: str) -> None:
        job.ends = None
        super().place(job, name)


class CountsItsOwnPauses(Leases):
    """A controller that stood still loses every node."""

    def __init__(self, lease_seconds: float, pause_seconds: float, now: float) -> None:
        del pause_seconds
        super().__init__(lease_seconds, 1e9, now)


class TellsOfNoReturn(NodeNews):
    """A node that was told to be down is never told to be back."""

    def _presence(self, node: NodeRecord) -> Presence:
        if node.presence is Presence.DOWN and node.session_id:
            return Presence.DOWN
        return super()._presence(node)


class AnswersBeforeItRecords(Leader):
    """A commit is only on its way when its callers are answered, and a crash in between loses it.

    It is the leader's mistake and cannot be the machine's: whatever the order of the machine's effects,
    the leader records all rows of a batch before it acts on any of them.
    """

    _committing: asyncio.Task[None] | None = None

    async def _record(self, rows: Sequence[Row], *, waited_for: bool) -> None:
        before = self._committing
        right = super()._record(rows, waited_for=waited_for)

        async def commit() -> None:
            if before is not None:
                await before
            with contextlib.suppress(ControlError):
                await right

        self._committing = asyncio.get_running_loop().create_task(commit())


_PLACES = {ControlMachine: leader, Leader: control_plane, Leases: situation}
"""In which module a part is looked up when it is made; all others are made by the machine."""


def _plant(part: type[object]) -> None:
    """Put a part in the place of the one that it is made of, for this process."""
    right = part.__mro__[1]
    setattr(_PLACES.get(right, machine), right.__name__, part)


def _tell_other_ends() -> None:
    """An agent is told to end its stream one record after the one that is recorded."""
    right = Topology.lanes

    def lanes(
        self: Topology,
        job: str,
        peer: Callable[[str], LanePeer],
        hold: Callable[[LaneEnd], int] = lambda _: 0,
        ends: Mapping[str, int] = MappingProxyType({}),
    ) -> tuple[Lane, ...]:
        return right(self, job, peer, hold, {port: end + 1 for port, end in ends.items()})

    setattr(Topology, "lanes", lanes)  # noqa: B010 - for this process


def _faults(name: str) -> Faults | None:
    """Which faults bring a mistake to light; None for those of any history."""
    if "pauses" in name:
        return PAUSES
    if "agent-has-lost" in name:
        return replace(HARD_ON_CONTROL, disk_lost=12.0)
    return None if "source" in name else HARD_ON_CONTROL


_PARTS: tuple[tuple[str, type[object]], ...] = (
    ("answers-before-it-records", AnswersBeforeItRecords),
    ("believes-gossip-above-the-lease", BelievesGossipAboveTheLease),
    ("counts-its-own-pauses", CountsItsOwnPauses),
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
    ("tells-of-no-return", TellsOfNoReturn),
    ("tells-done-before-the-commit", TellsDoneBeforeTheCommit),
)

CONTROL_MUTANTS: tuple[Mutant, ...] = (
    *(Mutant(name, partial(_plant, part), _faults(name)) for name, part in _PARTS),
    Mutant("tells-other-ends", _tell_other_ends),
)
"""All of them; that stale observations count is in `mutants.py`."""
