"""The sources of a pipeline that is finishing are brought to their ends (control.core.finishing)."""

from __future__ import annotations

from control.core import finishing
from control.core.machine_part import MachinePart
from control.core.situation import Situation
from control.core.state import PipelineRecord


class Sources(MachinePart):
    """Holds the sources of finishing pipelines, and records where they end.

    Args:
        situation: What is shared.
        term: The start of the controller, which numbers the holds.
    """

    def __init__(self, situation: Situation, term: int) -> None:
        super().__init__(situation)
        self._hold_number = finishing.hold_number(term)

    def end(self, pipeline: PipelineRecord) -> None:
        """Bring the sources of a pipeline that is finishing nearer to their ends (control.core.finishing)."""
        if pipeline.finish_time is None or pipeline.stop is not None:
            return
        for job in finishing.sources(pipeline):
            attempt = job.attempt
            if attempt is None or job.ends is not None:
                continue
            if unheard := self._situation.unheard(attempt):
                self._situation.wait_for(attempt, f"it ends once it can be said where: {unheard}")
                continue
            if not attempt.held:
                seen = finishing.seen_end(pipeline, job)
                if seen:
                    self._situation.wait_for(attempt, seen)
                    continue
                repeating = finishing.repeating(pipeline, job)
                if repeating:
                    why = f"it ends once {repeating} has sent again what was sent before"
                    self._situation.wait_for(attempt, why)
                    continue
                self._situation.wait_for(attempt, "")
                attempt.held = self._hold_number
            elif finishing.ends(pipeline, job) is None:
                continue
            ends = finishing.ends(pipeline, job)
            if ends is not None:
                attempt.held, job.ends = 0, ends
                self._change.job(pipeline, job)
            attempt.assignment = None
            self._change.set_desired(attempt.node)
