"""kill -9 of a process that writes: whatever it acknowledged is there (invariant 1)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from control.store.sqlite import SqliteStore
from shoal.names import PipelineRef
from tests.unit.control.world import single

KILLS = 3
ACKNOWLEDGED = 300


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    acknowledged: dict[str, str] = {}
    for kill in range(KILLS):
        found = _write_until_killed(path, ACKNOWLEDGED + 37 * kill)
        for request_id, pipeline in found.items():
            # A repeated request of an earlier life names the same pipeline.
            assert acknowledged.setdefault(request_id, pipeline) == pipeline
        async with SqliteStore(path) as store:
            loaded = await store.load(lambda: "id", 1_000_000)
        queued = [one for row in loaded.queued if (one := loaded.begin(row)) is not None]
        stored = {row.request_id: row for row in queued}
        for request_id, pipeline in acknowledged.items():
            assert stored[request_id].ref == PipelineRef("default", pipeline)
            assert stored[request_id].spec == single()
        positions = [row.position for row in queued]
        assert positions == list(range(1, len(positions) + 1)), "no holes"


def _write_until_killed(path: Path, lines: int) -> dict[str, str]:
    """Let the writer acknowledge so many submissions, kill it, and return all it acknowledged."""
    program = [sys.executable, "-m", "tests.unit.control.store_writer", str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
        assert process.wait(30) == -9
    return dict(line.split() for line in said if line.endswith("\n"))
