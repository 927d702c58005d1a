"""Which pipelines a list, a count or a watch is about.

Rule. All that is set has to hold. The first half, what `lasts`, is decided when a pipeline is submitted: its name, its
labels, its creator and its time. The second half, how it `stands`, may change: its state, whether it is a dead letter,
and where its attempts are.

Why two halves: a watch tells its reader of a pipeline that matches no longer. Which ones the reader was shown it does
not remember, which would cost memory for each, and would be forgotten with the controller. It tells of each change of a
pipeline of which what lasts does match, and leaves it to the reader whether it knew that one.

Example: a filter for failed pipelines of `ann`. A submission of `ann` is told as unlisted, and so is its start; once it
has failed, it is told. A pipeline of `bob` is never told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shoal.model import DeadLetter, PipelineState, no_strings
from shoal.text_pattern import text_fits
from shoal.view import PipelineSummary, PipelineView, Unlisted


@dataclass(frozen=True, slots=True)
class PipelineFilter:
    """Which pipelines are meant; the empty one means all.

    `name` is a part of the name in the specification, or a pattern of all of it with `*` or `?`; `creator` likewise one
    of the identity that submitted it. `labels` have these values, or any, where a value is empty. It was submitted at
    `since_time` or later, and before `until_time`; both are aware. On `node` it has an attempt that has not ended.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=no_strings)
    creator: str = ""
    states: frozenset[PipelineState] = frozenset()
    since_time: datetime | None = None
    until_time: datetime | None = None
    dead_letters: bool = False
    node: str = ""

    @property
    def only_standing(self) -> bool:
        """Whether nothing is asked but creators, states and dead letters, which are counted as they change."""
        asked = self.name or self.labels or self.node
        return not asked and self.since_time is None and self.until_time is None

    def lasts(self, one: PipelineView | PipelineSummary | Unlisted) -> bool:
        """Whether what never changes of a pipeline is as it is asked for; of one that was forgotten it may be."""
        if isinstance(one, Unlisted):
            return True
        created = one.create_time
        if created is not None:
            if self.since_time is not None and created < self.since_time:
                return False
            if self.until_time is not None and created >= self.until_time:
                return False
        if self.name and not text_fits(self.name, one.spec_name):
            return False
        if self.creator and not text_fits(self.creator, one.creator):
            return False
        return not self.labels or all(
            key in one.labels and value in {"", one.labels[key]}
            for key, value in self.labels.items()
        )

    def stands(self, one: PipelineView | PipelineSummary | Unlisted) -> bool:
        """Whether what changes of a pipeline is as it is asked for; a summary does not say where its attempts are."""
        if isinstance(one, Unlisted):
            return False
        if self.states and one.state not in self.states:
            return False
        if self.dead_letters and one.dead_letter is not DeadLetter.KEPT:
            return False
        if not self.node or isinstance(one, PipelineSummary):
            return True
        return any(
            job.node == self.node and not job.attempts[-1].state.terminal for job in one.jobs
        )

    def matches(self, one: PipelineView | PipelineSummary | Unlisted) -> bool:
        """Whether a pipeline is meant as it is now."""
        return self.stands(one) and self.lasts(one)


EVERY_PIPELINE = PipelineFilter()
"""Means all."""
