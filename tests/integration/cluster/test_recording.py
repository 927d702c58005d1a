"""Streams as files (F13): recorded across deaths without a gap, and replayed with the same result."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from shoal.local.record_file import RecordFile
from shoal.model import JobState, PipelineState
from tests.integration.cluster.test_tap import FOLLOW, SPEC
from tests.kit.cluster import describe, job_of, running_cluster, submit, when
from tests.kit.until import until

_DEADLINE = 60.0
SHOAL = str(Path(sys.executable).parent / "shoal")


async def test_f13_a_recording_follows_its_producer_and_goes_on_after_a_kill(
    tmp_path: Path,
) -> None:
    """The recorder is killed, then the producer's board: every record is in the file, once."""
    lines = tmp_path / "lines"
    lines.touch()
    target = tmp_path / "said.records"
    part = tmp_path / "said.records.part"

    def say(first: int, last: int) -> None:
        with lines.open("a") as file:
            file.writelines(f"line {k}\n" for k in range(first, last))

    def recorded() -> int:
        if not part.exists() or not part.stat().st_size:
            return 0
        file = RecordFile(part, writable=False)
        file.close()
        return file.next

    async with running_cluster(tmp_path / "cluster") as (cluster, client):

        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(SHOAL, "record", name, "source.said", "-o", str(target), "--from-start"),
                *("--controller", cluster.controller_address),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
            )

        spec = SPEC.format(lines=lines)
        submitted = await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})
        name = submitted.pipeline.id
        say(0, 100)
        running = await when(
            client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
        )
        process = await start()
        await until(lambda: recorded() == 100, 30, "the first hundred")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        say(100, 200)
        process = await start()
        await until(lambda: recorded() == 200, 30, "two hundred")
        await cluster.kill_board(job_of(running, "source").node)
        say(200, 300)
        await until(lambda: recorded() == 300, 30, "three hundred")
        with lines.open("a") as file:
            file.write("END\n")
        async with asyncio.timeout(_DEADLINE):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        ended = await client.wait(name, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert not part.exists()
    file = RecordFile(target, writable=False)
    assert (file.base, file.total) == (0, 300)
    texts = [payload for block in file.records() for payload in block.payloads()]
    file.close()
    assert texts == [b"line %d" % k for k in range(300)]
    assert file.digest in err.decode()
