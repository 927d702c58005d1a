"""The API from a client's side, over a real channel to a real controller."""

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from control.controller import ControllerAddresses
from shoal.bundle import PackedBundle
from shoal.client import Client, SnapshotEnd
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState, ReasonCode
from shoal.spec import Job, Output, Pipeline, Resources, StreamInput
from shoal.v1 import (
    nodes_service_pb2,
    nodes_service_pb2_grpc,
    pipeline_pb2,
    pipelines_service_pb2,
    pipelines_service_pb2_grpc,
    session_service_pb2,
)
from shoal.view import PipelineView
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.until import until


def pipeline(*jobs: str, name: str = "hello") -> Pipeline:
    return Pipeline(name, tuple(Job(job, ("true",)) for job in jobs or ("greet",)))


async def refused(awaiting: Any) -> ShoalError:
    with pytest.raises(ShoalError) as error:
        await awaiting
    return error.value


async def test_a_pipeline_runs_from_submission_to_manifest(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await client.submit(pipeline("greet"))
    assert submitted.pipeline.state is PipelineState.QUEUED
    async with connected_agent(controller.grpc) as agent:
        await agent.run_to_success("greet", {"results/x ü.txt": b"hello\n", "stdout": b"said\n"})
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert ended.state is PipelineState.SUCCEEDED
    manifest = ended.jobs[0].manifest
    assert manifest is not None
    prefix = f"default/pipelines/{ended.id}/jobs/greet"
    assert [artifact.key for artifact in manifest.artifacts] == [
        f"{prefix}/attempts/1-1/out/results/x ü.txt",
        f"{prefix}/attempts/1-1/stdout",
    ]
    url = await client.artifact_url(manifest.artifacts[0])
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert await response.read() == b"hello\n"
    page = await client.events(ended.name)
    assert page.events[-1].id == ended.final_event_id
    assert page.publisher_state == "no broker configured: events are kept in the outbox"
    assert not any(event.published for event in page.events)


async def test_submissions_are_idempotent_by_key(client: Client) -> None:
    first = await client.submit(pipeline("a"), request_id="key-1")
    again = await client.submit(pipeline("a"), request_id="key-1")
    assert first.pipeline.spec == pipeline("a")
    assert not first.repeated
    assert again.repeated
    assert again.pipeline.name == first.pipeline.name
    error = await refused(client.submit(pipeline("b"), request_id="key-1"))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert "with another spec" in error.message
    assert error.metadata["pipeline"] == first.pipeline.name


async def test_many_submissions_at_once_are_all_recorded(client: Client) -> None:
    answers = await asyncio.gather(
        *(client.submit(pipeline("a", name=f"p{number}")) for number in range(300))
    )
    names = {answer.pipeline.name for answer in answers}
    assert len(names) == 300
    listed = [view.name async for view in client.list(page_size=70)]
    assert set(listed) == names
    assert len(listed) == 300
    queued = [view async for view in client.list([PipelineState.SUCCEEDED])]
    assert queued == []


async def test_a_bad_submission_says_which_field_and_the_others_go_through(
    controller: ControllerAddresses,
) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        call: Any = pipelines_service_pb2_grpc.PipelinesServiceStub(channel).SubmitPipelines()
        good = pipelines_service_pb2.SubmitPipelineRequest()
        good.spec.name = "good"
        job = good.spec.jobs.add()
        job.name = "a"
        job.run.append("true")
        bad = pipelines_service_pb2.SubmitPipelineRequest()
        bad.CopyFrom(good)
        bad.spec.jobs[0].name = "Not An Id"
        for _ in range(2):
            await call.write(
                pipelines_service_pb2.SubmitPipelinesRequest(requests=[good, bad, good])
            )
        for _ in range(2):
            outcomes = (await call.read()).outcomes
            kinds = [outcome.WhichOneof("outcome") for outcome in outcomes]
            assert kinds == ["response", "refusal", "response"]
            assert outcomes[1].refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert outcomes[1].refusal.reason == "INVALID_SPEC"
            assert "spec.jobs[0].name" in outcomes[1].refusal.message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_an_unknown_port_is_refused_with_the_names_that_exist(client: Client) -> None:
    wrong = Pipeline(
        "wrong",
        (
            Job("a", ("true",), outputs=(Output("frames"),)),
            Job("b", ("true",), streams=(StreamInput("frames", "a", "fames"),)),
        ),
    )
    error = await refused(client.submit(wrong))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert "fames" in error.message


@pytest.mark.parametrize(
    ("method", "request_message", "code", "reason"),
    [
        ("GetPipeline", {"name": "nobody-1"}, "NOT_FOUND", "UNKNOWN_PIPELINE"),
        ("GetPipeline", {"name": "UPPER"}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ("GetPipeline", {"name": "a", "namespace": "../x"}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ("GetPipeline", {}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ("CancelPipeline", {"name": "nobody-1"}, "NOT_FOUND", "UNKNOWN_PIPELINE"),
        (
            "CancelPipeline",
            {"name": "a", "reason": "x" * 1001},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        ),
        ("ListPipelines", {"page_size": -1}, "INVALID_ARGUMENT", "INVALID_PAGE_SIZE"),
        ("ListPipelines", {"page_token": "xyz"}, "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"),
        ("ListPipelines", {"page_token": "9" * 999}, "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"),
        ("ListPipelines", {"states": [77]}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ("ListEvents", {"name": "a/b/c"}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ("ListEvents", {"page_size": -5}, "INVALID_ARGUMENT", "INVALID_PAGE_SIZE"),
        ("ExplainJob", {"name": "p/j"}, "NOT_FOUND", "UNKNOWN_PIPELINE"),
        ("ExplainJob", {"name": "p"}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ("FindMissingBundles", {"digests": ["abc"]}, "INVALID_ARGUMENT", "INVALID_DIGEST"),
        ("GetArtifactUrl", {"key": "default/../x"}, "INVALID_ARGUMENT", "INVALID_KEY"),
        ("GetArtifactUrl", {"key": "other/x"}, "PERMISSION_DENIED", "OTHER_NAMESPACE"),
        ("GetArtifactUrl", {"key": "default/x"}, "NOT_FOUND", "UNKNOWN_OBJECT"),
    ],
)
async def test_every_field_is_checked(
    controller: ControllerAddresses,
    client: Client,
    method: str,
    request_message: dict[str, object],
    code: str,
    reason: str,
) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        message: Any = getattr(pipelines_service_pb2, f"{method}Request")(**request_message)
        call = client._held.connection.call(getattr(stub, method), message)
        error = await refused(call)
        assert (error.code, error.reason) == (code, reason)
        assert error.message


async def test_a_watch_shows_the_snapshot_its_end_and_what_changes(client: Client) -> None:
    before = await client.submit(pipeline("a", name="before"))
    seen: list[PipelineView | SnapshotEnd] = []
    async with contextlib.aclosing(client.watch()) as changes:
        async for change in changes:
            seen.append(change)
            if isinstance(change, SnapshotEnd):
                await client.submit(pipeline("a", name="after"))
            if isinstance(change, PipelineView) and change.spec.name == "after":
                break
    first, mark = seen[0], seen[1]
    assert isinstance(first, PipelineView)
    assert first.name == before.pipeline.name
    assert isinstance(mark, SnapshotEnd)
    assert mark.revision >= first.revision


async def test_a_watch_resumes_behind_a_revision_without_a_snapshot(
    controller: ControllerAddresses, client: Client
) -> None:
    first = (await client.submit(pipeline("a", name="first"))).pipeline
    second = (await client.submit(pipeline("a", name="second"))).pipeline
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        call: Any = stub.WatchPipelines(
            pipelines_service_pb2.WatchPipelinesRequest(since_revision=first.revision)
        )
        response = await call.read()
        assert response.pipeline.id == second.id
        call.cancel()
        unknown: Any = stub.WatchPipelines(
            pipelines_service_pb2.WatchPipelinesRequest(name="nobody-1")
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await unknown.read()
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_cancelling_tells_the_agent_and_ends_the_pipeline(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await client.submit(pipeline("greet"))
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("greet")).ref
        await agent.observe(ref, JobState.RUNNING)
        asked = await client.cancel(submitted.pipeline.name, "changed my mind")
        assert not asked.state.terminal
        await agent_is_told_to_stop(agent, ref.attempt)
        await agent.observe(
            ref, JobState.CANCELLED, reason=pipeline_pb2.Reason(code="CANCELLED", message="as told")
        )
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert ended.state is PipelineState.CANCELLED
    assert "changed my mind" in ended.reason.message


async def agent_is_told_to_stop(agent: ScriptedAgent, attempt: str) -> None:
    await until(
        lambda: agent.assignments[attempt].goal == session_service_pb2.GOAL_STOP,
        what="the order to stop",
    )


async def test_a_failure_is_told_with_its_reason(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await client.submit(pipeline("greet"))
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("greet")).ref
        reason = pipeline_pb2.Reason(code="EXIT", number=3, message="no such file: x")
        await agent.observe(ref, JobState.FAILED, reason=reason)
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert ended.state is PipelineState.FAILED
    assert ended.jobs[0].reason.short == "EXIT 3"
    assert ended.jobs[0].reason.code is ReasonCode.EXIT


async def test_a_job_that_fits_nowhere_is_explained(
    controller: ControllerAddresses, client: Client
) -> None:
    greedy = Pipeline("greedy", (Job("a", ("true",), resources=Resources(cpus=64)),))
    async with connected_agent(controller.grpc):
        view = (await client.submit(greedy)).pipeline
        (verdict,) = await client.explain(f"{view.name}/jobs/a")
    assert not verdict.feasible
    assert "64" in verdict.sentence
    assert (await client.get(view.name)).jobs[0].waiting_for


def packed(folder: Path, data: bytes) -> PackedBundle:
    path = folder / "bundle.tar"
    path.write_bytes(data)
    return PackedBundle(path, hashlib.sha256(data).hexdigest(), len(data), 1)


async def test_a_bundle_is_uploaded_once_and_reaches_the_agent(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    bundle = packed(tmp_path, b"a tar" * 600_000)
    assert await client.ensure_bundle(bundle)
    assert not await client.ensure_bundle(bundle)
    spec = Pipeline("b", (Job("a", ("true",)),), bundle_digest=bundle.digest)
    await client.submit(spec)
    async with connected_agent(controller.grpc) as agent:
        assignment = await agent.assignment("a")
    assert assignment.bundle_digest == bundle.digest
    async with aiohttp.ClientSession() as http, http.get(assignment.bundle_url) as response:
        assert hashlib.sha256(await response.read()).hexdigest() == bundle.digest


Upload = pipelines_service_pb2.UploadBundleRequest
GOOD = hashlib.sha256(b"data").hexdigest()


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "BUNDLE_EMPTY"),
        ([Upload(digest="x", size_bytes=4, data=b"data")], "INVALID_DIGEST"),
        ([Upload(digest=GOOD, size_bytes=0, data=b"data")], "BUNDLE_SIZE"),
        ([Upload(digest=GOOD, size_bytes=3, data=b"data")], "BUNDLE_SIZE"),
        ([Upload(digest=GOOD, size_bytes=5, data=b"data")], "BUNDLE_SIZE"),
        ([Upload(digest=GOOD, size_bytes=4, data=b"DATA")], "BUNDLE_DIGEST"),
        ([Upload(digest=GOOD, size_bytes=4, data=b"da"), Upload(data=b"tat")], "BUNDLE_SIZE"),
        ([Upload(digest=GOOD, size_bytes=1 << 30, data=b"x" * (1 << 21))], "BUNDLE_PIECE"),
    ],
)
async def test_a_bundle_that_is_not_what_it_says_is_refused(
    controller: ControllerAddresses, client: Client, requests: list[Upload], reason: str
) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)

        async def upload(_: None, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
            return await stub.UploadBundle(iter(requests), timeout=timeout)

        error = await refused(client._held.connection.call(upload, None))
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", reason)
        missing = await stub.FindMissingBundles(
            pipelines_service_pb2.FindMissingBundlesRequest(digests=[GOOD, GOOD])
        )
        assert list(missing.digests) == [GOOD]


async def test_nodes_are_listed_watched_and_drained(
    controller: ControllerAddresses, client: Client
) -> None:
    async with (
        connected_agent(controller.grpc, "node-b", labels={"role": "camera"}),
        connected_agent(controller.grpc, "node-a"),
    ):
        nodes = await client.nodes()
        assert [node.name for node in nodes] == ["node-a", "node-b"]
        assert nodes[1].connected
        assert nodes[1].labels == {"role": "camera"}
        assert (await client.drain("node-a")).drained
        assert (await client.node("node-a")).drained
        async with contextlib.aclosing(client.watch_nodes()) as changes:
            seen = [await anext(changes) for _ in range(3)]
        assert isinstance(seen[2], SnapshotEnd)
    error = await refused(client.node("nobody"))
    assert (error.code, error.reason) == ("NOT_FOUND", "UNKNOWN_NODE")
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
        watch: Any = stub.WatchNodes(nodes_service_pb2.WatchNodesRequest())
        shown = [await watch.read() for _ in range(3)]
        watch.cancel()
        # Cut off before the mark, a watcher begins again: it has not seen what it was not shown.
        assert [one.revision for one in shown[:2]] == [0, 0]
        assert shown[2].revision > 0
        page = await stub.ListNodes(nodes_service_pb2.ListNodesRequest(page_size=1))
        assert [node.name for node in page.nodes] == ["node-a"]
        rest = await stub.ListNodes(
            nodes_service_pb2.ListNodesRequest(page_size=1, page_token=page.next_page_token)
        )
        assert [node.name for node in rest.nodes] == ["node-b"]
        assert rest.next_page_token == ""


async def test_the_controller_is_a_member_with_its_address_as_a_tag(
    controller: ControllerAddresses, client: Client
) -> None:
    (member,) = await client.members()
    assert member.name == "controller"
    assert dict(member.tags) == {"role": "controller", "grpc": controller.grpc}
    assert f"{member.address}:{member.port}" == controller.gossip
