"""What failed attempts printed is in the archive, whole, and the next attempt does not wait for it."""

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from shoal.model import Artifact, PipelineState
from shoal.view import LIVE_LOG_BYTES_MAX, PipelineView
from tests.kit.cluster import describe, submit
from tests.kit.edge import Edge
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = LIVE_LOG_BYTES_MAX + (1 << 20)
SPEC = """
name: loud
bundle: .
jobs:
  a:
    run: [sh, main.sh]
    retry: {attempts: 2, backoff: 10ms}
"""
CODE = f"""
head -c {SIZE} /dev/zero | tr '\\0' x
echo " end of $SHOAL_ATTEMPT"
echo "attempt $SHOAL_ATTEMPT failed" >&2
exit 4
"""


def stored(pipeline: PipelineView) -> list[dict[str, Artifact]]:
    """The artifacts of each attempt, by path."""
    [job] = pipeline.jobs
    return [
        {one.path: one for one in attempt.manifest.artifacts} if attempt.manifest else {}
        for attempt in job.attempts
    ]


async def shoal(edge: Edge, *words: str) -> tuple[int, bytes, str]:
    """Run a command; returns its status, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal.cli", *words),
        *("--controller", edge.cluster.controller_address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, out, err.decode()


async def test_both_outputs_of_each_failed_attempt_are_archived_whole_and_read_from_there(
    edge: Edge, tmp_path: Path
) -> None:
    submitted = await submit(edge.client, tmp_path / "p", SPEC, {"main.sh": CODE})
    name = submitted.pipeline.id
    ended = await edge.client.wait(name, deadline_seconds=120)
    assert ended.state is PipelineState.FAILED, describe(ended)

    async def kept() -> bool:
        logs = stored(await edge.client.get(name))
        return [sorted(one) for one in logs] == [["stderr", "stdout"]] * 2

    await until(kept, 60, "the logs of both attempts in the archive")
    for number, logs in enumerate(stored(await edge.client.get(name)), 1):
        said = b"x" * SIZE + f" end of {number}\n".encode()
        assert logs["stdout"].sha256 == hashlib.sha256(said).hexdigest()
        objects = await edge.objects(f"archive/{logs['stderr'].key}", edge.archive)
        assert list(objects.values()) == [f"attempt {number} failed\n".encode()]
        status, out, err = await shoal(edge, "logs", f"{name}/a", "--attempt", str(number))
        assert (status, len(out)) == (0, len(said)), err
        assert out == said
        folder = tmp_path / f"got-{number}"
        status, _, err = await shoal(
            edge, "get", f"{name}/a", "--attempt", str(number), "-o", str(folder)
        )
        assert status == 0, err
        [got] = folder.rglob("stdout")
        assert got.read_bytes() == said
