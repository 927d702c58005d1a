"""Jobs get other numbers of replicas in the middle of their streams, among kills and broken links."""

from __future__ import annotations

import os
from functools import partial

import pytest

from tests.simulation.streams.scaling_world import ScalingWorld
from tests.simulation.streams.test_streams_world import SMALL
from tests.simulation.streams.world import Edge, JobShape, Shape

SEEDS = range(int(os.environ.get("SHOAL_SEED", "0")), int(os.environ.get("SHOAL_SEED", "0")) + 3)
FOUND = (130, 325, 449)
"""Seeds that have shown a mistake: a spool that stood still, a digest of what was passed over."""

ONE = Shape(
    (
        JobShape("source", records=240, pace=0.002),
        JobShape("worker", resume=True, plain=True, replicas=2),
        JobShape("sink"),
    ),
    (Edge("source", "out", "worker", "in"), Edge("worker", "out", "sink", "in", block_count=3)),
)
TWO = Shape(
    (
        JobShape("source", records=70, pace=0.006, replicas=3),
        JobShape("first", resume=True, plain=True),
        JobShape("second", resume=True, plain=True, replicas=3),
        JobShape("gather", resume=True, plain=True),
        JobShape("sink"),
    ),
    (
        Edge("source", "out", "first", "in"),
        Edge("first", "out", "second", "in"),
        Edge("second", "out", "gather", "in"),
        Edge("gather", "out", "sink", "in"),
    ),
)
BESIDE = Shape(
    (
        JobShape("left", records=200, pace=0.002),
        JobShape("right", records=200, pace=0.002, resume=True),
        JobShape("worker", resume=True, plain=True),
        JobShape("sink"),
        JobShape("other"),
    ),
    (
        Edge("left", "out", "worker", "left"),
        Edge("right", "out", "worker", "right"),
        Edge("right", "out", "other", "in"),
        Edge("worker", "out", "sink", "in"),
    ),
)
SHAPES = {
    "one": (ONE, ("worker",)),
    "two": (TWO, ("first", "second", "gather")),
    "beside": (BESIDE, ("worker",)),
}


def run(world: ScalingWorld, name: str) -> None:
    """Let the world run to its end, and look at what the sinks had; every record is checked there."""
    try:
        world.run(until_done=300)
    except BaseException:
        print(f"seed {world.seed}, shape {name}: {world.counts}")  # noqa: T201 - to run it again
        raise
    for job in world.shape.jobs:
        if not world.shape.ports(job.name):
            [edge] = world.shape.inputs(job.name)
            last = world.current[job.name, 0].epoch
            rounds = [number for number, epoch in world.processed[job.name, 0] if epoch == last]
            count = -(-len(world.whole(edge)) // edge.block_count)
            assert rounds == list(range(count)), f"seed {world.seed}: order"


def scales(world: ScalingWorld, jobs: tuple[str, ...], latest: float) -> None:
    for _ in range(world.random.randint(1, 4)):
        when = world.random.uniform(0.0, latest)
        job, replicas = world.random.choice(jobs), world.random.randint(1, 4)
        world.at(when, partial(world.scale, job, replicas))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_scaled_stream_is_the_undisturbed_one(name: str, seed: int) -> None:
    shape, jobs = SHAPES[name]
    world = ScalingWorld(shape, seed, budget=SMALL)
    scales(world, jobs, 0.3)
    run(world, name)
    assert not world.counts.get("REWIND"), "a rewind without a fault"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", [*SEEDS, *FOUND])
def test_a_scaled_stream_survives_whatever_dies(name: str, seed: int) -> None:
    """Case F16, while jobs are being scaled."""
    shape, jobs = SHAPES[name]
    world = ScalingWorld(shape, seed, budget=SMALL)
    scales(world, jobs, 0.8)
    chance = world.random
    for _ in range(chance.randint(1, 8)):
        when = chance.uniform(0.0, 1.0)

        def fault(kind: int = chance.randrange(5), draw: float = chance.random()) -> None:
            keys = sorted(world.current)
            key = keys[int(draw * len(keys))]
            match kind:
                case 0 | 1 | 2:
                    world.kill(key)
                case 3:
                    world.zombie(key)
                case _:
                    world.cut(0.5)

        world.at(when, fault)
    world.late_kills = chance.randint(0, 3)
    run(world, name)


def test_most_scales_are_settled() -> None:
    """Else the tests above would show little."""
    settled = 0
    for seed in range(4):
        world = ScalingWorld(ONE, seed, budget=SMALL)
        scales(world, ("worker",), 0.2)
        run(world, "one")
        settled += world.counts.get("SETTLED", 0)
    assert settled >= 3, settled
