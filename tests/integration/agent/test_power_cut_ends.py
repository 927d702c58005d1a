"""The power of a board fails while its jobs run, drain and are archived; a real controller hears one end of each."""

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from shoal.client import Client
from shoal.model import JobState, PipelineState
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import all_events, contents, describe, job_of, submit, when
from tests.kit.controller_process import ControllerProcess
from tests.kit.power_cut import board_disk
from tests.kit.until import until

RUNNING = """
name: running
jobs:
  a: {{run: [sh, -c, 'echo begun >> {began}; until test -e {gate}; do sleep 0.05; done; echo a > results/x']}}
"""
DRAINING = """
name: draining
jobs:
  source:
    run: seq 1 1000
    outputs: {{numbers: {{format: lines, as: stdout}}}}
  sums:
    run: [sh, -c, "until test -e {gate}; do sleep 0.05; done; awk '{{s += $1}} END {{print s}}' > results/x"]
    inputs: {{numbers: {{from: source.numbers, format: lines, as: stdin}}}}
"""
ARCHIVING = """
name: archiving
jobs:
  a: {{run: [sh, -c, 'echo once >> {once}; echo kept > results/x; until test -e {soon}; do sleep 0.05; done']}}
"""


async def test_a_board_without_power_ends_each_job_once_whatever_it_was_doing(
    tmp_path: Path,
) -> None:
    """One final event and one manifest for each; what was being archived does not run again."""
    places = {name: tmp_path / name for name in ("began", "gate", "once", "soon")}
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    archive.mkdir()
    words = ("--lease-seconds", "120", "--heartbeat-seconds", "1", "--archive", f"file://{archive}")
    async with ControllerProcess(tmp_path, *words) as controller:
        agent = AgentProcess(controller.grpc)
        with board_disk(agent.state, tmp_path / "board.img") as disk:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(agent)
                client = await stack.enter_async_context(Client(controller.grpc))
                names = {
                    name: (
                        await submit(client, tmp_path / name, spec.format(**places), {})
                    ).pipeline.id
                    for name, spec in (
                        ("running", RUNNING),
                        ("draining", DRAINING),
                        ("archiving", ARCHIVING),
                    )
                }
                for name, job, state in (
                    ("running", "a", JobState.RUNNING),
                    ("draining", "source", JobState.DRAINING),
                    ("draining", "sums", JobState.RUNNING),
                    ("archiving", "a", JobState.RUNNING),
                ):
                    await when(
                        client,
                        names[name],
                        lambda view, job=job, state=state: job_of(view, job).state is state,  # type: ignore[misc]
                    )
                archive.rename(elsewhere)
                places["soon"].touch()
                await when(
                    client,
                    names["archiving"],
                    lambda view: "waits for the archive" in job_of(view, "a").progress,
                )
                await asyncio.to_thread(disk.cut, agent.processes())
                agent.kill()
                elsewhere.rename(archive)
                agent.start()
                places["gate"].touch()
                for name, job, said in (
                    ("running", "a", b"a\n"),
                    ("draining", "sums", b"500500\n"),
                    ("archiving", "a", b"kept\n"),
                ):
                    ended = await client.wait(names[name], deadline_seconds=120)
                    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
                    assert await contents(client, ended, "results/x", tmp_path / "x") == said
                    finals = [
                        event.subject
                        for event in await all_events(client, ended.name)
                        if event.type.endswith((".succeeded", ".failed", ".cancelled"))
                    ]
                    assert sorted(finals) == sorted([ended.name, *(one.name for one in ended.jobs)])
                    # Manifests are stored behind the commits, a moment later.
                    stored = partial(_are_stored, archive, ended.id, len(ended.jobs))
                    await until(stored, 10, f"the manifests of {job}")
                assert places["began"].read_text() == "begun\nbegun\n"
                assert places["once"].read_text() == "once\n"


def _are_stored(archive: Path, pipeline: str, count: int) -> bool:
    return len(list(archive.rglob(f"{pipeline}/jobs/*/manifest.json"))) == count
