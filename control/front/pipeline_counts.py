"""How many pipelines and jobs are in each state, counted as they change.

Theory. To count when it is asked for would cost as much as there is; here a change costs what it changes, and a
question costs as much as there are different answers: creators, states, and dead letters or not.

Invariant. The counts are the sums over `_standings`, which has each pipeline once, as it was shown last. What was shown
since is folded in when it is asked for, or when there is much of it: a pipeline of 20,000 jobs that changes a thousand
times is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from control.core.standing import Standing
from shoal.model import DeadLetter, JobState, PipelineState
from shoal.names import PipelineRef
from shoal.pipeline_filter import PipelineFilter
from shoal.text_pattern import text_fits
from shoal.view import PipelineTotals, PipelineView

FOLDED_AT: Final = 1_000
"""So many pipelines that changed are folded in without being asked for."""

KeyT = TypeVar("KeyT")
_Kind = tuple[str, str, PipelineState, DeadLetter]


class PipelineSums:
    """Totals that grow."""

    def __init__(self) -> None:
        self.pipelines: Counter[PipelineState] = Counter()
        self.jobs: Counter[JobState] = Counter()
        self.dead_letters = 0

    def add(self, state: PipelineState, dead_letter: DeadLetter, count: int) -> None:
        """Count so many pipelines."""
        self.pipelines[state] += count
        if dead_letter is DeadLetter.KEPT:
            self.dead_letters += count

    def totals(self) -> PipelineTotals:
        """What was counted so far."""
        return PipelineTotals(
            dict(sorted(self.pipelines.items())), dict(sorted(self.jobs.items())), self.dead_letters
        )


class PipelineCounts:
    """Counts pipelines by namespace, creator, state and dead letter, and their jobs by state.

    Args:
        standings: how all pipelines stand that there are at first.
    """

    def __init__(self, standings: Mapping[PipelineRef, Standing]) -> None:
        self._standings: dict[PipelineRef, Standing] = {}
        self._shown: dict[PipelineRef, PipelineView] = {}
        self._pipelines: Counter[_Kind] = Counter()
        self._jobs: Counter[tuple[_Kind, JobState]] = Counter()
        for ref, standing in standings.items():
            self._put(ref, standing)

    def show(self, ref: PipelineRef, view: PipelineView) -> None:
        """A pipeline is so from now on."""
        self._shown[ref] = view
        if len(self._shown) > FOLDED_AT:
            self._fold()

    def forget(self, ref: PipelineRef) -> None:
        """A pipeline is there no more."""
        self._shown.pop(ref, None)
        if (standing := self._standings.pop(ref, None)) is not None:
            self._count(ref.namespace, standing, -1)

    def totals(self, namespace: str, asked: PipelineFilter) -> PipelineTotals:
        """Count those of a namespace by what a filter asks of creators, states and dead letters."""
        self._fold()
        sums = PipelineSums()
        kinds = {kind for kind in self._pipelines if _is_asked(kind, namespace, asked)}
        for kind in kinds:
            sums.add(kind[2], kind[3], self._pipelines[kind])
        for (kind, state), count in self._jobs.items():
            if kind in kinds:
                sums.jobs[state] += count
        return sums.totals()

    def add_to(
        self, sums: PipelineSums, refs: Iterable[PipelineRef], asked: PipelineFilter
    ) -> None:
        """Count these as they are now, those of them that still stand as it is asked for."""
        self._fold()
        for ref in refs:
            standing = self._standings.get(ref)
            if standing is None or not _stands(standing, asked):
                continue
            sums.add(standing.state, standing.dead_letter, 1)
            for state, count in standing.jobs:
                sums.jobs[state] += count

    def _fold(self) -> None:
        shown, self._shown = self._shown, {}
        for ref, view in shown.items():
            self._put(ref, Standing.of(view))

    def _put(self, ref: PipelineRef, standing: Standing) -> None:
        before = self._standings.get(ref)
        if before == standing:
            return
        if before is not None:
            self._count(ref.namespace, before, -1)
        self._standings[ref] = standing
        self._count(ref.namespace, standing, 1)

    def _count(self, namespace: str, standing: Standing, sign: int) -> None:
        kind = (namespace, *standing[:3])
        _add(self._pipelines, kind, sign)
        for state, count in standing.jobs:
            _add(self._jobs, (kind, state), sign * count)


def _add(counter: Counter[KeyT], key: KeyT, more: int) -> None:
    """Count, and let go of what there is none of any more: creators come and go."""
    counter[key] += more
    if not counter[key]:
        del counter[key]


def _is_asked(kind: _Kind, namespace: str, asked: PipelineFilter) -> bool:
    of_namespace, creator, state, dead_letter = kind
    return (
        of_namespace == namespace
        and text_fits(asked.creator, creator)
        and (not asked.states or state in asked.states)
        and (not asked.dead_letters or dead_letter is DeadLetter.KEPT)
    )


def _stands(standing: Standing, asked: PipelineFilter) -> bool:
    return (not asked.states or standing.state in asked.states) and (
        not asked.dead_letters or standing.dead_letter is DeadLetter.KEPT
    )
