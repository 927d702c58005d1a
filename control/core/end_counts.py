"""What is counted of what has ended, for figures: integers, and a sum of seconds.

Rule: it is counted where it happens and forgotten with the machine, so what was not committed is not counted
for long. Nothing is decided by it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.metrics.distribution import Distribution
from shoal.model import JobState, PipelineState, ReasonCode

if TYPE_CHECKING:
    from control.core.state import AttemptRecord, PipelineRecord

WAIT_BOUNDS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    5.0,
    30.0,
    120.0,
    600.0,
    3600.0,
)
"""Seconds from a submission to the first attempt of a job."""
RUN_BOUNDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds that a program ran."""


@dataclass(slots=True, eq=False)
class EndCounts:
    """What has ended since the machine was built.

    Attributes:
        attempts: how many, by how they ended and why.
        pipelines: how many, by how they ended.
        waits: seconds from the submission of a pipeline to the first attempt of a job, of attempts that have ended.
        runs: seconds that programs ran, as their agents' clocks say.
    """

    attempts: Counter[tuple[JobState, ReasonCode]] = field(
        default_factory=Counter[tuple[JobState, ReasonCode]]
    )
    pipelines: Counter[PipelineState] = field(default_factory=Counter[PipelineState])
    waits: Distribution = field(default_factory=lambda: Distribution(WAIT_BOUNDS))
    runs: Distribution = field(default_factory=lambda: Distribution(RUN_BOUNDS))

    def attempt_ended(self, pipeline: PipelineRecord, attempt: AttemptRecord) -> None:
        """Count an attempt that has ended just now."""
        self.attempts[attempt.state, attempt.reason.code] += 1
        if attempt.ref.number == 1:
            self.waits.add((attempt.create_time - pipeline.create_time).total_seconds())
        if attempt.start_time is not None and attempt.end_time is not None:
            self.runs.add((attempt.end_time - attempt.start_time).total_seconds())
