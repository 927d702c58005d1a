"""A board with the real controller, in virtual time: what an attempt survives, and what it does not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.attempts.phase import Phase
from shoal.model import JobState, PipelineState
from shoal.names import AttemptRef
from shoal.spec import ArchiveOn, Job, Output, Placement, Retry, StreamInput
from shoal.view import PrefetchView
from tests.simulation.mesh.play import Play, run

SLEEPER = Job("sleeper", ("sleep", "5"))
PAIR = (
    Job("source", ("source", "200", "0.01"), outputs=(Output("out"),)),
    Job("sink", ("sink",), streams=(StreamInput("in", "source", "out"),)),
)


def test_a_job_is_run_and_archived() -> None:
    async def play(world: Play) -> Any:
        await world.begin(SLEEPER)
        await world.state(JobState.RUNNING)
        [program] = world.board.programs
        assert program.ref is not None
        return await world.end(), program.ref.job, sorted(world.archive.objects)

    outcome, job, stored = run(play, 1)
    assert outcome == (PipelineState.SUCCEEDED, [1])
    assert job == "sleeper"
    assert any(key.endswith("results/received.json") for key in stored)


def test_a_bundle_is_on_all_boards_before_they_need_it_and_is_held_until_the_end() -> None:
    digest = "1" * 64

    async def play(world: Play) -> Any:
        await world.begin(replace(SLEEPER, run=("sleep", "60")), prefetch=digest)
        await world.until(lambda: world.view.prefetch == PrefetchView(3, 3))
        boards = [digest in board.folders.bundles for board in world.boards]
        agent = world.boards[1]
        agent.kill_agent()
        await world.until(lambda: world.view.prefetch == PrefetchView(2, 2))
        agent.start_agent()
        await world.until(lambda: world.view.prefetch == PrefetchView(3, 3))
        outcome = await world.end()
        return boards, outcome, world.view.prefetch

    boards, (state, _), after = run(play, 7, boards=3)
    assert boards == [True, True, True]
    assert state is PipelineState.SUCCEEDED
    assert after is None


def test_that_a_disk_is_short_is_logged_once_and_once_more_when_it_is_not() -> None:
    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []

    async def play(world: Play) -> Any:
        logging.getLogger("edge_agent.agent_shell").addHandler(Said(logging.WARNING))
        await world.begin(SLEEPER)
        much = world.board.disk.reading
        world.board.disk.reading = replace(much, free_bytes=much.total_bytes // 500)
        await world.until(lambda: world.plane.shown.nodes()[0].refuses != "")
        await asyncio.sleep(20.0)
        world.board.disk.reading = much
        await world.until(lambda: world.plane.shown.nodes()[0].refuses == "")
        return lines

    assert run(play, 5) == ["no new work is taken", "new work is taken again"]


def test_records_pass_and_both_jobs_end() -> None:
    async def play(world: Play) -> Any:
        await world.begin(*PAIR)
        outcome = await world.end()
        told = [data for key, data in world.archive.objects.items() if "sink" in key]
        return outcome, any(b'"end": 200' in data for data in told)

    assert run(play, 2) == ((PipelineState.SUCCEEDED, [1, 1]), True)


def test_a_node_whose_stream_worker_comes_late_says_where_it_is_once_it_is_there() -> None:
    """Its agent has introduced itself without one; lanes to it are dialled only once it does so again."""

    async def play(world: Play) -> Any:
        world.board.ahead = False
        world._begin().cancel()

        def introduced() -> bool:
            world.board.kill_worker()
            return world.controller.plane is not None and len(world.plane.shown.nodes()) == 1

        await world.until(introduced, look_seconds=0.0002)
        [node] = world.plane.shown.nodes()
        assert node.stream_address == ""
        await world.until(lambda: world.plane.shown.node(node.name).stream_address != "")
        await world.until(lambda: world.plane.shown.node(node.name).connected)

    run(play, 3)


@pytest.mark.parametrize("at", [JobState.PREPARING, JobState.RUNNING, JobState.ARCHIVING])
def test_an_agent_that_dies_goes_on_where_it_was(at: JobState) -> None:
    """Whatever the attempt was at, it is the first one that succeeds, and its program runs once."""

    async def play(world: Play) -> Any:
        await world.begin(SLEEPER)
        started: set[int] = set()

        def watch() -> bool:
            started.update(program.pid for program in world.board.programs)
            return world.view.jobs[0].state >= at

        await world.until(watch)
        for _ in range(3):
            world.board.kill_agent()
            await asyncio.sleep(0.3)
            world.board.start_agent()
            await asyncio.sleep(0.2)
            watch()
        await world.until(lambda: watch() and world.view.state.terminal)
        return await world.end(), len(started), world.board.agents

    assert run(play, 3) == ((PipelineState.SUCCEEDED, [1]), 1, 4)


def test_a_keeper_that_dies_takes_its_programs_with_it() -> None:
    """The next keeper ends what it left, and the controller has the job tried again."""

    async def play(world: Play) -> Any:
        await world.begin(SLEEPER)
        await world.state(JobState.RUNNING)
        [before] = world.board.programs
        world.board.kill_keeper()
        await asyncio.sleep(0.01)
        orphaned = [one.pid for one in world.board.programs]
        await world.until(lambda: len(world.view.jobs[0].attempts) > 1)
        return orphaned == [before.pid], before.process.dead, await world.end()

    assert run(play, 4) == (True, True, (PipelineState.SUCCEEDED, [2]))


@pytest.mark.parametrize("keeper_dies", [False, True])
def test_an_attempt_begins_once_whoever_dies_while_its_program_starts(keeper_dies: bool) -> None:  # noqa: FBT001
    """The keeper alone knows whether it began; where it is dead, too, another attempt is made."""

    async def play(world: Play) -> Any:
        board = world.board
        await world.begin(replace(SLEEPER, retry=Retry(1)))
        begun: dict[int, AttemptRef | None] = {}

        def watch() -> bool:
            begun.update((program.pid, program.ref) for program in board.programs)
            return bool(begun)

        await world.until(watch, 0.0005)
        board.kill_agent()
        if keeper_dies:
            board.kill_keeper()
        [record] = board.journal.records.values()
        await asyncio.sleep(0.3)
        board.start_agent()
        await world.until(lambda: watch() and world.view.state.terminal)
        reasons = [attempt.reason.message for attempt in world.view.jobs[0].attempts]
        return record.phase, list(begun.values()), await world.end(), reasons

    phase, begun, outcome, reasons = run(play, 20)
    assert phase is Phase.STARTING, "the journal did not know more"
    assert len(set(begun)) == len(begun) == (2 if keeper_dies else 1)
    assert outcome == (PipelineState.SUCCEEDED, [len(begun)])
    if keeper_dies:
        assert "it may have begun" in reasons[0]


def test_a_stream_worker_that_dies_takes_attempts_with_ports_with_it() -> None:
    async def play(world: Play) -> Any:
        await world.begin(*PAIR)
        await world.until(lambda: {job.state for job in world.view.jobs} == {JobState.RUNNING})
        world.board.kill_worker()
        return await world.end()

    state, attempts = run(play, 5)
    assert state is PipelineState.SUCCEEDED
    assert attempts == [2, 2]


def test_a_source_that_drains_is_lost_with_the_stream_worker_that_a_later_agent_found() -> None:
    """An agent that found a worker has to tell its loss, as the one that started it would."""

    async def play(world: Play) -> Any:
        await world.begin(*PAIR)
        await world.until(lambda: {job.state for job in world.view.jobs} == {JobState.RUNNING})
        world.archive.away = True
        await world.state(JobState.DRAINING)
        world.board.kill_agent()
        world.board.start_agent()
        await asyncio.sleep(1)
        world.board.kill_keeper()
        await asyncio.sleep(2)
        world.archive.away = False
        return await world.end()

    state, attempts = run(play, 18)
    assert state is PipelineState.SUCCEEDED
    assert attempts[0] == 2


@pytest.mark.parametrize("lose_unsynced", [False, True])
def test_a_board_without_power_comes_back_and_runs_its_job_again(lose_unsynced: bool) -> None:  # noqa: FBT001
    async def play(world: Play) -> Any:
        await world.begin(SLEEPER)
        await world.state(JobState.RUNNING)
        world.board.power_off(lose_unsynced=lose_unsynced)
        assert not world.board.programs
        await asyncio.sleep(2)
        world.board.boot()
        return await world.end()

    # It was not away for as long as its lease, so it goes on with the attempt that it had.
    assert run(play, 6) == (PipelineState.SUCCEEDED, [1])


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.COLLECTING, Phase.GRANTING])
def test_no_cut_results_are_archived_when_the_power_goes_after_the_program(phase: Phase) -> None:
    """The disk had not written everything: what is not whole is made again, on the same board."""

    async def play(world: Play) -> Any:
        board = world.board
        # So slow that collecting lasts, and so is recorded.
        board.workshop.slow = 100.0 if phase is not Phase.GRANTING else 1.0
        world.archive.away = phase is Phase.GRANTING
        await world.begin(Job("short", ("sleep", "1")))
        # The archive grants nothing while it is away, so the attempt stays in this phase.
        await world.until(
            lambda: any(record.phase is phase for record in board.journal.records.values()), 0.002
        )
        board.power_off(lose_unsynced=True)
        await asyncio.sleep(1)
        board.boot()
        world.archive.away = False
        outcome = await world.end()
        manifest = world.view.jobs[0].manifest
        assert manifest is not None
        results = [one for one in manifest.artifacts if one.path != "stderr"]
        return outcome, [world.archive.objects[one.key] for one in results]

    for seed in range(13, 17):
        assert run(play, seed) == ((PipelineState.SUCCEEDED, [1]), [b'{"rounds": 0}'])


def test_a_guard_ends_a_program_whose_lease_ends_while_agent_and_keeper_are_dead() -> None:
    async def play(world: Play) -> Any:
        long = Job("long", ("sleep", "100"), placement=Placement.AT_MOST_ONE_RUNNING)
        await world.begin(long)
        await world.state(JobState.RUNNING)
        board = world.board
        assert [program.guard is not None for program in board.programs] == [True]
        board.kill_agent()
        began = world.loop.time()
        await world.until(lambda: not board.programs)
        after_agent = world.loop.time() - began
        board.start_agent()
        await world.until(lambda: len(board.programs) == 1)
        board.kill_agent()
        board.kill_keeper()
        began = world.loop.time()
        await world.until(lambda: not board.programs)
        return after_agent, world.loop.time() - began

    after_agent, after_keeper = run(play, 7)
    assert 3 < after_agent < 6
    assert after_keeper < 1


def test_a_board_that_stands_still_ends_a_leased_program_when_it_goes_on() -> None:
    async def play(world: Play) -> Any:
        long = Job("long", ("sleep", "30"), placement=Placement.AT_MOST_ONE_RUNNING)
        await world.begin(long)
        await world.state(JobState.RUNNING)
        [program] = world.board.programs
        world.board.freeze()
        await asyncio.sleep(20)
        still = [one.process.frozen for one in world.board.programs]
        world.board.thaw()
        await asyncio.sleep(0.2)
        return still, program.process.dead, await world.end()

    assert run(play, 8) == ([True], True, (PipelineState.SUCCEEDED, [2]))


def test_a_program_that_fails_is_tried_again_and_a_broken_preparation_ends_it() -> None:
    async def failing(world: Play) -> Any:
        await world.begin(Job("bad", ("fail", "3", "1"), retry=Retry(3, 0.5)))
        return await world.end()

    async def unprepared(world: Play) -> Any:
        world.board.workshop.failing = 1.0
        await world.begin(SLEEPER)
        return *await world.end(), world.view.jobs[0].reason.code.value

    assert run(failing, 9) == (PipelineState.FAILED, [3])
    assert run(unprepared, 10) == (PipelineState.FAILED, [1], "BUNDLE")


@pytest.mark.parametrize("end", ["agent", "board", "nothing"])
def test_u8_what_a_failed_attempt_left_is_archived_or_kept(end: str) -> None:
    """Whatever dies beside it, its files are in the archive under a manifest, or on its board."""

    async def play(world: Play) -> Any:
        job = Job("bad", ("fail", "3", "1"), archive_on=ArchiveOn.ALWAYS)
        await world.begin(job)
        await world.state(JobState.RUNNING)
        world.archive.away = True
        records = world.board.records
        await world.until(
            lambda: any(one.phase is Phase.UPLOADING for one in world.board.records.values())
        )
        assert records
        if end == "agent":
            world.board.kill_agent()
            await asyncio.sleep(1)
            world.board.start_agent()
        elif end == "board":
            world.board.power_off(lose_unsynced=False)
            world.board.boot()
        await asyncio.sleep(1)
        world.archive.away = False
        outcome = await world.end()
        manifest = world.view.jobs[0].manifest
        await world.until(lambda: not world.board.records)
        return outcome, manifest is not None, len(world.board.workshop.kept())

    archived, kept = (False, 1) if end == "board" else (True, 0)
    assert run(play, 12) == ((PipelineState.FAILED, [1]), archived, kept)


def test_u8_an_archive_that_stays_away_does_not_hold_up_a_cancelled_job() -> None:
    async def play(world: Play) -> Any:
        await world.begin(replace(SLEEPER, archive_on=ArchiveOn.ALWAYS))
        await world.state(JobState.RUNNING)
        world.archive.away = True
        await world.plane.cancel(world.ref, "enough")
        outcome = await world.end()
        await world.until(lambda: not world.board.records)
        [kept] = world.board.workshop.kept()
        return outcome, kept.ref.job

    assert run(play, 13) == ((PipelineState.CANCELLED, [1]), "sleeper")


def test_an_archive_that_is_away_and_grants_that_expire_are_waited_for() -> None:
    async def play(world: Play) -> Any:
        await world.begin(Job("short", ("sleep", "1")))
        await world.state(JobState.RUNNING)
        world.archive.away = True
        await asyncio.sleep(90)
        assert not world.view.state.terminal
        world.archive.away = False
        return await world.end()

    assert run(play, 11) == (PipelineState.SUCCEEDED, [1])


def test_one_seed_is_one_history() -> None:
    async def play(world: Play) -> Any:
        await world.begin(*PAIR)
        await asyncio.sleep(1)
        world.board.kill_agent()
        await asyncio.sleep(1)
        world.board.start_agent()
        await world.end()
        return world.loop.callbacks, repr(world.loop.time()), sorted(world.archive.objects)

    assert run(play, 12) == run(play, 12)
