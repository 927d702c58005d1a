"""What a dashboard is told of the jobs that it knows as tasks: eight texts for each attempt that succeeds.

Rule. The texts of an attempt are told in their order, each once, in the transaction that records what
it tells of. `AttemptRecord.updates` says how many were told, so neither a repetition of an observation nor
a restart tells one again. What an observation leaves out was passed on the way, and is told with it.
Another attempt begins anew: its ids carry another epoch.

Why. Readers of `Updates` wait for eight texts, and stop at `Done`. An attempt that did not succeed has
no `Done`: it is told that the task is tried again, has failed or was cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from control.core import lifecycle, outbox_rows
from control.core.machine_part import MachinePart
from control.core.state import AttemptRecord, JobRecord, PipelineRecord
from shoal.compat import Compat
from shoal.session.observation import Observation
from shoal.session.stage import AttemptStage

STARTED: Final = 5
"""The number of the text that says that the program was started; those before are `AttemptStage`s."""
COMPLETED: Final = 6
"""The number of the text that says that it has ended well."""


@dataclass(eq=False)
class Dashboard(MachinePart):
    """Tells a dashboard of the stages of jobs whose pipeline asks for it."""

    def observed(self, pipeline: PipelineRecord, attempt: AttemptRecord, seen: Observation) -> None:
        """Tell what an agent says of a current attempt, as far as it was not told."""
        compat = _asking(pipeline)
        if compat is None:
            return
        before = (one for one in seen.stages if one.stage <= AttemptStage.INSTALLED)
        times = {int(one.stage): one.time for one in before}
        reached = max(times, default=0)
        if seen.start_time is not None:
            times[STARTED] = seen.start_time
            reached = STARTED
        if seen.state in lifecycle.ENDED_WELL:
            if seen.end_time is not None:
                times[COMPLETED] = seen.end_time
            reached = COMPLETED
        self._tell(compat, attempt, reached, times)

    def succeeded(self, pipeline: PipelineRecord, attempt: AttemptRecord) -> None:
        """Tell the rest: the manifest of the attempt is recorded."""
        compat = _asking(pipeline)
        if compat is not None:
            self._tell(compat, attempt, len(outbox_rows.UPDATE_TEXTS), {})

    def tried_again(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Tell that an attempt did not succeed and another one follows."""
        self._end(pipeline, job, "retry", f"Trying again: {job.reason.short}", kept=False)

    def failed(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Tell that a job has failed."""
        self._end(pipeline, job, "failed", f"Task failed: {job.reason.short}", kept=True)

    def cancelled(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Tell that a job was cancelled."""
        self._end(pipeline, job, "cancelled", "Task cancelled", kept=True)

    def _tell(
        self, compat: Compat, attempt: AttemptRecord, through: int, times: Mapping[int, datetime]
    ) -> None:
        """Tell all texts up to one; one without a time of its own has that of the next."""
        if through <= attempt.updates:
            return
        now = self._situation.wall_time
        for number in range(attempt.updates + 1, through + 1):
            later = (times[one] for one in range(number, through + 1) if one in times)
            row = outbox_rows.update_message(
                compat, attempt.ref, attempt.node, number, next(later, now), now
            )
            self._change.outbox(row)
        attempt.updates = through
        self._change.attempt(attempt)

    def _end(
        self, pipeline: PipelineRecord, job: JobRecord, what: str, text: str, *, kept: bool
    ) -> None:
        compat = _asking(pipeline)
        if compat is not None:
            row = outbox_rows.end_message(
                compat, job, what, text, self._situation.wall_time, kept=kept
            )
            self._change.outbox(row)


def _asking(pipeline: PipelineRecord) -> Compat | None:
    compat = pipeline.spec.compat
    return compat if compat is not None and compat.updates_topic else None
