"""Dead letters: pipelines of which a job failed for good, kept until a person revives or discards them.

Rule. A pipeline that ends as FAILED is a dead letter. Its rows stay, with every attempt's node, times, reason
and last words, beyond the number of ended pipelines that are remembered. It is revived by a new pipeline of
the same specification and bundle, or discarded; from then on it is forgotten as others are.

Why a new pipeline: epochs of a job only rise, a pipeline ends once, with one final event, and its manifest is
committed once. What was told of it stays true.

Invariant: a letter is revived at most once. The answer to a second call names the pipeline that the first one made.

Bound: beyond `dead_letters_max`, or after `dead_letter_seconds`, the letter that died first is forgotten at
once, and that is told by an event. The wall clock counts, as a letter outlives the controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from control.core import events, outbox_rows
from control.core.answers import Refusal, RefusalCode, Submission
from control.core.effects import Taken
from control.core.errors import UnknownPipelineError, unknown_pipeline
from control.core.machine_part import MachinePart
from control.core.state import PipelineRecord
from shoal.model import DeadLetter
from shoal.names import PipelineRef

_LOOK_SECONDS: Final = 3600.0
"""The wall clock may be set meanwhile."""

Submit = Callable[[Submission, events.Revive], Taken | Refusal]
"""Records a pipeline that runs a dead letter again."""


@dataclass(eq=False)
class LetterOffice(MachinePart):
    """Revives, discards and forgets dead letters."""

    _submit: Submit

    def revive(self, event: events.Revive) -> Taken | Refusal | UnknownPipelineError:
        """Run the specification of a dead letter again, once."""
        pipeline = self._cluster.pipeline(event.ref)
        if pipeline is None:
            return unknown_pipeline(event.ref)
        if pipeline.dead_letter is DeadLetter.REVIVED:
            return Taken(PipelineRef(event.ref.namespace, pipeline.revived_by), repeated=True)
        if pipeline.dead_letter is not DeadLetter.KEPT:
            return _refused(pipeline)
        # It gets the files that were found for the first one.
        submission = Submission(
            event.ref.namespace,
            "",
            pipeline.spec,
            listings=pipeline.listings,
            stored=pipeline.stored,
        )
        taken = self._submit(submission, event)
        if isinstance(taken, Taken):
            pipeline.revived_by = taken.ref.pipeline
            self._let_go(pipeline, DeadLetter.REVIVED)
        return taken

    def discard(self, event: events.Discard) -> Refusal | UnknownPipelineError | None:
        """Let a dead letter be forgotten as other pipelines are; one that was discarded stays so.

        One that was revived is refused, and the answer names the pipeline that runs in its place.
        """
        pipeline = self._cluster.pipeline(event.ref)
        if pipeline is None:
            return unknown_pipeline(event.ref)
        if pipeline.dead_letter in {DeadLetter.NONE, DeadLetter.REVIVED}:
            return _refused(pipeline)
        if pipeline.dead_letter is DeadLetter.KEPT:
            self._let_go(pipeline, DeadLetter.DISCARDED)
            self._tell(pipeline.ref, "a person discarded it")
        return None

    def forget_over(self) -> None:
        """Forget the letters that died first, where there are too many, and those that are too old."""
        dead = self._situation.dead
        while dead:
            ref, time = next(iter(dead.items()))
            days = self._config.dead_letter_seconds / 86_400
            if len(dead) > self._config.dead_letters_max:
                why = f"more than {self._config.dead_letters_max} dead letters are kept"
            elif self._situation.wall_time - time >= self._kept_for:
                why = f"it is kept for {days:g} days"
            else:
                return
            del dead[ref]
            self._cluster.pipelines.pop(ref, None)
            self._change.forgotten(ref)
            self._tell(ref, why)

    def deadline(self) -> float | None:
        """When the first one may be over."""
        first = next(iter(self._situation.dead.values()), None)
        if first is None:
            return None
        left = (first + self._kept_for - self._situation.wall_time).total_seconds()
        return self._situation.now + min(max(left, 0.0), _LOOK_SECONDS)

    @property
    def _kept_for(self) -> timedelta:
        return timedelta(seconds=self._config.dead_letter_seconds)

    def _let_go(self, pipeline: PipelineRecord, letter: DeadLetter) -> None:
        pipeline.dead_letter = letter
        self._situation.dead.pop(pipeline.ref, None)
        self._situation.ended[pipeline.ref] = None
        self._change.pipeline(pipeline)

    def _tell(self, ref: PipelineRef, why: str) -> None:
        self._change.outbox(outbox_rows.letter_discarded(ref, why, self._situation.wall_time))


def _refused(pipeline: PipelineRecord) -> Refusal:
    name, state = pipeline.ref.name, pipeline.state.name.lower()
    why = {
        DeadLetter.DISCARDED: "was discarded",
        DeadLetter.REVIVED: f"was revived as {pipeline.revived_by}",
    }.get(pipeline.dead_letter, f"is {state}, and no job of it has failed for good")
    return Refusal(
        RefusalCode.FAILED_PRECONDITION,
        "NO_DEAD_LETTER",
        f"{name} {why}: `shoal dlq` lists the dead letters; submit its specification to run it again",
        {"pipeline": name},
    )
