"""The histories of streams are worth something: each of these mistakes is found by them.

A case names a pipeline, and the seed of a history in which the mistake shows. Each history runs in a
process of its own, in which the mistake stands in the place of what it derives from.

That what a consumer had is not forgotten with its call is proved by `tests/unit/streams/test_machine.py`: the
moment in which it has to die is some milliseconds long.
"""

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
from tests.simulation.mesh import stream_worker
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.shapes import SCALED, SHAPES
from tests.simulation.mesh.story import HARD_ON_SCALES, HARD_ON_STREAMS, LIES, Faults
from tests.simulation.mesh.test_stream_parts import passed, tear
from tests.simulation.mesh.world import history


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


class BelievesAnybody(AttemptStreamsMachine):
    """A `done` on a call lets a producer go, as only the controller's may.

    In a cluster with identity the ticket of a lane between jobs refuses it before; so this is planted in one
    that is insecure.
    """

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


BUGS: tuple[tuple[type, str, Faults, int], ...] = (
    (TakesBlocksTwice, "broadcast", HARD_ON_STREAMS, 201),
    (GoesOnBehindTheGap, "chain", HARD_ON_STREAMS, 14),
    (BelievesAnybody, "chain", LIES, 3),
    (EndsWhatHasCrashed, "beside", HARD_ON_SCALES, 11),
)


def plant(bug: type) -> None:
    """Put a mistake in the place of what it derives from, in this process."""
    [right, *_] = bug.__bases__
    for name, module in list(sys.modules.items()):
        if name.startswith("services.streams") and getattr(module, right.__name__, None) is right:
            setattr(module, right.__name__, bug)


def insecure(_node: str) -> None:
    """Check no tickets, as in a cluster without identity."""


@pytest.mark.parametrize(("bug", "name", "faults", "seed"), BUGS)
def test_a_planted_bug_is_found(bug: type, name: str, faults: Faults, seed: int) -> None:
    def problem() -> str:
        plant(bug)
        if bug is BelievesAnybody:
            setattr(stream_worker, "node_proof", insecure)  # noqa: B010 - it is not exported
        return history(seed, faults, given=(SHAPES | SCALED)[name]).problem

    assert run_apart(problem)


@pytest.mark.parametrize("planted", [False, True])
def test_a_producer_goes_on_although_its_consumer_dials_again_and_then_dies(
    planted: bool,  # noqa: FBT001 - a case
) -> None:
    """With the mistake it has to be run again: random histories show that as lanes that never end."""

    def attempts() -> list[int]:
        if planted:
            plant(ReleasesWhatWasHandedOver)
        return passed(1, tear, lambda world: world.boards[1].kill_worker()).attempts

    assert run_apart(attempts) == ([2, 2] if planted else [1, 2])
