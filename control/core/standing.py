"""How a pipeline stands, as short as it is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from shoal.model import DeadLetter, JobState, PipelineState
from shoal.view import PipelineView

JobCounts = tuple[tuple[JobState, int], ...]
"""How many jobs of a pipeline are in each state, by the numbers of the states."""


class Standing(NamedTuple):
    """The submitter of a pipeline, its state, whether it is a dead letter, and how many jobs are in each state."""

    creator: str
    state: PipelineState
    dead_letter: DeadLetter
    jobs: JobCounts

    @classmethod
    def of(cls, view: PipelineView) -> Standing:
        """How a pipeline stands that is shown so."""
        jobs = counted([job.state for job in view.jobs])
        return cls(view.creator, view.state, view.dead_letter, jobs)


def counted(states: Iterable[JobState]) -> JobCounts:
    """Count jobs by their states."""
    found = list(states)
    if len(found) == 1:
        return ((found[0], 1),)
    return tuple(sorted(Counter(found).items()))
