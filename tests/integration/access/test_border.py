"""Two namespaces beside each other: what a caller sees that is bound to one of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from shoal.channel import USER, channel_options, open_channel
from shoal.client import Client
from shoal.identity import Role
from shoal.model import JobState
from shoal.spec import FileInput, Job, Pipeline
from shoal.v1 import (
    lanes_service_pb2,
    lanes_service_pb2_grpc,
    pipelines_service_pb2,
    pipelines_service_pb2_grpc,
    streams_service_pb2,
)
from shoal.view import PipelineView, SnapshotEnd
from tests.integration.access.conftest import Cluster
from tests.integration.access.test_callers import first, reason_of, refused
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.until import until

CAMERA = Pipeline("camera", (Job("camera", ("true",)),))


@dataclass(frozen=True)
class Border:
    """A pipeline with a log and an artifact in each of two namespaces, on one node."""

    cluster: Cluster
    agent: ScriptedAgent
    lab: PipelineView
    yard: PipelineView


@pytest.fixture
async def border(cluster: Cluster) -> AsyncIterator[Border]:
    node = cluster.credentials(Role.NODE, "node-1")
    async with (
        connected_agent(cluster.address, credentials=node) as agent,
        cluster.client(Role.OPERATOR, asks="yard") as yard,
        cluster.client(Role.OPERATOR, asks="lab") as lab,
    ):
        ended: list[PipelineView] = []
        for client in (lab, yard):
            submitted = (await client.submit(CAMERA)).pipeline
            ref = (await agent.assignment("camera")).ref
            await agent.observe(ref, JobState.RUNNING)
            await agent.log(ref, f"said in {client.namespace}".encode())
            artifacts = await agent.upload(ref, {"out.txt": client.namespace.encode()})
            await agent.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
            ended.append(await client.wait(submitted.name, deadline_seconds=30))
            await until(lambda: not agent.assignments, what="the end of the assignment")
            agent.messages.clear()
        yield Border(cluster, agent, *ended)


def surfaces(client: Client, pipeline: PipelineView) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every way to ask about a pipeline of the namespace of a client."""
    manifest = pipeline.jobs[0].manifest
    assert manifest is not None
    name, job = pipeline.name, f"{pipeline.name}/jobs/camera"
    return {
        "get": lambda: client.get(name),
        "list": lambda: first(client.list()),
        "watch": lambda: first(client.watch(name)),
        "watch all": lambda: first(client.watch()),
        "logs": lambda: first(client.logs(name)),
        "log of a job": lambda: first(client.logs(job)),
        "explain": lambda: client.explain(job),
        "events": lambda: client.events(name),
        "all events": client.events,
        "artifacts of all jobs": lambda: first(client.artifacts(name, urls=True)),
        "artifact": lambda: client.artifact_url(manifest.artifacts[0]),
        "tap": lambda: first(client.tap(job, "frames")),
    }


async def test_a_bound_caller_reads_its_own_namespace_on_each_surface(border: Border) -> None:
    async with border.cluster.client(Role.VIEWER, "ann", "lab") as viewer:
        asked = surfaces(viewer, border.lab)
        assert (await refused(asked.pop("tap")())).reason == "UNKNOWN_PORT", "it has none"
        for surface, ask in asked.items():
            assert await ask() is not None, surface
        assert [one.id async for one in viewer.list()] == [border.lab.id]


async def test_a_bound_caller_is_refused_another_namespace_on_each_surface(border: Border) -> None:
    async with border.cluster.client(Role.VIEWER, "ann", "lab", asks="yard") as viewer:
        for surface, ask in surfaces(viewer, border.yard).items():
            error = await refused(ask())
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "OTHER_NAMESPACE"), surface


async def test_a_bound_submitter_steers_nothing_of_another_namespace(border: Border) -> None:
    async with border.cluster.client(Role.SUBMITTER, "ann", "lab", asks="yard") as submitter:
        name = border.yard.name
        for awaiting in (
            submitter.submit(CAMERA),
            submitter.cancel(name),
            submitter.finish(name),
            submitter.scale(name, "camera", 2),
        ):
            assert (await refused(awaiting)).reason == "OTHER_NAMESPACE"
    async with border.cluster.client(Role.SUBMITTER, "ann", "lab") as submitter:
        # Names of another namespace are none of its own.
        assert (await refused(submitter.get(border.yard.name))).reason == "UNKNOWN_PIPELINE"


async def test_a_key_of_another_namespace_has_no_address(border: Border) -> None:
    manifest = border.yard.jobs[0].manifest
    assert manifest is not None
    async with border.cluster.client(Role.VIEWER, "ann", "lab") as viewer:
        error = await refused(viewer.artifact_url(manifest.artifacts[0]))
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "OTHER_NAMESPACE")
        assert "lab" in error.message


async def test_a_job_reads_no_file_of_another_namespace(border: Border) -> None:
    manifest = border.yard.jobs[0].manifest
    assert manifest is not None
    thief = Pipeline(
        "thief",
        (Job("read", ("true",), files=(FileInput("data", manifest.artifacts[0].key, "data"),)),),
    )
    async with border.cluster.client(Role.SUBMITTER, "ann", "lab") as submitter:
        error = await refused(submitter.submit(thief))
        assert error.reason == "INVALID_SOURCE"
        assert "lab" in error.message


async def test_artifacts_are_listed_within_the_namespace(border: Border) -> None:
    credentials = border.cluster.credentials(Role.VIEWER, "ann", "lab")
    async with open_channel(border.cluster.address, channel_options(USER), credentials) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)

        async def listed(pipeline: PipelineView) -> int:
            request = pipelines_service_pb2.ListArtifactsRequest(
                name=f"{pipeline.name}/jobs/camera", namespace=pipeline.namespace
            )
            return len((await stub.ListArtifacts(request, timeout=20)).artifacts)

        assert await listed(border.lab) == 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await listed(border.yard)
        assert reason_of(error.value) == "OTHER_NAMESPACE"


async def test_lanes_are_opened_in_the_own_namespace_alone(border: Border) -> None:
    credentials = border.cluster.credentials(Role.SUBMITTER, "ann", "lab")
    async with open_channel(border.cluster.address, channel_options(USER), credentials) as channel:
        stub = lanes_service_pb2_grpc.LanesServiceStub(channel)

        async def pull(namespace: str) -> str:
            call = cast("Any", stub.PullLane(timeout=20))
            opened = streams_service_pb2.PullOpen(
                namespace=namespace, pipeline=border.yard.id, lane="camera.frames/x.y"
            )
            await call.write(lanes_service_pb2.PullLaneRequest(open=opened))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call.read()
            return reason_of(error.value)

        async def feed(namespace: str) -> str:
            call = cast("Any", stub.FeedLane(timeout=20))
            opened = streams_service_pb2.FeedOpen(
                namespace=namespace, pipeline=border.yard.id, lane="camera.frames/x.y"
            )
            await call.write(lanes_service_pb2.FeedLaneRequest(open=opened))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call.read()
            return reason_of(error.value)

        for open_lane in (pull, feed):
            assert await open_lane("yard") == "OTHER_NAMESPACE"
            assert await open_lane("") == "OTHER_NAMESPACE", "empty means `default`"
            assert await open_lane("lab") != "OTHER_NAMESPACE"


async def test_nodes_show_the_attempts_of_the_own_namespace_alone(border: Border) -> None:
    cluster = border.cluster
    async with (
        cluster.client(Role.OPERATOR, asks="yard") as yard,
        cluster.client(Role.OPERATOR, asks="lab") as lab,
        cluster.client(Role.VIEWER, "ann", "lab") as viewer,
    ):
        names = [(await client.submit(CAMERA)).pipeline.id for client in (lab, yard)]
        await until(lambda: len(border.agent.assignments) == 2, what="both jobs on the node")

        async def seen(client: Client) -> list[set[str]]:
            listed = {one for node in await client.nodes() for one in node.attempts}
            node = await client.node("node-1")
            watched: set[str] = set()
            async for change in client.watch_nodes():
                if isinstance(change, SnapshotEnd):
                    break
                watched |= set(change.attempts)
            return [
                {one.split("/")[1] for one in found}
                for found in (listed, set(node.attempts), watched)
            ]

        assert await seen(yard) == [set(names)] * 3
        assert await seen(viewer) == [{names[0]}] * 3


async def test_events_of_callers_are_shown_to_callers_of_all_namespaces(border: Border) -> None:
    cluster = border.cluster

    async def types(client: Client) -> set[str]:
        return {
            event.type.rpartition(".")[0] for event in (await client.events(page_size=1000)).events
        }

    async with cluster.client(Role.VIEWER, "ann", "lab") as bound:
        assert await types(bound) == {"shoal.pipeline", "shoal.job", "shoal.node"}
        page = await bound.events(page_size=1000)
        assert not any(border.yard.id in event.data_json for event in page.events)
    async with cluster.client(Role.VIEWER, "bob") as everywhere:
        assert "shoal.caller" in await types(everywhere)


async def test_a_caller_of_all_namespaces_sees_both(border: Border) -> None:
    for namespace, pipeline in (("lab", border.lab), ("yard", border.yard)):
        async with border.cluster.client(Role.VIEWER, "bob", asks=namespace) as viewer:
            assert (await viewer.get(pipeline.name)).id == pipeline.id
