"""A history whose faults are written down, and not drawn: for tests of one thing each."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from control.core.answers import Submission, SubmitResult
from control.front.control_plane import ControlPlane
from shoal.model import JobState, PipelineState
from shoal.names import PipelineRef
from shoal.spec import Job, Pipeline
from shoal.view import PipelineView
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.board import Board
from tests.simulation.mesh.story import CALM, Story
from tests.simulation.mesh.world import World

DEADLINE_SECONDS = 600.0


class Play(World):
    """A world that does what it is told, and that holds every invariant, too."""

    def __init__(self, seed: int, boards: int = 1) -> None:
        frame = Story(boards, 0.0, lease_seconds=6.0, gossips=False, pipelines=0, cpus=4.0)
        super().__init__(seed, CALM, frame=frame)
        self.ref = PipelineRef("default", "unknown")

    @property
    def board(self) -> Board:
        """The first board."""
        return self.boards[0]

    @property
    def plane(self) -> ControlPlane:
        """The control plane."""
        assert self.controller.plane is not None
        return self.controller.plane

    @property
    def view(self) -> PipelineView:
        """The pipeline."""
        return self.plane.shown.pipeline(self.ref)

    async def begin(self, *jobs: Job, prefetch: str = "") -> None:
        """Start everything, and submit; `prefetch` is the digest of a bundle that is fetched at once."""
        self._begin().cancel()
        await self.until(lambda: self.controller.plane is not None)
        await self.until(lambda: len(self.plane.shown.nodes()) == len(self.boards))
        spec = Pipeline("p", jobs, prefetch, prefetch=bool(prefetch))
        [done] = await self.plane.submit([Submission("default", "r", spec)])
        assert isinstance(done, SubmitResult), done
        self.ref = PipelineRef("default", done.view.id)

    async def until(self, true: Callable[[], bool], look_seconds: float = 0.05) -> None:
        """Let time pass until something is so."""
        give_up_at = self.loop.time() + DEADLINE_SECONDS
        while not true():
            assert self.loop.time() < give_up_at, self._unsettled()
            await asyncio.sleep(look_seconds)

    async def state(self, state: JobState) -> None:
        """Wait until the first job is so far."""
        await self.until(lambda: self.view.jobs[0].state is state)

    async def end(self) -> tuple[PipelineState, list[int]]:
        """Wait for the end of it all, and say how it went: its state, and attempts by job."""
        await self.until(self._settled)
        await self.until(lambda: all(board.idle for board in self.boards))
        self._check_end()
        assert self.network.failures == []
        return self.view.state, [len(job.attempts) for job in self.view.jobs]


def run(play: Callable[[Play], Coroutine[Any, Any, Any]], seed: int, boards: int = 1) -> Any:
    """Play in a world of its own, in a child."""

    def work() -> Any:
        world = Play(seed, boards)
        return world.loop.run_until_complete(world.loop.create_task(play(world)))

    return run_apart(work)
