"""What tests of the control core are made of: specs, a clock, ids, a plane on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from shoal.model import Artifact, Capacity, JobState
from shoal.names import AttemptRef
from shoal.session.feature import Feature
from shoal.session.messages import Hello
from shoal.session.observation import Observation
from shoal.spec import Job, Output, Pipeline, StreamInput

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

FOUR_CPUS = Capacity(cpus=4.0)


class Clock:
    """A clock that goes on when the test says so; its wall clock goes with it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._set_back = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def wall(self) -> datetime:
        """The time of day."""
        return BEGAN + timedelta(seconds=self.now - self._set_back)

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, and the other one not."""
        self._set_back += seconds


def numbered_ids() -> Callable[[int], str]:
    """Ids in order, from `000000`."""
    numbers = count()
    return lambda width: f"{next(numbers):0{width}d}"


def single(name: str = "single", **changes: object) -> Pipeline:
    """A pipeline of one job."""
    return Pipeline(name=name, jobs=(Job("main", ("true",), **changes),))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def counter(replicas: int = 2, **changes: object) -> Pipeline:
    """Camera, detectors, counter: the shape of the people counter."""
    return Pipeline(
        name="counter",
        jobs=(
            Job("camera", ("camera",), outputs=(Output("frames"),), **changes),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            Job(
                "detector",
                ("detect",),
                streams=(StreamInput("frames", "camera", "frames"),),
                outputs=(Output("found"),),
                replicas=replicas,
                **changes,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            ),
            Job("counter", ("count",), streams=(StreamInput("found", "detector", "found"),)),
        ),
    )


def hello(node: str, *attempts: Observation, capacity: Capacity = FOUR_CPUS) -> Hello:
    """How the agent of a node introduces itself."""
    return Hello(
        node=node,
        agent_id=f"{node}-agent",
        capacity=capacity,
        stream_address=f"{node}:7000",
        attempts=attempts,
        says_holds=True,
        features=frozenset(Feature),
    )


def artifact(ref: AttemptRef, path: str = "results/out.csv") -> Artifact:
    """Something that an attempt stored."""
    return Artifact(path, 3, "ab" * 32, f"{ref.prefix}/out/{path}")


def seen(ref: AttemptRef, *states: JobState) -> Sequence[Observation]:
    """Observations of one attempt, with an artifact at the end if it succeeds."""
    return [
        Observation(ref, state, artifacts=(artifact(ref),) if state is JobState.SUCCEEDED else ())
        for state in states
    ]


@asynccontextmanager
async def running_plane(
    path: Path, config: PlaneConfig | None = None, clock: Clock | None = None
) -> AsyncIterator[ControlPlane]:
    """A plane with its loop running, on a real file."""
    time = clock or Clock()
    async with SqliteStore(path) as store:
        plane = ControlPlane(
            store=store,
            config=config or PlaneConfig(),
            clock=time,
            wall=time.wall,
            ids=numbered_ids(),
        )
        async with plane, asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(plane.run())
            try:
                yield plane
            finally:
                loop.cancel()
