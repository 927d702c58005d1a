"""Whom a controller with identity lets in, over real TLS."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.rpc import error_details_pb2, status_pb2

from services.identity.access.rule import ROLES, Verb
from services.identity.access.rules import RULES
from services.runtime.rpc import STATUS_DETAILS
from shoal import bundle
from shoal.channel import USER, channel_options, open_channel
from shoal.client import Client
from shoal.credentials import Credentials
from shoal.errors import ShoalError
from shoal.identity import Role
from shoal.spec import Job, Pipeline
from shoal.v1 import (
    nodes_service_pb2,
    nodes_service_pb2_grpc,
    pipelines_service_pb2,
    pipelines_service_pb2_grpc,
)
from shoal.view import Event
from shoal.wire.spec import encode_pipeline_spec
from tests.integration.access.conftest import Cluster
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.until import until
from tests.unit.access.test_rules import METHODS

PIPELINE = Pipeline("hello", (Job("greet", ("true",)),))


async def refused(awaiting: Any) -> ShoalError:
    with pytest.raises(ShoalError) as error:
        await awaiting
    return error.value


async def first(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    return reason_in(error.trailing_metadata())


def reason_in(metadata: Any) -> str:
    """The reason in the details of a status; empty if it has none."""
    for key, value in metadata or ():
        if key == STATUS_DETAILS:
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            return str(info.reason)
    return ""


async def answer_of(channel: grpc.aio.Channel, path: str) -> tuple[grpc.StatusCode, str]:
    """Call a method with an empty request, and return how that ends."""
    request: bytes = message_factory.GetMessageClass(METHODS[path].input_type)().SerializeToString()
    # A call with one request looks the same on the wire, whichever kind it is.
    call = cast("Any", channel.stream_stream(path))
    stream = call(timeout=20)
    try:
        await stream.write(request)
        await stream.done_writing()
        if await stream.read() is not grpc.aio.EOF:
            stream.cancel()
            return grpc.StatusCode.OK, ""
    except grpc.aio.AioRpcError as error:
        return error.code(), reason_of(error)
    return await stream.code(), reason_in(await stream.trailing_metadata())


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUBMITTER, Role.NODE, Role.CONTROLLER])
async def test_a_role_is_refused_whatever_it_may_not(cluster: Cluster, role: Role) -> None:
    denied = [path for path, rule in RULES.items() if role not in ROLES[rule.verb]]
    assert denied
    credentials = cluster.credentials(role, "ann")
    async with open_channel(cluster.address, channel_options(USER), credentials) as channel:
        for path in denied:
            code, reason = await answer_of(channel, path)
            if code is not grpc.StatusCode.UNIMPLEMENTED:
                assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"), path


async def test_a_viewer_reads_and_does_not_submit(cluster: Cluster) -> None:
    async with cluster.client(Role.VIEWER) as viewer:
        assert [one async for one in viewer.list()] == []
        error = await refused(viewer.submit(PIPELINE))
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
        assert "viewer/ann may not call PipelinesService.SubmitPipelines" in error.message
        error = await refused(viewer.drain("node-1"))
        assert error.reason == "NOT_ALLOWED"


async def test_a_submitter_runs_in_its_own_namespace_alone(cluster: Cluster) -> None:
    async with cluster.client(Role.SUBMITTER, "ann", "lab") as submitter:
        submitted = await submitter.submit(PIPELINE)
        assert submitted.pipeline.namespace == "lab"
        await submitter.cancel(submitted.pipeline.name)
    async with cluster.client(Role.SUBMITTER, "ann", "lab", asks="yard") as submitter:
        for error in (
            await refused(submitter.submit(PIPELINE)),
            await refused(submitter.cancel(submitted.pipeline.name)),
        ):
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "OTHER_NAMESPACE")
            assert "yard" in error.message
            assert "lab" in error.message


async def test_a_stream_of_submissions_is_looked_at_message_by_message(cluster: Cluster) -> None:
    """The first message may be the caller's own namespace, and the second another one."""
    credentials = cluster.credentials(Role.SUBMITTER, "ann", "lab")
    async with open_channel(cluster.address, channel_options(USER), credentials) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        call: Any = stub.SubmitPipelines(timeout=20)

        async def submit(*namespaces: str) -> None:
            requests = [
                pipelines_service_pb2.SubmitPipelineRequest(
                    namespace=one, spec=encode_pipeline_spec(PIPELINE)
                )
                for one in namespaces
            ]
            await call.write(pipelines_service_pb2.SubmitPipelinesRequest(requests=requests))

        await submit("lab")
        assert (await call.read()).outcomes[0].response.pipeline.namespace == "lab"
        await submit("lab", "yard")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert reason_of(error.value) == "OTHER_NAMESPACE"
    async with cluster.client(Role.OPERATOR, asks="yard") as operator:
        assert [one async for one in operator.list()] == []


async def test_a_node_speaks_for_itself_alone(cluster: Cluster) -> None:
    credentials = cluster.credentials(Role.NODE, "cam-1")
    async with connected_agent(cluster.address, "cam-1", credentials=credentials):
        async with ScriptedAgent(cluster.address, "cam-2", credentials=credentials) as false:
            await false.hello()
            assert false.error is not None
            assert reason_of(false.error) == "OTHER_NODE"
        async with ScriptedAgent(cluster.address, "cam-1", credentials=credentials) as false:
            false.member = "cam-2"
            await false.hello()
            assert false.error is not None
            assert reason_of(false.error) == "OTHER_NODE"
        async with cluster.client(Role.OPERATOR) as operator:
            assert [node.name for node in await operator.nodes()] == ["cam-1"]


async def test_a_node_drains_itself_and_an_operator_takes_it_back(cluster: Cluster) -> None:
    credentials = cluster.credentials(Role.NODE, "cam-1")
    async with (
        connected_agent(cluster.address, "cam-1", credentials=credentials),
        open_channel(cluster.address, channel_options(USER), credentials) as channel,
    ):
        stub = nodes_service_pb2_grpc.NodesServiceStub(channel)

        async def drain(name: str, *, drained: bool = True) -> str:
            request = nodes_service_pb2.DrainNodeRequest(name=name, drained=drained)
            try:
                await stub.DrainNode(request, timeout=20)
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return ""

        assert await drain("cam-1") == ""
        assert await drain("cam-2") == "OTHER_NODE"
        assert await drain("cam-1", drained=False) == "NOT_ALLOWED"
        async with cluster.client(Role.OPERATOR) as operator:
            assert not (await operator.drain("cam-1", drained=False)).drained


async def test_a_gateway_calls_for_a_user_that_it_names(cluster: Cluster) -> None:
    async def list_nodes(credentials: Credentials, user: str) -> str:
        metadata = (("shoal-user", user),) if user else ()
        async with open_channel(cluster.address, channel_options(USER), credentials) as channel:
            stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
            try:
                request = nodes_service_pb2.ListNodesRequest()
                await stub.ListNodes(request, timeout=20, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return ""

    gateway = cluster.credentials(Role.GATEWAY, "web")
    assert await list_nodes(gateway, "ann") == ""
    assert await list_nodes(gateway, "") == "USER_MISSING"
    assert await list_nodes(gateway, "Ann Other") == "USER_INVALID"
    assert await list_nodes(cluster.credentials(Role.OPERATOR, "bob"), "ann") == "USER_NOT_ALLOWED"


async def test_a_pipeline_of_a_gateway_has_its_user_as_creator(cluster: Cluster) -> None:
    gateway = cluster.credentials(Role.GATEWAY, "web")
    async with open_channel(cluster.address, channel_options(USER), gateway) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        request = pipelines_service_pb2.SubmitPipelineRequest(spec=encode_pipeline_spec(PIPELINE))
        answer = await stub.SubmitPipeline(request, timeout=20, metadata=(("shoal-user", "bob"),))
    assert answer.pipeline.creator == "gateway/web for bob"
    async with cluster.client(Role.OPERATOR) as operator:
        assert (await operator.get(answer.pipeline.name)).creator == "gateway/web for bob"
        (event,) = await caller_events(operator)
    told = json.loads(event.data_json)
    assert (told["caller"], told["user"]) == ("gateway/web", "bob")
    assert event.subject == "callers/gateway/web"


async def test_changes_are_told_with_who_made_them(cluster: Cluster) -> None:
    node = cluster.credentials(Role.NODE, "cam-1")
    async with (
        connected_agent(cluster.address, "cam-1", credentials=node),
        cluster.client(Role.OPERATOR) as operator,
    ):
        submitted = (await operator.submit(PIPELINE, request_id="r-1")).pipeline
        await operator.submit(PIPELINE, request_id="r-1")  # changes nothing
        await operator.cancel(submitted.name)
        await operator.drain("cam-1")
        await refused(operator.cancel("pipelines/nothing"))  # neither
        told = [json.loads(event.data_json) for event in await caller_events(operator)]
    assert [(one["method"], one["name"], one["namespace"]) for one in told] == [
        ("PipelinesService.SubmitPipelines", submitted.name, "default"),
        ("PipelinesService.CancelPipeline", submitted.name, "default"),
        ("NodesService.DrainNode", "nodes/cam-1", ""),
    ]
    assert {one["caller"] for one in told} == {"operator/ann"}
    assert {one["address"] for one in told} == {"127.0.0.1"}


async def caller_events(client: Any) -> list[Event]:
    page = await client.events(page_size=1000)
    return [event for event in page.events if event.type.startswith("shoal.caller.")]


async def test_a_caller_beyond_its_quota_is_refused(tmp_path: Any) -> None:
    async with running_controller(
        tmp_path / "c",
        insecure=False,
        caller_watches=1,
        caller_spec_bytes=10,
        caller_bundle_bytes=10,
    ) as addresses:
        cluster = Cluster(addresses.grpc, tmp_path / "c")
        async with cluster.client(Role.OPERATOR) as operator, cluster.client(Role.OPERATOR) as two:
            watching = operator.watch()
            await first(watching)
            await two.nodes()  # one that was answered before would dial again for long after a cut
            error = await refused(first(two.watch()))
            assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA")
            assert "--caller-watches" in error.message
            await watching.aclose()

            async def free() -> bool:
                again = two.watch()
                try:
                    await first(again)
                except ShoalError:
                    return False
                finally:
                    await again.aclose()
                return True

            await until(free, what="room for a watch")
        async with cluster.client(Role.OPERATOR) as operator:
            error = await refused(operator.submit(PIPELINE))
            assert "--caller-spec-bytes" in error.message
            (tmp_path / "job").mkdir()
            (tmp_path / "job" / "run.py").write_text("print(1)")
            with bundle.pack(bundle.BundleFolder(tmp_path / "job"), tmp_path) as packed:
                error = await refused(operator.ensure_bundle(packed))
            assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA")
            assert "--caller-bundle-bytes" in error.message


async def test_a_client_beyond_its_rate_of_calls_waits_as_it_was_told(tmp_path: Any) -> None:
    async with running_controller(tmp_path / "c", insecure=False, caller_calls=10) as addresses:
        cluster = Cluster(addresses.grpc, tmp_path / "c")
        async with cluster.client(Role.OPERATOR) as operator:
            answers = await asyncio.gather(*(operator.nodes() for _ in range(40)))
            assert answers == [()] * 40


async def test_a_client_that_cannot_wait_so_long_is_told_when_to_call_again(tmp_path: Any) -> None:
    async with running_controller(tmp_path / "c", insecure=False, caller_calls=1) as addresses:
        cluster = Cluster(addresses.grpc, tmp_path / "c")
        proof = cluster.credentials(Role.OPERATOR, "ann")
        async with Client(addresses.grpc, credentials=proof, deadline_seconds=5) as operator:
            asked = (operator.nodes() for _ in range(40))
            answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [one for one in answers if isinstance(one, ShoalError) and one.reason == "QUOTA"]
        assert told
        for error in told:
            assert error.code == "RESOURCE_EXHAUSTED"
            assert 0 < error.retry_seconds <= 1
            assert "--caller-calls" in error.message


async def test_health_and_reflection_are_for_people_of_the_cluster(cluster: Cluster) -> None:
    known = [path for path, rule in RULES.items() if rule.verb is Verb.KNOW]
    credentials = cluster.credentials(Role.VIEWER, "ann", "lab")
    async with open_channel(cluster.address, channel_options(USER), credentials) as channel:
        for path in known:
            code, _ = await answer_of(channel, path)
            assert code not in {
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNAUTHENTICATED,
            }, path
