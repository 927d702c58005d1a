"""What happens in one history: its boards, its pipelines, its faults, drawn from the seed."""

from dataclasses import dataclass, fields, replace
from hashlib import sha256
from random import Random
from typing import Any

from shoal.compat import Compat
from shoal.sandbox import Claim, Sandbox
from shoal.spec import ArchiveOn, Distribute, Job, Pipeline, Placement, Resources, Retry
from tests.simulation.mesh.pinned import FOLDER
from tests.simulation.mesh.program import FILLED_BYTES, TAKES_TOO_MUCH
from tests.simulation.mesh.stream_shape import Edge, JobShape, Shape

USUAL_LEASE_SECONDS = 6.0
ENDLESS = 1_000_000
"""As many records as a source has that ends when it is told to."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong, each as a weight in the lottery that is held every `every_seconds`."""

    every_seconds: float = 0.5
    cut: float = 2.0
    cut_one_way: float = 1.0
    tear: float = 1.5
    slow: float = 0.5
    lossy: float = 0.5
    down_seconds: float = 9.0
    agent_crash: float = 2.0
    worker_crash: float = 1.5
    keeper_crash: float = 0.7
    power_cut: float = 0.8
    power_cut_synced: float = 0.5
    disk_lost: float = 0.3
    agent_freeze: float = 0.7
    worker_freeze: float = 0.5
    board_freeze: float = 0.4
    controller_crash: float = 1.5
    controller_freeze: float = 0.5
    rumour: float = 0.5
    clock_jump: float = 1.0
    store_fails: float = 0.3
    archive_errors: float = 0.7
    archive_away: float = 0.3
    broker_drop: float = 0.7
    broker_away: float = 0.4
    drain: float = 0.4
    cancel: float = 0.4
    finish: float = 0.6
    scale: float = 1.2
    submit: float = 1.2
    nothing: float = 0.5
    failing_programs: float = 0.1
    """Which part of all programs ends badly."""
    board_dies: float = 0.15
    """How often a board never comes back."""
    program_crash: float = 0.0
    tear_some: float = 0.0
    flip: float = 0.0
    lie: float = 0.0
    late_crash: float = 0.0
    """How often a stream worker dies just after a program has ended well there."""
    nothing_is_lost: bool = False
    """Whether a loss is a mistake: boards and links work, or fail for less than the tolerance."""
    controller_suspends: bool = False
    """Whether it is the controller's machine that stands still, and not its process alone."""
    leased_programs: bool = True
    """Whether there are jobs that their node ends by itself when its lease is not renewed."""


_NONE: dict[str, Any] = {one.name: 0.0 for one in fields(Faults) if isinstance(one.default, float)}
_NONE["every_seconds"] = 1e9
CALM = Faults(**_NONE)
"""Nothing goes wrong."""

SHORT_CUTS = Faults(
    every_seconds=6.0,  # or two short cuts are one long one
    down_seconds=1.5,
    agent_crash=1.0,
    worker_crash=0.0,
    keeper_crash=0.0,
    power_cut=0.0,
    power_cut_synced=0.0,
    disk_lost=0.0,
    rumour=0.0,
    agent_freeze=0.5,
    worker_freeze=0.5,
    board_freeze=0.5,
    cancel=0.0,
    finish=0.0,
    scale=0.0,
    store_fails=0.0,
    failing_programs=0.0,
    board_dies=0.0,
    nothing_is_lost=True,
)
"""Only faults that are shorter than the tolerance: nothing may be lost or started again."""

PAUSES = replace(
    CALM,
    every_seconds=2.0,
    down_seconds=9.0,
    clock_jump=1.0,
    archive_errors=0.7,
    archive_away=0.3,
    broker_drop=0.7,
    broker_away=0.4,
    submit=1.2,
    nothing=0.5,
    controller_freeze=8.0,
    controller_suspends=True,
    nothing_is_lost=True,
    leased_programs=False,
)
"""A controller that stands still for longer than its leases last, over boards that work: it loses none."""

HARD_ON_CONTROL = replace(
    Faults(), controller_crash=8.0, rumour=6.0, disk_lost=4.0, drain=1.0, board_dies=0.6
)
"""Many faults of those that the controller has to live through."""

HARD_ON_LANES = replace(
    Faults(), cut=12.0, cut_one_way=6.0, tear=4.0, worker_crash=0.0, keeper_crash=0.0
)
"""Boards that the controller takes for dead, while others still stream with them."""

HARD_ON_STREAMS = Faults(
    every_seconds=0.2,
    down_seconds=2.0,
    cut=3.0,
    lossy=0.0,
    worker_crash=2.0,
    controller_crash=0.5,
    rumour=3.0,  # attempts that run on behind it, beside their replacements
    clock_jump=0.0,
    archive_errors=0.0,
    archive_away=0.0,
    broker_drop=0.0,
    broker_away=0.0,
    cancel=0.0,
    finish=0.0,
    scale=0.0,
    submit=0.0,
    failing_programs=0.0,
    board_dies=0.1,
    program_crash=8.0,
    tear_some=8.0,
    flip=1.0,
    late_crash=0.15,
)
"""Programs, stream workers, boards and calls that die within the seconds in which records pass."""

HARD_ON_SCALES = replace(HARD_ON_STREAMS, scale=6.0)
"""The same while the replicas of jobs are changed."""


SCALES = replace(CALM, every_seconds=1.0, scale=1.0)
"""The replicas of jobs are changed, and nothing goes wrong."""

MOVES = replace(CALM, every_seconds=0.08, drain=1.0)
"""Nodes are drained, most of them with a deadline, and taken back, and nothing goes wrong."""

LIES = replace(CALM, every_seconds=0.2, lie=3.0, program_crash=0.5, worker_crash=0.5)
"""Consumers that are not done are said to be, and some die."""


@dataclass(frozen=True, slots=True)
class Story:
    """The frame of a history."""

    boards: int
    seconds: float
    """How long faults are drawn: mostly for 1 to 4 s, and for up to 7 s now and then."""
    lease_seconds: float
    gossips: bool
    pipelines: int
    cpus: float = 0.0
    """Of each board; drawn if it is 0."""


def story(rng: Random) -> Story:
    """Draw one."""
    return Story(
        boards=rng.choice((2, 2, 2, 3)),
        seconds=min(rng.uniform(1.0, 7.0), rng.uniform(1.0, 7.0)),
        lease_seconds=rng.choice((2.0, 3.0, USUAL_LEASE_SECONDS)),
        gossips=rng.random() < 0.3,
        pipelines=rng.choice((1, 1, 1, 1, 1, 2)),
    )


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a user hands over; `shape` is None where nothing streams."""

    spec: Pipeline
    shape: Shape | None = None


def stream_story(rng: Random) -> Story:
    """Draw the frame of a history of one given pipeline."""
    seconds = rng.uniform(2.0, 6.0)
    return Story(3, seconds, lease_seconds=2.0, gossips=False, pipelines=1, cpus=32.0)


def streaming(rng: Random, shape: Shape) -> Submitted:
    """Make a pipeline of a shape that goes on whatever dies, at a pace that is drawn."""
    pace = rng.choice((0.0, 0.003, 0.01))
    jobs = (
        replace(job, pace=job.pace or pace) if not shape.inputs(job.name) else job
        for job in shape.jobs
    )
    shape = Shape(tuple(jobs), shape.edges)
    spec = shape.pipeline("given")
    retry = Retry(attempts=100, backoff_seconds=0.1, backoff_limit_seconds=0.1)
    return Submitted(
        replace(spec, jobs=tuple(replace(job, retry=retry) for job in spec.jobs)), shape
    )


def submission(rng: Random, faults: Faults) -> Submitted:
    """Draw one."""
    drawn = rng.choice((_single, _chain, _chain, _spread, _fork))(rng, faults)
    return drawn if faults.leased_programs else _unleased(drawn)


def _unleased(drawn: Submitted) -> Submitted:
    leased = Placement.AT_MOST_ONE_RUNNING
    jobs = tuple(
        replace(job, placement=Placement.AT_LEAST_ONCE) if job.placement is leased else job
        for job in drawn.spec.jobs
    )
    return replace(drawn, spec=replace(drawn.spec, jobs=jobs))


def _single(rng: Random, faults: Faults) -> Submitted:
    placement = rng.choice((*Placement, Placement.AT_MOST_ONE_RUNNING))
    seconds = f"{rng.choice((rng.uniform(0.0, 3.0), rng.uniform(3.0, 8.0))):.2f}"
    fails = rng.random() < faults.failing_programs
    # By digits that are drawn already, as below.
    bad = (*TAKES_TOO_MUCH, "fail")[(int(seconds[-1]) + int(seconds[-2])) % 4]
    run: tuple[str, ...] = ("sleep", seconds)
    if fails:
        run = ("fail", "3", seconds) if bad == "fail" else (bad, seconds)
    job = Job("main", run, placement=placement, retry=_retry(rng), resources=_cpus(rng))
    if "fills" in run:
        claimed = replace(job.resources, disk_bytes=FILLED_BYTES // 2)
        job = replace(job, resources=claimed, sandbox=Sandbox(enforce=frozenset({Claim.DISK})))
    job = replace(job, archive_on=rng.choice(tuple(ArchiveOn)))
    # Half of them tell a dashboard; the digit is drawn already.
    tells = int(seconds[-1]) % 2 == 0
    compat = Compat(user="ada", task="single", updates_topic=True) if tells else None
    # And half of them have files to fetch.
    if int(seconds[-2]) % 2 == 0:
        job = replace(job, folders=(FOLDER,))
    prefetch = int(seconds[-1]) % 3 == 0
    digest = sha256(seconds.encode()).hexdigest() if prefetch else ""
    return Submitted(Pipeline("single", (job,), digest, compat=compat, prefetch=prefetch))


def _source(rng: Random, faults: Faults) -> JobShape:
    return JobShape(
        "source",
        records=ENDLESS if rng.random() < 0.3 else rng.randint(1, 24),
        pace=rng.choice((0.02, 0.1, 0.2)),
        resume=rng.random() < 0.4,
        crash=_crash(rng, faults),
    )


def _crash(rng: Random, faults: Faults) -> int:
    return rng.randint(0, 20) if rng.random() < faults.failing_programs else -1


def _map(rng: Random, faults: Faults, *, replicas: int) -> JobShape:
    return JobShape(
        "map",
        replicas=replicas,
        resume=rng.random() < 0.5,
        plain=True,
        crash=_crash(rng, faults),
        stubborn=rng.random() < 0.1,
    )


def _chain(rng: Random, faults: Faults) -> Submitted:
    return _submitted(
        rng,
        "chain",
        Shape(
            (_source(rng, faults), _map(rng, faults, replicas=1), JobShape("sink")),
            (
                Edge("source", "out", "map", "in", block_count=rng.choice((1, 1, 3))),
                Edge("map", "out", "sink", "in"),
            ),
        ),
    )


def _spread(rng: Random, faults: Faults) -> Submitted:
    """Replicas in the middle, which may be scaled; they have to be able to go on."""
    middle = replace(_map(rng, faults, replicas=rng.choice((1, 2))), resume=True)
    return _submitted(
        rng,
        "spread",
        Shape(
            (_source(rng, faults), middle, JobShape("sink")),
            (Edge("source", "out", "map", "in"), Edge("map", "out", "sink", "in")),
        ),
    )


def _fork(rng: Random, faults: Faults) -> Submitted:
    """Two sinks, each of which gets everything; the replicas of one share it, or have all of it."""
    left = JobShape("left", replicas=rng.choice((1, 2)), crash=_crash(rng, faults))
    distribute = rng.choice((Distribute.ROUND_ROBIN, Distribute.BROADCAST))
    return _submitted(
        rng,
        "fork",
        Shape(
            (_source(rng, faults), left, JobShape("right")),
            (
                Edge("source", "out", "left", "in", distribute),
                Edge("source", "out", "right", "in", distribute),
            ),
        ),
    )


def _submitted(rng: Random, name: str, shape: Shape) -> Submitted:
    spec = shape.pipeline(name)
    jobs = tuple(
        replace(
            job,
            retry=_retry(rng),
            resources=_cpus(rng),
            archive_on=rng.choice(tuple(ArchiveOn)),
            placement=rng.choice((Placement.AT_LEAST_ONCE, Placement.AT_LEAST_ONCE, *Placement)),
        )
        for job in spec.jobs
    )
    return Submitted(replace(spec, jobs=jobs), shape)


def _retry(rng: Random) -> Retry:
    return Retry(
        attempts=rng.choice((1, 3, 20)),
        backoff_seconds=rng.choice((0.2, 0.2, 3.0)),
        backoff_limit_seconds=3.0,
    )


def _cpus(rng: Random) -> Resources:
    return Resources(cpus=rng.choice((0.25, 0.5)))
