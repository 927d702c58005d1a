"""G9: an uplink is cut for an hour, 500 jobs end meanwhile, and the power fails in the middle of it."""

import asyncio
from collections import Counter
from typing import Any

from control.core.answers import Submission, SubmitResult
from edge_agent.attempts.phase import ARCHIVING, Phase
from shoal.model import JobState, PipelineState
from shoal.names import PipelineRef
from shoal.spec import Job, Pipeline, Placement, Resources
from tests.simulation.mesh.play import Play, run
from tests.simulation.mesh.workshop import ARCHIVE_HOST

JOBS = 500
HOUR_SECONDS = 3600.0
POWER_CUT_SECONDS = 800.0
FIRST_SECONDS, STEP_SECONDS = 30, 3
BAR = 1.1


def _job(number: int) -> Pipeline:
    """One that ends while the uplink is cut, also if the power makes it begin again."""
    seconds = FIRST_SECONDS + STEP_SECONDS * number
    job = Job(
        "main",
        ("sleep", str(seconds)),
        resources=Resources(cpus=0.005),
        # What may be placed elsewhere is, once the lease of its node is over.
        placement=Placement.PINNED,
    )
    return Pipeline(f"p{number}", (job,))


def test_g9_an_hour_without_an_uplink_loses_nothing_and_runs_nothing_twice_that_has_ended() -> None:
    async def play(world: Play) -> Any:
        world._begin().cancel()
        board = world.board
        await world.until(lambda: world.controller.plane is not None)
        await world.until(lambda: bool(world.plane.shown.nodes()))
        submitted = await world.plane.submit(
            [Submission("default", f"r{number}", _job(number)) for number in range(JOBS)]
        )
        refs = [
            PipelineRef("default", one.view.id)
            for one in submitted
            if isinstance(one, SubmitResult)
        ]
        await world.until(lambda: len(board.programs) == JOBS)
        stored: Counter[str] = Counter()
        first = world.archive.stored

        def count(key: str, data: bytes, every: dict[str, bytes]) -> None:
            stored[key] += len(data)
            first(key, data, every)

        world.archive.stored = count
        for host in ("controller", ARCHIVE_HOST):
            world.network.cut_both_ways(board.name, host)
            world.network.tear(board.name, host)
        cut_at = world.loop.time()
        await asyncio.sleep(POWER_CUT_SECONDS)
        phases = {ref.pipeline: record.phase for ref, record in board.journal.records.items()}
        waiting = {one for one, phase in phases.items() if phase in ARCHIVING - {Phase.COLLECTING}}
        ran = {ref.pipeline for ref, _ in world.programs}
        board.power_off(lose_unsynced=True)
        await asyncio.sleep(5)
        board.boot()
        booted_at = world.loop.time()
        begun = len(world.programs)
        await world.until(lambda: len(world.programs) > begun, 0.01)
        again_seconds = world.loop.time() - booted_at
        await asyncio.sleep(cut_at + HOUR_SECONDS - world.loop.time())
        assert not board.programs
        ended_offline = sum(record.phase in ARCHIVING for record in board.journal.records.values())
        for host in ("controller", ARCHIVE_HOST):
            world.network.heal_both_ways(board.name, host)
        await world.until(lambda: all(ref in world.ledger.finals for ref in refs), 0.5)
        await world.until(world._settled, 0.5)
        views = [await world.plane.shown.find(ref) for ref in refs]
        starts = Counter(ref.pipeline for ref, _ in world.programs)
        finals = [row for row in world.ledger.events.values() if row.type == "shoal.job.succeeded"]
        artifacts = {
            one.key: one.size_bytes for view in views for job in view.jobs for one in job.artifacts
        }
        return {
            "ran before the cut": len(ran),
            "ended offline": ended_offline,
            "waiting at the power cut": len(waiting),
            "succeeded": sum(view.state is PipelineState.SUCCEEDED for view in views),
            "manifests": sum(key.endswith("/manifest.json") for key in world.archive.objects),
            "events": len({row.id for row in finals}),
            "attempts": sum(len(job.attempts) for view in views for job in view.jobs),
            "jobs": {job.state for view in views for job in view.jobs},
            "again": sum(starts[one] - 1 for one in starts),
            "again though ended": sum(starts[one] > 1 for one in waiting),
            "bytes": sum(artifacts.values()),
            "sent": sum(size for key, size in stored.items() if key in artifacts),
            "again_seconds": again_seconds,
        }

    told = run(play, 9)
    ratio = told["sent"] / told["bytes"]
    print(f"G9: {told}, bytes sent {ratio:.3f} of what there was, bar {BAR:g}")  # noqa: T201 - the figures
    assert told["ran before the cut"] == told["ended offline"] == JOBS
    assert told["succeeded"] == told["manifests"] == told["events"] == told["attempts"] == JOBS
    assert told["jobs"] == {JobState.SUCCEEDED}
    assert told["waiting at the power cut"] > JOBS // 4
    assert told["again though ended"] == 0
    assert told["again"] <= JOBS - told["waiting at the power cut"], (
        "those that ran, or had just ended"
    )
    assert ratio <= BAR
    assert told["again_seconds"] <= 10.0
