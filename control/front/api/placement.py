"""Where the attempts of a job are now, and when that changes: for relays of its records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from control.core.errors import ControlError, UnknownJobError, UnknownPortError
from control.front.control_plane import ControlPlane
from shoal.model import JobState
from shoal.names import PipelineRef
from shoal.view import JobView, PipelineView

_PLACED = frozenset({JobState.ASSIGNED, JobState.PREPARING, JobState.RUNNING, JobState.DRAINING})
_OVER = frozenset({JobState.ARCHIVING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


NO_CHANGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """Where a replica stands: its job, epoch, and the stream worker of its node (`host:port`).

    The address is empty while it is not placed, and `sentence` says why; `over` means that nothing
    of it will be sent any more.
    """

    job: str
    epoch: int = 0
    node: str = ""
    address: str = ""
    sentence: str = ""
    over: bool = False


def replicas_of(view: PipelineView, job: str, port: str) -> tuple[JobView, ...]:
    """Return the replicas that a name stands for, which have an output port of that name.

    Raises:
        UnknownJobError: There is no such job.
        UnknownPortError: It has no such output.
    """
    found = tuple(one for one in view.jobs if job in {one.id, one.spec_name})
    if not found:
        known = ", ".join(dict.fromkeys(one.spec_name for one in view.jobs))
        raise UnknownJobError(f"{view.name} has no job {job!r}: its jobs are {known}")
    outputs = [output.name for output in view.spec.job(found[0].spec_name).outputs]
    if port not in outputs:
        raise UnknownPortError(
            f"the job {job!r} of {view.name} has no output {port!r}: {_outputs(view, outputs)}"
        )
    return found


def _outputs(view: PipelineView, outputs: list[str]) -> str:
    if outputs:
        return f"its outputs are {', '.join(outputs)}"
    others = [f"{one.name}.{output.name}" for one in view.spec.jobs for output in one.outputs]
    return f"it sends nothing; what is sent in the pipeline: {', '.join(others) or 'nothing'}"


class Placements:
    """Follows where the replicas of one pipeline are.

    Args:
        plane: knows it.
        ref: which pipeline.
    """

    def __init__(self, plane: ControlPlane, ref: PipelineRef) -> None:
        self._plane = plane
        self._ref = ref
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow changes while the context is open.

        Raises:
            ControlError: The watch of the pipeline broke.
        """
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()

    def place(self, job: str) -> ReplicaPlace:
        """Return where a replica (by id) is now.

        Raises:
            UnknownPipelineError: The pipeline is not remembered any more.
        """
        view = self._plane.shown.pipeline(self._ref)
        [found] = [one for one in view.jobs if one.id == job]
        if found.state in _OVER or view.state.terminal:
            return ReplicaPlace(
                job, found.epoch, over=True, sentence=f"{job} has {_word(found.state)}"
            )
        if found.state not in _PLACED or not found.node:
            why = found.waiting_for or _word(found.state)
            return ReplicaPlace(job, found.epoch, sentence=f"{job} waits for a node: {why}")
        try:
            address = self._plane.shown.node(found.node).stream_address
        except ControlError:
            address = ""
        sentence = "" if address else f"node {found.node} of {job} has no stream worker"
        return ReplicaPlace(job, found.epoch, found.node, address, sentence)

    async def changes(self, job: str, known: ReplicaPlace, within_seconds: float) -> ReplicaPlace:
        """Wait until a replica stands elsewhere than is known, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds), self._changed:
                await self._changed.wait_for(lambda: self.place(job) != known)
        return self.place(job)

    async def moved(self, place: ReplicaPlace) -> None:
        """Return once a replica stands elsewhere, or is another attempt."""
        now = place
        while (now.epoch, now.address) == (place.epoch, place.address):
            now = await self.changes(place.job, now, NO_CHANGE_SECONDS)

    async def _watch(self) -> None:
        ref = self._ref
        with self._plane.watch_pipelines(ref.namespace, ref.pipeline) as changes:
            async for _ in changes:
                async with self._changed:
                    self._changed.notify_all()


def _word(state: JobState) -> str:
    return state.name.lower().replace("_", " ")
