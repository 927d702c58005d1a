"""Order, no loss, no repeat, bounded memory, and everything drains: whatever dies on the way."""

from __future__ import annotations

import os
from functools import partial

import pytest

from services.streams.plan import Budget
from shoal.spec import Distribute
from tests.simulation.streams.world import Edge, JobShape, Shape, World

SEEDS = range(int(os.environ.get("SHOAL_SEED", "0")), int(os.environ.get("SHOAL_SEED", "0")) + 12)

SMALL = Budget(
    credit_bytes=2000,
    backlog_bytes=1500,
    memory_bytes=4000,
    spooling_bytes=1000,
    block_bytes=800,
    bulk_bytes=1400,
    segment_bytes=3000,
    ack_seconds=0.002,
    redial_seconds=0.01,
    redial_seconds_max=0.1,
)

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


def check_sinks(world: World) -> None:
    """Every round reached every sink; once, where the sink starts anew, at least once elsewhere."""
    for job in world.shape.jobs:
        if world.shape.ports(job.name):
            continue
        for replica in range(job.replicas):
            [edge] = world.shape.inputs(job.name)
            feed = world.ins[job.name, replica, edge.into]
            rounds = [number for number, _ in world.processed[job.name, replica]]
            if edge.keep:
                last = world.current[job.name, replica].epoch
                run = [
                    number for number, epoch in world.processed[job.name, replica] if epoch == last
                ]
                ends = {len(feed) - 1} if edge.ordered else set(range(len(feed)))
                deaths = world.counts.get("killed", 0) + world.counts.get("zombies", 0)
                assert run or deaths > 1, f"seed {world.seed}: nothing came"
                newest = run and run[-1] in ends
                assert newest or deaths > 1, f"seed {world.seed}: the newest did not come"
                assert not edge.ordered or run == sorted(set(run)), f"seed {world.seed}: order"
                continue
            assert set(rounds) == set(range(len(feed))), f"seed {world.seed}: lost"
            if not job.resume:
                last = world.current[job.name, replica].epoch
                run = [
                    number for number, epoch in world.processed[job.name, replica] if epoch == last
                ]
                assert run == list(range(len(feed))), f"seed {world.seed}: order"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_without_faults_everything_arrives_once(name: str, seed: int) -> None:
    world = World(SHAPES[name], seed, budget=SMALL)
    try:
        world.run(until_done=120)
    except BaseException:
        print(f"seed {seed}, shape {name}: {world.counts}")  # noqa: T201 - to run it again
        raise
    check_sinks(world)
    for key, rounds in world.processed.items():
        numbers = [number for number, _ in rounds]
        assert len(numbers) == len(set(numbers)), f"seed {seed}: {key} got a record twice"
    assert not world.counts.get("REWIND"), "a rewind without a fault"
    if name.startswith("latest"):
        assert world.counts["dropped"], "nobody was too slow"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_only_the_controller_says_that_a_consumer_is_done(name: str, seed: int) -> None:
    """A `done` from elsewhere lets no producer go: nothing is lost although consumers die later."""
    world = World(SHAPES[name], seed, budget=SMALL)
    keys = list(world.processed)
    chance = world.random
    for _ in range(8):
        world.at(chance.uniform(0.0, 0.3), partial(world.lie, 0.5))
    for _ in range(3):
        world.at(chance.uniform(0.0, 0.4), partial(world.kill, chance.choice(keys)))
    try:
        world.run(until_done=300)
    except BaseException:
        print(f"seed {seed}, shape {name}: {world.counts}")  # noqa: T201 - to run it again
        raise
    assert world.counts["lies"], "nobody lied"
    check_sinks(world)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_dies_everything_arrives(name: str, seed: int) -> None:
    world = World(SHAPES[name], seed, budget=SMALL)
    keys = list(world.processed)
    chance = world.random
    for _ in range(chance.randint(2, 10)):
        # Records flow for some 30 ms if nothing happens; what dies delays that.
        when = chance.uniform(0.0, chance.choice((0.03, 0.2, 1.0)))
        match chance.randrange(4):
            case 0 | 1:
                world.at(when, partial(world.kill, chance.choice(keys)))
            case 2:
                world.at(when, partial(world.zombie, chance.choice(keys)))
            case _:
                world.at(when, lambda: world.cut(0.5))
    world.late_kills = chance.randint(0, 4)
    world.flips = chance.choice((0.0, 0.0, 0.01))
    if chance.random() < 0.3:
        world.at(chance.uniform(0.0, 0.5), lambda: world.isolate(0.3))
    try:
        world.run(until_done=300)
    except BaseException:
        print(f"seed {seed}, shape {name}: {world.counts}")  # noqa: T201 - to run it again
        raise
    check_sinks(world)
