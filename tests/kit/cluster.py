"""A whole cluster of real processes for a test, and what a test asks of it."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.bundle import pack
from shoal.client import Client, Submitted
from shoal.model import Artifact
from shoal.sandbox import SandboxLevel
from shoal.specfile.load import load
from shoal.view import Event, JobView, LogStream, PipelineView


@contextlib.asynccontextmanager
async def running_cluster(
    state: Path,
    *,
    agents: int = 3,
    mqtt: str = "none",
    archive: str = "",
    lease_seconds: float = 4.0,
    sandbox: SandboxLevel = SandboxLevel.NONE,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """Start a cluster whose files go to `state`, and connect to it.

    Jobs of most tests touch files of their test, and run as its user: `sandbox` is none.
    """
    config = LocalClusterConfig(
        state=state,
        agents=agents,
        mqtt=mqtt,
        archive=archive,
        lease_seconds=lease_seconds,
        insecure=True,
        sandbox=sandbox,
    )
    async with LocalCluster(config) as cluster, Client(cluster.controller_address) as client:
        yield cluster, client


async def submit(
    client: Client, folder: Path, spec: str, files: Mapping[str, str], *, request_id: str = ""
) -> Submitted:
    """Write a specification and its code to `folder`, and submit them as the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    path = folder / "pipeline.yaml"
    path.write_text(spec)
    return await submit_file(client, path, request_id=request_id)


async def submit_file(client: Client, path: Path, *, request_id: str = "") -> Submitted:
    """Submit a specification file with its bundle."""
    read = load(path)
    pipeline = read.pipeline
    if read.bundle is not None:
        with pack(read.bundle) as packed:
            await client.ensure_bundle(packed)
            pipeline = dataclasses.replace(pipeline, bundle_digest=packed.digest)
    return await client.submit(pipeline, request_id=request_id)


async def when(
    client: Client, name: str, condition: Callable[[PipelineView], bool]
) -> PipelineView:
    """Watch a pipeline until it looks as `condition` wants, or has ended without ever doing so."""

    def holds(pipeline: PipelineView) -> bool:
        if pipeline.state.terminal and not condition(pipeline):
            raise AssertionError(f"{name} ended before: {describe(pipeline)}")
        return condition(pipeline)

    return await client.when(name, holds)


def job_of(pipeline: PipelineView, job: str) -> JobView:
    """The job of that id."""
    [found] = [view for view in pipeline.jobs if view.id == job]
    return found


def describe(pipeline: PipelineView) -> str:
    """A pipeline's jobs with states and reasons, for a failing test."""
    jobs = ", ".join(
        f"{job.id} {job.state.name} on {job.node or '-'} attempt {len(job.attempts)}"
        f" {job.reason.short}: {job.reason.message} {job.waiting_for}"
        + "".join(f" (one {one.state.name}: {one.reason.message})" for one in job.attempts[:-1])
        for job in pipeline.jobs
    )
    return f"{pipeline.id} {pipeline.state.name} {pipeline.reason.short}: {jobs}"


async def contents(client: Client, pipeline: PipelineView, path: str, target: Path) -> bytes:
    """What an artifact of a pipeline holds, fetched through the archive."""
    found: list[Artifact] = [
        artifact
        for job in pipeline.jobs
        if job.manifest is not None
        for artifact in job.manifest.artifacts
        if artifact.path == path
    ]
    [artifact] = found
    await client.fetch(artifact, target)
    return target.read_bytes()


async def printed(client: Client, name: str, stream: LogStream = LogStream.STDOUT) -> str:
    """All that a pipeline or a job printed so far."""
    chunks = [chunk.data async for chunk in client.logs(name) if chunk.stream is stream]
    return b"".join(chunks).decode()


async def all_events(client: Client, name: str = "") -> list[Event]:
    """All events of a pipeline, oldest first."""
    found: list[Event] = []
    token = ""
    while True:
        page = await client.events(name, page_token=token)
        found += page.events
        token = page.next_page_token
        if not token:
            return found


async def read_twice(client: Client, job: str, port: str) -> None:
    """Return once a job and a recorder read a port."""
    looks = client.tap(job, port)
    async with asyncio.timeout(60), contextlib.aclosing(looks):
        async for look in looks:
            if len(look.consumers) == 2:
                return
