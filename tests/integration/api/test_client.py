"""The client keeps its promises over real sockets: batches, cuts, restarts, clear errors."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from control.controller import ControllerAddresses
from control.front.object_key import bundle_key
from services.archive.artifact_key import artifact_key
from shoal import bundle, limits, spec, view
from shoal.channel import USER, channel_options
from shoal.client import Client, SnapshotEnd
from shoal.connection import Connection
from shoal.errors import ControllerUnreachableError, ShoalError, TooLateError
from shoal.model import JobState, PipelineState
from shoal.submitter import BATCH_MAX, Submitter
from shoal.v1 import pipeline_pb2, pipelines_service_pb2, pipelines_service_pb2_grpc
from shoal.wire.attempt import decode_attempt_ref
from shoal.wire.spec import encode_pipeline_spec
from tests.kit.gossip import running
from tests.kit.ports import free_port
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

PIPELINE = spec.Pipeline("hello", (spec.Job("say", ("echo", "hello")),))
LONG = spec.Pipeline("long", tuple(spec.Job(f"say-{n}", ("echo", "o" * 40_000)) for n in range(25)))
"""Two of its kind fill a message."""


@pytest.fixture
async def proxy() -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1:1") as opened:  # where nobody is yet
        yield opened


@contextlib.asynccontextmanager
async def serving(proxy: TcpProxy, state: Path) -> AsyncIterator[ControllerAddresses]:
    """Run a controller that the proxy leads to, and that bears an agent who says nothing for long."""
    async with running_controller(state, lease_seconds=600) as addresses:
        proxy.turn(addresses.grpc)
        yield addresses


@pytest.fixture
async def controller(proxy: TcpProxy, tmp_path: Path) -> AsyncIterator[ControllerAddresses]:
    async with serving(proxy, tmp_path / "controller") as addresses:
        yield addresses


@pytest.fixture
async def client(proxy: TcpProxy) -> AsyncIterator[Client]:
    async with Client(proxy.address) as opened:
        yield opened


class Batches(grpc.aio.StreamStreamClientInterceptor):
    """Counts the submissions of each message that leaves."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        async def counted() -> AsyncIterator[Any]:
            async for message in request_iterator:
                self.sizes.append(len(message.requests))
                yield message

        return await continuation(client_call_details, counted())


async def test_concurrent_submissions_travel_in_batches(controller: ControllerAddresses) -> None:
    batches = Batches()
    connection = Connection(controller.grpc)
    await connection.channel.close()
    connection.channel = grpc.aio.insecure_channel(
        controller.grpc, options=channel_options(USER), interceptors=[batches]
    )
    submitter = Submitter(connection)
    carrying = asyncio.create_task(submitter.run())
    spec = encode_pipeline_spec(PIPELINE)
    answers = await asyncio.gather(
        *(submitter.submit("default", f"key-{number}", spec) for number in range(3_000))
    )
    long = encode_pipeline_spec(LONG)  # a message of all of these would be too long for gRPC
    more = await asyncio.gather(
        *(submitter.submit("default", f"long-{number}", long) for number in range(20))
    )
    carrying.cancel()
    await asyncio.wait([carrying])
    await connection.channel.close()
    assert len({answer.pipeline.id for answer in answers + more}) == 3_020
    assert sum(batches.sizes) == 3_020
    assert 100 < max(batches.sizes) <= BATCH_MAX
    assert max(batches.sizes[-7:]) <= 2


async def test_what_waits_as_the_client_is_closed_is_given_up(proxy: TcpProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # connects, and never says a word
        proxy.turn(f"127.0.0.1:{server.getsockname()[1]}")
        async with Client(proxy.address) as opened:
            given_up = asyncio.create_task(opened.submit(PIPELINE))
            await until(lambda: proxy.accepted, what="the stream of batches")
        with pytest.raises(ShoalError, match="the client was closed before"):
            await given_up


async def test_a_watch_of_a_client_that_knows_no_more_shows_one_at_a_time(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await asyncio.gather(*(client.submit(PIPELINE) for _ in range(300)))
    shown: list[list[str]] = []
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        for together in (False, True):
            request = pipelines_service_pb2.WatchPipelinesRequest(together=together)
            call: Any = stub.WatchPipelines(request)
            responses: list[pipelines_service_pb2.WatchPipelinesResponse] = []
            while not responses or not responses[-1].HasField("snapshot_end"):
                responses.append(await call.read())
            call.cancel()
            pictures = [[one.pipeline, *one.pipelines] for one in responses[:-1]]
            shown.append([one.id for several in pictures for one in several if one.id])
            assert not any(one.revision for one in responses[:-1])
            assert (len(responses) < 10) is together
    assert shown[0] == shown[1]
    assert set(shown[0]) == {one.pipeline.id for one in submitted}


async def test_submissions_survive_a_restart_of_the_controller(
    proxy: TcpProxy, client: Client, tmp_path: Path
) -> None:
    async with serving(proxy, tmp_path):
        await client.submit(PIPELINE)
    tasks = [asyncio.create_task(client.submit(PIPELINE)) for _ in range(20)]
    async with serving(proxy, tmp_path):
        answers = await asyncio.gather(*tasks)
        assert len({answer.pipeline.id for answer in answers}) == 20
        assert len([pipeline async for pipeline in client.list()]) == 21


async def test_an_answer_lost_on_the_way_makes_no_second_pipeline(
    controller: ControllerAddresses, proxy: TcpProxy, client: Client
) -> None:
    await client.submit(PIPELINE)

    async def recorded() -> bool:
        async with Client(controller.grpc) as near:
            return len([pipeline async for pipeline in near.list()]) == 2

    proxy.mute()
    submitting = asyncio.create_task(client.submit(PIPELINE))
    await until(recorded, what="the second pipeline")
    assert not submitting.done()
    proxy.cut()
    assert (await submitting).repeated
    assert await recorded()


async def test_a_watch_shows_a_snapshot_then_changes_and_goes_on_after_a_cut(
    proxy: TcpProxy, client: Client, tmp_path: Path
) -> None:
    """It goes on over a restart of the controller, too."""
    seen: list[str] = []

    async def follow(name: str) -> None:
        async with contextlib.aclosing(client.watch(name)) as changes:
            async for change in changes:
                word = "end" if isinstance(change, SnapshotEnd) else change.jobs[0].state.name
                if seen[-1:] != [word]:  # a picture may come twice
                    seen.append(word)
                if word == "SUCCEEDED":
                    return

    async with serving(proxy, tmp_path) as first:
        name = (await client.submit(PIPELINE)).pipeline.id
        following = asyncio.create_task(follow(name))
        await until(lambda: "end" in seen, what="the snapshot")
        proxy.open = False
        proxy.cut()
        async with connected_agent(first.grpc) as agent:
            ref = (await agent.assignment("say")).ref
            await agent.observe(ref, JobState.RUNNING)
            proxy.open = True
            await until(lambda: "RUNNING" in seen, what="what changed during the cut")
            await agent.observe(ref, JobState.ARCHIVING)
            await until(lambda: "ARCHIVING" in seen, what="what changed after the cut")
    assert seen == ["QUEUED", "end", "RUNNING", "ARCHIVING"]
    async with serving(proxy, tmp_path) as second, ScriptedAgent(second.grpc) as agent:
        await agent.hello(observed(ref, JobState.ARCHIVING))
        await agent.observe(ref, JobState.SUCCEEDED)
        await following
    assert set(seen[4:]) <= {"end", "ARCHIVING", "SUCCEEDED"}
    assert proxy.accepted >= 3


async def test_waiting_ends_with_the_pipeline_or_the_deadline(
    controller: ControllerAddresses, proxy: TcpProxy, client: Client
) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    with pytest.raises(TooLateError, match=r"did not end within 0\.05 s"):
        await client.wait(name, deadline_seconds=0.05)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("say")).ref
        before = proxy.carried
        waiting = asyncio.create_task(client.wait(name, deadline_seconds=60))
        await until(lambda: proxy.carried > before, 30, "another watch")
        await agent.observe(ref, JobState.FAILED, reason=pipeline_pb2.Reason(code="EXIT"))
    assert (await waiting).state is PipelineState.FAILED


async def test_logs_come_once_despite_cuts(
    controller: ControllerAddresses, proxy: TcpProxy, client: Client
) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    got = b""
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("say")).ref
        await agent.log(ref, b"hello ")
        async for chunk in client.logs(name, follow=True):
            assert chunk.offset == len(got)
            got += chunk.data
            if got == b"hello ":
                await agent.log(ref, b"lo world", offset=3)
            elif got == b"hello world":
                proxy.cut()  # then all comes again, and more
                await agent.log(ref, b"!", offset=11)
                await agent.observe(ref, JobState.SUCCEEDED)
    assert got == b"hello world!"
    assert proxy.accepted >= 2


@pytest.mark.usefixtures("controller")
async def test_a_bundle_is_uploaded_only_when_it_is_missing(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/big").write_bytes(bytes(range(256)) * 20_000)
    with bundle.pack(bundle.BundleFolder(tmp_path / "in"), tmp_path) as packed:
        assert await client.ensure_bundle(packed)
        stored = tmp_path / "controller/archive" / bundle_key(packed.digest)
        assert stored.read_bytes() == packed.path.read_bytes()
        assert not await client.ensure_bundle(packed)


@pytest.mark.usefixtures("controller")
async def test_a_damaged_bundle_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with bundle.pack(bundle.BundleFolder(tmp_path / "in"), tmp_path) as packed:
        packed.path.write_bytes(b"x" * packed.size_bytes)
        with pytest.raises(ShoalError, match="the bundle was announced as") as caught:
            await client.ensure_bundle(packed)
    assert caught.value.reason == "BUNDLE_DIGEST"


async def test_lists_are_read_page_by_page(controller: ControllerAddresses, client: Client) -> None:
    names = [(await client.submit(PIPELINE)).pipeline.id for _ in range(5)]
    async with connected_agent(controller.grpc) as agent:
        ended = (await agent.run_to_success("say")).attempt.split("/")[1]
    assert [item.id async for item in client.list(page_size=2)] == names[::-1]
    assert [item.id async for item in client.list([PipelineState.SUCCEEDED])] == [ended]
    page = await client.events(page_size=2)
    assert len(page.events) == 2
    assert "no broker" in page.publisher_state
    rest = await client.events(page_token=page.next_page_token)
    every = (await client.events()).events
    shown = [event.id for event in (*page.events, *rest.events)]
    assert shown == [event.id for event in every[: len(shown)]]
    assert len(shown) > 2


@pytest.mark.usefixtures("controller")
async def test_events_are_found_by_type_and_time_in_both_directions_and_watched(
    client: Client,
) -> None:
    for _ in range(3):
        await client.cancel((await client.submit(PIPELINE)).pipeline.name, "enough")
    every = (await client.events()).events
    assert len(every) == 6
    ends = (await client.events(types=["shoal.pipeline.*"])).events
    assert [event.type for event in ends] == ["shoal.pipeline.cancelled"] * 3
    page = await client.events(page_size=4, newest_first=True)
    rest = await client.events(page_size=4, newest_first=True, page_token=page.next_page_token)
    assert (*page.events, *rest.events) == every[::-1]
    assert not rest.next_page_token
    since = every[2].time
    assert since is not None
    assert (await client.events(since=since)).events == every[2:]
    assert (await client.events(until=since)).events == every[:2]
    with pytest.raises(ShoalError, match="goes on to newer events"):
        await client.events(newest_first=True, page_token=str(every[2].sequence))
    for wrong in ("Shoal Job", "shoal.*.failed", "*"):
        with pytest.raises(ShoalError, match="is no type of events"):
            await client.events(types=[wrong])
    with pytest.raises(ShoalError, match="33 types of events"):
        await client.events(types=["shoal.x"] * 33)
    async with contextlib.aclosing(client.watch_events(after=every[3].sequence)) as watch:
        told = await anext(watch)
        assert (told.events, told.caught_up, told.missing) == (every[4:], True, False)
        await client.cancel((await client.submit(PIPELINE)).pipeline.name, "enough")
        news = [event.id for event in (await anext(watch)).events]
        assert news[0] == (await client.events(page_token=str(told.sequence))).events[0].id
    async with contextlib.aclosing(client.watch_events(since=since)) as watch:
        assert (await anext(watch)).events[:4] == every[2:]
    with pytest.raises(ShoalError, match="was never recorded here") as refused:
        await anext(client.watch_events(after=1000))
    assert (refused.value.code, refused.value.reason) == ("OUT_OF_RANGE", "UNKNOWN_SEQUENCE")


async def test_artifacts_that_a_picture_leaves_out_are_read_page_by_page(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    count = 2 * limits.SHOWN_ARTIFACTS_MAX + 1
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("say")).ref
        attempt = decode_attempt_ref(ref, "ref")
        paths = [f"results/{number:05}" for number in range(count)]
        artifacts = [
            pipeline_pb2.Artifact(
                path=path, size_bytes=1, sha256=f"{1:064x}", key=artifact_key(attempt, path)
            )
            for path in paths
        ]
        await agent.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
    [picture] = [pipeline.jobs[0].manifest async for pipeline in client.list()]
    assert picture is not None
    assert picture.left_out == count - limits.SHOWN_ARTIFACTS_MAX
    whole = (await client.get(name)).jobs[0].manifest
    assert whole is not None
    assert [artifact.path for artifact in whole.artifacts] == paths
    assert whole.left_out == 0


async def test_nodes_members_and_verdicts(controller: ControllerAddresses, client: Client) -> None:
    async with (
        connected_agent(controller.grpc, "node-1"),
        connected_agent(controller.grpc, "node-2"),
        running("node-1", preset="local", seeds=(controller.gossip,), tags={"role": "agent"}),
    ):
        assert [node.name for node in await client.nodes()] == ["node-1", "node-2"]
        assert (await client.drain("node-1")).drained
        assert (await client.node("node-1")).drained
        assert not (await client.drain("node-1", drained=False)).drained
        roles = await until(lambda: other_roles(client), what="another member")
        assert roles == ["agent"]
        name = (await client.submit(PIPELINE)).pipeline.id
        verdicts = await client.explain(f"pipelines/{name}/jobs/say")
        said = sorted(verdict.sentence for verdict in verdicts)
        assert [sentence[:12] for sentence in said] == ["Node node-1 ", "Node node-2 "]


async def other_roles(client: Client) -> list[str]:
    members = await client.members()
    return [member.tags["role"] for member in members if member.name != "controller"]


async def test_a_member_that_was_forgotten_during_a_cut_is_said_to_be_gone(
    proxy: TcpProxy, client: Client, tmp_path: Path
) -> None:
    """A controller that begins again does not know who left meanwhile."""
    seen: list[str] = []

    async def follow() -> None:
        async with contextlib.aclosing(client.watch_members()) as changes:
            async for change in changes:
                if not isinstance(change, SnapshotEnd):
                    seen.append(f"{change.name} {change.state.name}")
                    continue
                seen.append("end")
                if seen.count("end") == 2:
                    return

    async with (
        serving(proxy, tmp_path) as first,
        running("node-1", preset="local", seeds=(first.gossip,), tags={"role": "agent"}),
    ):
        await until(lambda: other_roles(client), what="another member")
        following = asyncio.create_task(follow())
        await until(lambda: "end" in seen, what="the snapshot")
        proxy.open = False
        proxy.cut()
    proxy.open = True
    async with serving(proxy, tmp_path):
        await following
    assert sorted(seen[:2]) == ["controller ALIVE", "node-1 ALIVE"]
    assert seen[2:] == ["end", "controller ALIVE", "node-1 UNKNOWN", "end"]


@pytest.mark.usefixtures("controller")
async def test_an_unknown_pipeline_is_an_error_with_a_reason(client: Client) -> None:
    with pytest.raises(ShoalError) as caught:
        await client.get("nobody")
    assert (caught.value.reason, caught.value.code) == ("UNKNOWN_PIPELINE", "NOT_FOUND")
    with pytest.raises(ShoalError, match="has no pipeline 'nobody'"):
        await client.wait("nobody")


async def test_nobody_at_the_address_is_said_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with Client(address) as client:
        for call in (client.get("x"), client.wait("x"), client.submit(PIPELINE)):
            with pytest.raises(ControllerUnreachableError, match=r"connection refused.*shoal up"):
                await call


async def test_a_silent_server_is_given_up_after_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # connects, and never says a word
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with Client(address, deadline_seconds=0.2) as client:
            with pytest.raises(ShoalError):
                await client.get("x")
            with pytest.raises(
                TooLateError, match=r"did not record the pipeline 'hello' within 0\.2 s"
            ):
                await client.submit(PIPELINE)


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:http", "host:70000"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ShoalError, match="write HOST:PORT"):
        Client(address)


async def test_errors_of_the_body_pass_as_they_are(controller: ControllerAddresses) -> None:
    with pytest.raises(KeyError):
        async with Client(controller.grpc):
            raise KeyError("mine")


async def test_cancellation_passes(controller: ControllerAddresses) -> None:
    watching = asyncio.Event()

    def shown(_: view.PipelineView) -> bool:
        watching.set()
        return False

    async def body() -> None:
        async with Client(controller.grpc) as client:
            await client.when((await client.submit(PIPELINE)).pipeline.id, shown)

    task = asyncio.create_task(body())
    await watching.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
