"""K17: while something is waited for, everybody who asks is told what, why and until when."""

import asyncio
import contextlib
import sys
from pathlib import Path

from shoal.client import Client
from shoal.model import JobState, PipelineState, ReasonCode
from shoal.view import PipelineView
from tests.kit.cluster import describe, running_cluster, submit, when
from tests.kit.object_server import ObjectServer
from tests.kit.until import until

SHOAL = str(Path(sys.executable).parent / "shoal")
_SPEC = """
    name: {name}
    jobs:
      main: {{run: cat x.bin, inputs: {{x: {{source: "{url}", path: x.bin}}}}}}
"""


async def test_k17_a_source_that_is_away_is_said_and_one_that_is_gone_fails_at_once(
    tmp_path: Path,
) -> None:
    async with (
        ObjectServer() as objects,
        running_cluster(tmp_path / "cluster", agents=1) as (cluster, client),
    ):

        async def shoal(*words: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(SHOAL, *words, "--controller", cluster.controller_address),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )

        # What is gone: the first answer ends it.
        gone = _SPEC.format(name="gone", url=objects.url("nothing-here"))
        ended = await client.wait(
            (await submit(client, tmp_path / "gone", gone, {})).pipeline.id, deadline_seconds=60
        )
        assert ended.state is PipelineState.FAILED
        assert ended.jobs[0].reason.code is ReasonCode.FETCH, describe(ended)
        assert "404" in ended.jobs[0].reason.message

        # What is away: it is tried for ten minutes, and said.
        url = "https://no-such-host.invalid/x.bin"
        (tmp_path / "away.yaml").write_text(_SPEC.format(name="away", url=url))
        run = await shoal("run", str(tmp_path / "away.yaml"))
        [found] = await until(lambda: _open(client), 30, "the pipeline")
        name = found.id
        words = f"fetching x.bin from {url}: cannot resolve no-such-host.invalid"
        shown = await when(client, name, lambda now: words in now.jobs[0].waiting_for)
        assert shown.jobs[0].state is JobState.PREPARING
        for part in ("again in", "given up in", "s so far"):
            assert part in shown.jobs[0].waiting_for
        for command in (("status", name), ("explain", f"{name}/main")):
            said, _ = await (await shoal(*command)).communicate()
            flat = " ".join(said.decode().replace("│", " ").split())
            assert "cannot resolve no-such-host.invalid" in flat, flat
            assert "given up in" in flat, flat
        await when(client, name, lambda now: _seconds(now.jobs[0].waiting_for) >= 12.0)
        await client.cancel(name)
        printed, _ = await asyncio.wait_for(run.communicate(), 60)
        lines = [line for line in printed.decode().splitlines() if words in line]
        assert len(lines) == 1, f"once a change, not once a try: {printed.decode()}"


def _seconds(waiting_for: str) -> float:
    said = waiting_for.rpartition(";")[2]
    return float(said.split()[0]) if said.endswith("s so far") else 0.0


async def _open(client: Client) -> list[PipelineView]:
    async with contextlib.aclosing(client.list()) as found:
        return [pipeline async for pipeline in found if not pipeline.state.terminal]
