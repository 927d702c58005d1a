"""A process that submits pipelines and says which are acknowledged, until somebody kills it.

Run as `python -m tests.unit.control.store_writer PATH`; writes one request id a line.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from control.core.answers import Submission, SubmitResult
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from tests.unit.control.world import numbered_ids, single


async def main(path: Path) -> None:
    """Submit without end, many at a time."""
    async with SqliteStore(path) as store:
        plane = ControlPlane(
            store=store,
            config=PlaneConfig(),
            clock=monotonic,
            wall=lambda: datetime.now(UTC),
            ids=numbered_ids(),
        )
        async with plane, asyncio.TaskGroup() as tasks:
            tasks.create_task(plane.run())
            for worker in range(16):
                tasks.create_task(_submit(plane, worker))


async def _submit(plane: ControlPlane, worker: int) -> None:
    number = 0
    while True:
        request_id = f"{worker}-{number}"
        (result,) = await plane.submit([Submission("default", request_id, single())])
        assert isinstance(result, SubmitResult)
        sys.stdout.write(f"{request_id} {result.view.id}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
