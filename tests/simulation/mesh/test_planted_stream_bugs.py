"""The histories of streams are worth something: each of these mistakes is found by them.

A case names a pipeline, and the seed of a history in which the mistake shows. Each history runs in a
process of its own, in which the mistake stands in the place of what it derives from.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.streams.block import Block
from services.streams.effects import Effect
from services.streams.events import CallDone, CallOpened, Event
from services.streams.machine import AttemptStreamsMachine
from services.streams.receiver import ReceiveLane
from services.streams.sender import SendLane
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.stream_world import StreamWorld
from tests.simulation.mesh.test_streams import SCALED_SHAPES, SHAPES, fail, lie, scale

UNTIL_SECONDS = 60


class TakesBlocksTwice(ReceiveLane):
    """What came before is taken again."""

    def received(self, block: Block) -> bool:
        self.expected = min(self.expected, block.first)
        return super().received(block)


class GoesOnBehindTheGap(SendLane):
    """A consumer that dials again is answered with the next record, not with the one it wants."""

    def answer(self, own_epoch: int) -> list[Effect]:
        want = 0 if self.held is None else self.held.want
        effects = super().answer(own_epoch)
        if want < self.consumed and self._want == want:
            self.consumed = self.released = self._want = self.consumed
        return effects


class ReleasesWhatWasHandedOver(SendLane):
    """What a consumer's job has is let go of, although a replacement may ask for it."""

    def opened(self, event: CallOpened, own_epoch: int) -> list[Effect]:
        self.released = max(self.released, self.consumed)
        return super().opened(event, own_epoch)


class ForgetsWhatWasHad(SendLane):
    """What a consumer had, and has not let go of, is forgotten with its call."""

    def begin(self, first: int) -> None:
        self._let_go = None if self.held is None else self._let_go
        super().begin(first)


class BelievesAnybody(AttemptStreamsMachine):
    """A `done` on a call lets a producer go, as only the controller's may."""

    def _take(self, event: Event, now: float) -> Iterator[Effect]:
        if isinstance(event, CallDone):
            lane = self._out_lanes[event.lane][0]
            yield from lane.moved(replace(lane.peer, done=True))
            return
        yield from super()._take(event, now)


class EndsWhatHasCrashed(AttemptStreamsMachine):
    """An end of file is an end, however the program ended."""

    def _conclude(self, now: float, *, succeeded: bool) -> Iterator[Effect]:
        del succeeded
        return super()._conclude(now, succeeded=True)


BUGS: tuple[tuple[type, str, int], ...] = (
    (TakesBlocksTwice, "broadcast", 0),
    (GoesOnBehindTheGap, "chain", 0),
    (ReleasesWhatWasHandedOver, "replicas", 0),
    (ForgetsWhatWasHad, "replicas", 1013),
    (BelievesAnybody, "chain", 0),
    (EndsWhatHasCrashed, "beside", 0),
)


def plant(bug: type) -> None:
    """Put a mistake in the place of what it derives from, in this process."""
    [right, *_] = bug.__bases__
    for name, module in list(sys.modules.items()):
        if name.startswith("services.streams") and getattr(module, right.__name__, None) is right:
            setattr(module, right.__name__, bug)


def found(bug: type, name: str, seed: int) -> str:
    """Return what a history with a mistake shows; nothing if it goes well."""

    def history() -> str:
        plant(bug)
        if name in SCALED_SHAPES:
            shape, jobs = SCALED_SHAPES[name]
            world = StreamWorld(shape, seed)
            scale(jobs, world)
        else:
            world = StreamWorld(SHAPES[name], seed)
        (lie if bug is BelievesAnybody else fail)(world)
        try:
            world.run(UNTIL_SECONDS)
        except AssertionError as error:
            return str(error) or "it does not hold"
        return ""

    return run_apart(history)


@pytest.mark.parametrize(("bug", "name", "seed"), BUGS)
def test_a_planted_bug_is_found(bug: type, name: str, seed: int) -> None:
    assert found(bug, name, seed)
