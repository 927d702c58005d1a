"""Lists of a controller that remembers very many pipelines: how long they take, and how long others wait meanwhile.

`make bench-lists` fills a store, begins a control plane on it, and asks for lists of light
and whole pictures, for counts and for jobs. Beside each stands the longest time that the event loop was held.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from control.core.pipeline_query import PipelineQuery
from control.core.rows import AttemptRow, JobRow, PipelineAdded, PipelineRow
from control.front.api.job_listing import list_jobs
from control.front.api.pipeline_listing import list_pipelines
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from shoal.model import JobState, PipelineState
from shoal.names import AttemptRef, PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.spec import Job, Pipeline
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.wire.pipeline_filter import encode_pipeline_filter
from shoal.wire.state import JOB_STATE

PIPELINES = 100_000
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE = 5_000
_NODES = 50


async def main(pipelines: int) -> None:
    """Measure, and print a line of JSON for each question."""
    with TemporaryDirectory() as folder:
        ids = count()
        async with SqliteStore(Path(folder) / "controller.db") as store:
            await store.load(lambda: "bench", 1)
            began = time.perf_counter()
            await _fill(store, pipelines)
            _say("filled", time.perf_counter() - began)
        async with SqliteStore(Path(folder) / "controller.db") as store:
            began = time.perf_counter()
            async with ControlPlane(
                store=store,
                config=PlaneConfig(),
                clock=time.monotonic,
                wall=lambda: datetime.now(UTC),
                ids=lambda width: f"{next(ids):0{width}d}",
            ) as plane:
                _say("begun", time.perf_counter() - began)
                await _ask(plane)


def _say(what: str, seconds: float, **more: Any) -> None:
    print(json.dumps({"what": what, "seconds": round(seconds, 4), **more}), flush=True)


async def _fill(store: SqliteStore, pipelines: int) -> None:
    rng = Random(1)
    specs = [
        Pipeline(f"scan-{n}", (Job("main", ("true",)),), labels={"site": f"site-{n % 20}"})
        for n in range(200)
    ]
    for begin in range(0, pipelines, _AT_ONCE):
        rows: list[Any] = []
        for number in range(begin + 1, min(begin + _AT_ONCE, pipelines) + 1):
            ref, spec = PipelineRef("default", f"p-{number}"), rng.choice(specs)
            created = _BEGAN + timedelta(seconds=number)
            creator = f"submitter/user-{rng.randrange(10)}"
            rows.append(PipelineAdded(ref, number, "", spec, created, creator=creator))
            state, job = PipelineState.SUCCEEDED, JobState.SUCCEEDED
            if rng.random() < 0.001:
                state, job = PipelineState.CANCELLED, JobState.CANCELLED
            rows.append(
                PipelineRow(
                    ref, state, end_time=created + timedelta(seconds=5), job_counts=((job, 1),)
                )
            )
            attempt = AttemptRef(*ref, "main", 1, number)
            rows.append(JobRow(attempt.job_ref, job, epoch=number, number=1))
            rows.append(AttemptRow(attempt, f"n{rng.randrange(_NODES)}", job, created))
        await store.commit(rows)


async def _ask(plane: ControlPlane) -> None:
    shown = plane.shown
    filters = {
        "all": EVERY_PIPELINE,
        "a name": PipelineFilter("scan-17*"),
        "a label": PipelineFilter(labels={"site": "site-3"}),
        "few states": PipelineFilter(states=frozenset({PipelineState.CANCELLED})),
        "nothing": PipelineFilter("nobody"),
    }
    for what, asked in filters.items():
        query = PipelineQuery("default", asked)
        await _timed(f"light page: {what}", shown.summaries(query))
        await _timed(f"whole page: {what}", shown.pipelines(query))
        await _timed(f"count: {what}", shown.totals("default", asked))
    by_end = PipelineQuery("default", filters["a name"], PipelineOrder.ENDED)
    await _timed("light page by end: a name", shown.summaries(by_end))
    for what in ("all", "nothing"):
        every = _every_page(plane, filters[what])
        await _timed(f"light, every page: {what}", every)
    cancelled = v1.ListJobsRequest(states=[JOB_STATE.encode(JobState.CANCELLED)])
    await _timed("jobs of a state", list_jobs(shown, cancelled))
    await _timed("jobs of a node", list_jobs(shown, v1.ListJobsRequest(node="n7")))


async def _every_page(plane: ControlPlane, asked: PipelineFilter) -> None:
    """Ask as the API does, with messages and tokens."""
    request = v1.ListPipelinesRequest(
        page_size=1_000, filter=encode_pipeline_filter(asked), view=v1.PIPELINE_VIEW_LIGHT
    )
    while True:
        page = await list_pipelines(plane.shown, request)
        request.page_token = page.next_page_token
        if not request.page_token:
            return


async def _timed(what: str, asked: Awaitable[object]) -> None:
    """Say how long it takes, and the longest time that another task had to wait for its turn."""
    held = 0.0

    async def look() -> None:
        nonlocal held
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            held, last = max(held, now - last), now

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.002)
    began = time.perf_counter()
    await asked
    seconds = time.perf_counter() - began
    await asyncio.sleep(0)
    looking.cancel()
    _say(what, seconds, loop_held=round(held, 4))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PIPELINES))
