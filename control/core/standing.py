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
        jobs = view.jobs
        if len(jobs) == 1:
            return cls(view.creator, view.state, view.dead_letter, ((jobs[0].state, 1),))
        return cls(view.creator, view.state, view.dead_letter, counted(job.state for job in jobs))


def counted(states: Iterable[JobState]) -> JobCounts:
    """Count jobs by their states."""
    return tuple(sorted(Counter(states).items()))
