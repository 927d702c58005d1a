"""Looks over the shoulder of the control machine: what is stale moves nothing.

It follows the commits of the leader as a projection, so that it sees each machine that is built.
"""

from collections.abc import Callable, Sequence

from control.core.effects import Effect
from control.core.errors import ControlError
from control.core.machine import ControlMachine
from control.core.state import JobRecord, NodeRecord
from control.front.control_plane import ControlPlane
from shoal.session.messages import Fenced
from shoal.session.observation import Observation


class ControlWatch:
    """A `Projection` that looks at every observation that a machine takes.

    Args:
        broken: raises, with words.
    """

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken

    def follow(self, plane: ControlPlane) -> None:
        """Look at every machine of a plane that is not entered yet."""
        leader = plane.leader
        leader._projections = (*leader._projections, self)

    def begin(self, machine: ControlMachine) -> None:
        """See `Projection`."""
        observations = machine._observations
        right = observations.observe

        def observe(node: NodeRecord, seen: Observation) -> Fenced | None:
            job = machine.cluster.job(seen.ref.job_ref)
            if job is None or _is_current(job, node, seen):
                return right(node, seen)
            before = _standing(job)
            fenced = right(node, seen)
            if _standing(job) != before:
                self._broken(f"4: {job.ref.name} was moved by a stale observation: {seen}")
            return fenced

        setattr(observations, "observe", observe)  # noqa: B010 - of this one machine

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """See `Projection`."""

    def cut_off(self, error: ControlError) -> None:
        """See `Projection`."""


def _is_current(job: JobRecord, node: NodeRecord, seen: Observation) -> bool:
    attempt = job.attempt
    return attempt is not None and (attempt.ref, attempt.node) == (seen.ref, node.name)


def _standing(job: JobRecord) -> object:
    """What is recorded of a job and its attempt."""
    return job.row(), None if job.attempt is None else job.attempt.row()
