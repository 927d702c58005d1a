"""What takes more than it may have fails for that, though agents and controllers are killed meanwhile."""

import asyncio

import pytest

from shoal.model import PipelineState, ReasonCode
from shoal.sandbox import Claim, Sandbox
from shoal.spec import Job, Resources, Retry
from tests.simulation.mesh.play import Play, run
from tests.simulation.mesh.program import FILLED_BYTES, TAKES_TOO_MUCH

KINDS = sorted(TAKES_TOO_MUCH)


def _job(kind: str, attempts: int = 1) -> Job:
    """It takes too much after two seconds."""
    return Job(
        "main",
        (kind, "2"),
        resources=Resources(cpus=0.5, disk_bytes=FILLED_BYTES // 2),
        sandbox=Sandbox(enforce=frozenset({Claim.DISK})),
        retry=Retry(attempts, 0.5),
    )


def _codes(world: Play) -> list[ReasonCode]:
    return [one.reason.code for one in world.view.jobs[0].attempts]


@pytest.mark.parametrize("kind", KINDS)
def test_the_reason_is_what_it_took(kind: str) -> None:
    async def play(world: Play) -> tuple[PipelineState, list[ReasonCode]]:
        await world.begin(_job(kind))
        state, _ = await world.end()
        return state, _codes(world)

    assert run(play, 1) == (PipelineState.FAILED, [TAKES_TOO_MUCH[kind]])


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_was_dead_when_it_happened_says_the_same(kind: str) -> None:
    async def play(world: Play) -> list[ReasonCode]:
        await world.begin(_job(kind))
        await world.until(lambda: len(world.board.programs) == 1)
        world.board.kill_agent()
        await asyncio.sleep(3)
        world.board.start_agent()
        await world.end()
        return _codes(world)

    assert run(play, 2) == [TAKES_TOO_MUCH[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_go_on_and_each_attempt_is_a_new_one(kind: str) -> None:
    async def play(world: Play) -> tuple[list[ReasonCode], list[int]]:
        await world.begin(_job(kind, attempts=3), Job("beside", ("sleep", "9")))
        _, attempts = await world.end()
        return _codes(world), attempts

    codes, attempts = run(play, 3)
    assert codes == [TAKES_TOO_MUCH[kind]] * 3
    assert attempts == [3, 1]


def test_a_claim_of_disk_that_does_not_bind_fails_nothing() -> None:
    """At level none it binds a job that says so, and this one does not."""
    job = Job("main", ("fills", "1"), resources=Resources(0.5, disk_bytes=1), timeout_seconds=20.0)

    async def play(world: Play) -> list[ReasonCode]:
        await world.begin(job)
        await world.end()
        return _codes(world)

    assert run(play, 4) == [ReasonCode.TIMEOUT]
