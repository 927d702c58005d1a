"""Lists of a controller of before, which knows no filters and no light view: a client chooses by itself."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from services.runtime.rpc import bind, server_options
from shoal.channel import SESSION
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from shoal.pipeline_filter import PipelineFilter
from shoal.spec import Job, Pipeline
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1.pipelines_service_pb2_grpc import (
    PipelinesServiceServicer,
    add_PipelinesServiceServicer_to_server,
)
from shoal.view import JobView, PipelineSummary, PipelineView, SnapshotEnd, Unlisted
from shoal.wire.view import encode_pipeline


def picture(name: str, state: PipelineState, *jobs: JobState) -> PipelineView:
    ran = tuple(
        JobView(f"pipelines/{name}/jobs/j-{number}", "j", job) for number, job in enumerate(jobs)
    )
    spec = Pipeline(name, (Job("j", ("true",), replicas=len(jobs)),))
    return PipelineView(name, "default", state, spec, jobs=ran, revision=1)


THERE = (
    picture("count", PipelineState.RUNNING, JobState.RUNNING, JobState.QUEUED),
    picture("scan", PipelineState.QUEUED, JobState.QUEUED),
)
WANTED = PipelineFilter("count")


class Before(PipelinesServiceServicer):
    """Answers whole pictures, whatever is asked for."""

    async def ListPipelines(self, request: v1.ListPipelinesRequest, context: Any) -> Any:  # noqa: N802
        return v1.ListPipelinesResponse(pipelines=map(encode_pipeline, THERE))

    async def WatchPipelines(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        for one in THERE:
            yield v1.WatchPipelinesResponse(pipeline=encode_pipeline(one))
        yield v1.WatchPipelinesResponse(snapshot_end=v1.SnapshotEnd(), revision=1)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    server = grpc.aio.server(options=server_options(SESSION))
    port = bind(server, "127.0.0.1:0")
    made: Any = Before
    add_PipelinesServiceServicer_to_server(made(), server)
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as opened:
            yield opened
    finally:
        await server.stop(0)


async def test_a_list_has_what_matches(client: Client) -> None:
    assert [one.id async for one in client.list(where=WANTED)] == ["count"]
    (summary,) = [one async for one in client.summaries(WANTED)]
    assert (summary.spec_name, summary.state) == ("count", PipelineState.RUNNING)
    assert summary.job_counts == {JobState.QUEUED: 1, JobState.RUNNING: 1}


async def test_a_watch_has_what_matches(client: Client) -> None:
    async with contextlib.aclosing(client.watch_summaries(WANTED)) as watch:
        shown = [await anext(watch) for _ in range(3)]
    assert isinstance(shown[0], PipelineSummary)
    assert shown[0].id == "count"
    assert shown[1] == Unlisted("scan", "default")
    assert isinstance(shown[2], SnapshotEnd)


async def test_what_it_cannot_say_is_refused(client: Client) -> None:
    for asked in (client.totals(WANTED), anext(client.jobs())):
        with pytest.raises(ShoalError) as refused:
            await asked
        assert refused.value.code == "UNIMPLEMENTED"
