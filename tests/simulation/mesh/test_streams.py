"""Order, no loss, no repeat, bounded memory, and everything drains: whatever dies on the way.

Each case runs a few histories, in a child of its own; SHOAL_SEED says with which seed to begin, and
SHOAL_SEEDS how many times as many there are (20 of it take a quarter of an hour).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from shoal.spec import Distribute
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.stream_shape import Edge, JobShape, Shape
from tests.simulation.mesh.stream_world import StreamWorld

FIRST = int(os.environ.get("SHOAL_SEED", "0"))
TIMES = int(os.environ.get("SHOAL_SEEDS", "1"))
UNTIL_SECONDS = 600

CHAIN = Shape(
    (JobShape("source", records=400), JobShape("map", resume=True), JobShape("sink")),
    (Edge("source", "out", "map", "in"), Edge("map", "out", "sink", "in")),
)
STATEFUL = Shape(
    (JobShape("source", records=300), JobShape("map"), JobShape("sink")),
    (Edge("source", "out", "map", "in"), Edge("map", "out", "sink", "in")),
)
LONG = Shape(
    (
        JobShape("source", records=200),
        JobShape("a", resume=True),
        JobShape("b", resume=True),
        JobShape("c", resume=True),
        JobShape("sink", resume=True),
    ),
    (
        Edge("source", "out", "a", "in"),
        Edge("a", "out", "b", "in"),
        Edge("b", "out", "c", "in"),
        Edge("c", "out", "sink", "in"),
    ),
)
DIAMOND = Shape(
    (
        JobShape("source", records=241),
        JobShape("left", resume=True),
        JobShape("right"),
        JobShape("join", resume=True),
        JobShape("sink"),
        JobShape("other"),
    ),
    (
        Edge("source", "out", "left", "in"),
        Edge("source", "out", "right", "in", block_count=3),
        Edge("left", "out", "join", "left", block_count=3),
        Edge("right", "out", "join", "right"),
        Edge("join", "out", "sink", "in"),
        Edge("join", "out", "other", "in"),
    ),
)
SHORT_ROUNDS = Shape(
    (JobShape("source", records=100), JobShape("map", resume=True), JobShape("sink")),
    (Edge("source", "out", "map", "in", block_count=7), Edge("map", "out", "sink", "in")),
)
REPLICAS = Shape(
    (
        JobShape("source", records=301, replicas=2, headers=True),
        JobShape("worker", resume=True, replicas=3, headers=True),
        JobShape("gather", resume=True),
        JobShape("sink"),
    ),
    (
        Edge("source", "out", "worker", "in"),
        Edge("worker", "out", "gather", "in"),
        Edge("gather", "out", "sink", "in"),
    ),
)
BROADCAST = Shape(
    (
        JobShape("source", records=150, replicas=2),
        JobShape("worker", resume=True, replicas=2),
        JobShape("sink", replicas=2, resume=True),
    ),
    (
        Edge("source", "out", "worker", "in", Distribute.BROADCAST),
        Edge("worker", "out", "sink", "in"),
    ),
)
BY_KEY = Shape(
    (
        JobShape("source", records=300, keys=9),
        # It asks to resume, and cannot: its replacement begins anew, and nobody sees it.
        JobShape("split", resume=True, keys=7),
        JobShape("count", resume=True, replicas=3),
        JobShape("sink"),
    ),
    (
        Edge("source", "out", "split", "in"),
        Edge("split", "out", "count", "in", Distribute.KEY),
        Edge("count", "out", "sink", "in", ordered=False),
    ),
)
BY_KEY_TO_ALL = Shape(
    (
        JobShape("source", records=200, replicas=2, keys=11),
        JobShape("two", replicas=2),
        JobShape("three", replicas=3),
        JobShape("one", resume=True),
    ),
    (
        Edge("source", "out", "two", "in", Distribute.KEY, ordered=False),
        Edge("source", "out", "three", "in", Distribute.KEY, ordered=False),
        Edge("source", "out", "one", "in", Distribute.KEY),
    ),
)
LATEST = Shape(
    (
        JobShape("source", records=150, keys=5),
        JobShape("sink"),
        JobShape("view"),
        JobShape("views", replicas=2),
        JobShape("by-key", replicas=2),
    ),
    (
        Edge("source", "out", "sink", "in"),
        Edge("source", "out", "view", "in", keep=1),
        Edge("source", "out", "views", "in", keep=3),
        Edge("source", "keys", "by-key", "in", Distribute.KEY, keep=2),
    ),
)
LATEST_ALONE = Shape(
    (
        JobShape("source", records=150, resume=True),
        JobShape("view"),
        JobShape("numbers", records=90, replicas=2),
        JobShape("map", resume=True, replicas=2),
        JobShape("other"),
    ),
    (
        Edge("source", "out", "view", "in", keep=2),
        Edge("numbers", "out", "map", "in"),
        Edge("map", "out", "other", "in", ordered=False, keep=4),
    ),
)
LARGE_RECORDS = Shape(
    (
        JobShape("source", records=40, record_bytes=2600),  # above the credit
        JobShape("map", resume=True, record_bytes=900, replicas=2),
        JobShape("gather", record_bytes=1500),
        JobShape("sink"),
    ),
    (
        Edge("source", "out", "map", "in"),
        Edge("map", "out", "gather", "in"),
        Edge("gather", "out", "sink", "in"),
    ),
)
SHAPES = {
    "large records": LARGE_RECORDS,
    "chain": CHAIN,
    "stateful": STATEFUL,
    "long": LONG,
    "diamond": DIAMOND,
    "short rounds": SHORT_ROUNDS,
    "replicas": REPLICAS,
    "broadcast": BROADCAST,
    "latest": LATEST,
    "latest alone": LATEST_ALONE,
    "by key": BY_KEY,
    "by key to all": BY_KEY_TO_ALL,
}

SCALED = Shape(
    (
        JobShape("source", records=240, pace=0.002),
        JobShape("worker", resume=True, plain=True, replicas=2),
        JobShape("sink"),
    ),
    (Edge("source", "out", "worker", "in"), Edge("worker", "out", "sink", "in", block_count=3)),
)
SCALED_TWICE = Shape(
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
SCALED_BESIDE = Shape(
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
SCALED_SHAPES = {
    "one": (SCALED, ("worker",)),
    "two": (SCALED_TWICE, ("first", "second", "gather")),
    "beside": (SCALED_BESIDE, ("worker",)),
}


def seeds(count: int) -> range:
    """Return the seeds of a case."""
    return range(FIRST, FIRST + count * TIMES)


def histories(
    shape: Shape, every: Iterable[int], prepare: Callable[[StreamWorld], None]
) -> Counter[str]:
    """Run a history for each seed, check it, and return what has happened in all of them."""

    def all_of_them() -> Counter[str]:
        counts: Counter[str] = Counter()
        for seed in every:
            world = StreamWorld(shape, seed)
            prepare(world)
            world.run(UNTIL_SECONDS)
            counts.update(world.counts)
        return counts

    return run_apart(all_of_them)


def fail(world: StreamWorld) -> None:
    """Plan what dies, and what breaks."""
    chance = world.rng
    # Records flow for some tenths of a second if nothing happens; what dies delays that.
    latest = chance.choice((0.1, 0.5, 1.5))
    for _ in range(chance.randint(2, 10)):
        when, job, draw = chance.uniform(0.0, latest), chance.choice(world.keys()), chance.random()
        match chance.randrange(8):
            case 0 | 1 | 2:
                world.at(when, partial(world.kill, job))
            case 3 | 4:
                world.at(when, partial(world.zombie, job))
            case 5:
                world.at(when, partial(world.kill_worker, draw))
            case 6:
                world.at(when, partial(world.lose_power, draw))
            case _:
                world.at(when, partial(world.cut, 0.5))
    world.late_kills = chance.randint(0, 4)
    if chance.random() < 0.3:
        world.at(0.0, partial(world.flip, 0.01))
    if chance.random() < 0.3:
        seconds = chance.uniform(0.3, 5.0)
        world.at(chance.uniform(0.0, 0.5), partial(world.isolate, chance.random(), seconds))


def scale(jobs: tuple[str, ...], world: StreamWorld) -> None:
    """Plan other numbers of replicas."""
    for _ in range(world.rng.randint(1, 4)):
        when, job = world.rng.uniform(0.0, 0.8), world.rng.choice(jobs)
        world.at(when, partial(world.scale, job, world.rng.randint(1, 4)))


def lie(world: StreamWorld) -> None:
    """Plan that consumers which are not done are said to be, and that some die."""
    for _ in range(8):
        world.at(world.rng.uniform(0.0, 0.5), partial(world.lie, 0.5))
    for _ in range(3):
        job = world.rng.choice(world.keys())
        world.at(world.rng.uniform(0.0, 0.6), partial(world.kill, job))


@pytest.mark.parametrize("name", SHAPES)
def test_without_faults_everything_arrives_once(name: str) -> None:
    counts = histories(SHAPES[name], seeds(2), lambda _: None)
    assert not counts["REWIND"], "a rewind without a fault"
    assert not counts["repeated"], "a program went through a round twice"
    if name.startswith("latest"):
        assert counts["dropped"], "nobody was too slow"


@pytest.mark.parametrize("name", SHAPES)
def test_only_the_controller_says_that_a_consumer_is_done(name: str) -> None:
    """A `done` from elsewhere lets no producer go: nothing is lost although consumers die later."""
    counts = histories(SHAPES[name], seeds(2), lie)
    assert counts["lies"], "nobody lied"


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_dies_everything_arrives(name: str) -> None:
    counts = histories(SHAPES[name], seeds(6), fail)
    assert counts["killed"], "nothing died"


@pytest.mark.parametrize("name", SCALED_SHAPES)
def test_a_scaled_stream_is_the_undisturbed_one(name: str) -> None:
    shape, jobs = SCALED_SHAPES[name]
    counts = histories(shape, seeds(3), partial(scale, jobs))
    assert counts["SETTLED"], "no scale was settled"
    assert not counts["REWIND"], "a rewind without a fault"


@pytest.mark.parametrize("name", SCALED_SHAPES)
def test_a_scaled_stream_survives_whatever_dies(name: str) -> None:
    shape, jobs = SCALED_SHAPES[name]

    def prepare(world: StreamWorld) -> None:
        scale(jobs, world)
        fail(world)

    counts = histories(shape, seeds(5), prepare)
    assert counts["killed"], "nothing died"


def test_most_scales_are_settled() -> None:
    """Else the tests above would show little."""
    counts = histories(SCALED, range(4), partial(scale, ("worker",)))
    assert counts["SETTLED"] >= 3, counts
