"""Sessions of agents: what is acknowledged is committed, and what is stale or broken is refused."""

import asyncio
from pathlib import Path

import grpc
import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from shoal.names import parse_attempt
from shoal.spec import FileInput, Job, Pipeline, Place
from shoal.v1 import pipeline_pb2, session_service_pb2
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.spoken import SPOKEN_SESSIONS
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

ONE = Pipeline("one", (Job("a", ("true",)),))
Message = session_service_pb2.AgentMessage
Request = session_service_pb2.ConnectRequest

HELLO = session_service_pb2.Hello(node="n", protocols=SPOKEN_SESSIONS)


async def test_welcome_comes_first_and_the_snapshot_second(
    controller: ControllerAddresses,
) -> None:
    async with connected_agent(controller.grpc) as agent:
        welcome, snapshot = agent.messages[:2]
        assert welcome.welcome.lease_seconds == 6
        assert welcome.welcome.heartbeat_seconds == 1
        assert welcome.welcome.controller_id.startswith("controller-")
        assert snapshot.desired.snapshot
        assert not snapshot.desired.assignments


async def test_a_reconnect_begins_with_everything_that_should_run(
    controller: ControllerAddresses, client: Client
) -> None:
    async with connected_agent(controller.grpc) as agent:
        await client.submit(ONE)
        ref = (await agent.assignment("a")).ref
        await agent.observe(ref, JobState.RUNNING)
    async with ScriptedAgent(controller.grpc) as again:
        await again.hello(observed(ref, JobState.RUNNING))
        assert [one.ref for one in again.messages[1].desired.assignments] == [ref]
        assert again.messages[1].desired.snapshot


async def test_an_observation_may_come_twice(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        for _ in range(3):
            await agent.observe(ref, JobState.RUNNING)
        await agent.observe(ref, JobState.SUCCEEDED)
        await agent.observe(ref, JobState.SUCCEEDED)
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert len(ended.jobs[0].attempts) == 1
    assert ended.state is PipelineState.SUCCEEDED


async def test_a_stale_epoch_is_fenced(controller: ControllerAddresses, client: Client) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        stale = session_service_pb2.AttemptRef(
            attempt=ref.attempt, namespace=ref.namespace, epoch=ref.epoch + 7
        )
        await agent.observe(stale, JobState.SUCCEEDED)
        refused = await until(agent.refused, what="the refusal")
        assert (refused[0].reason, refused[0].ref) == ("FENCED", stale)
        wanted = session_service_pb2.UploadsWanted(
            ref=stale, artifacts=[pipeline_pb2.Artifact(path="x", size_bytes=1, sha256="ab" * 32)]
        )
        await agent.send(Message(uploads_wanted=wanted))
        await until(lambda: len(agent.refused()) == 2, what="the second refusal")
        assert agent.granted() is None
        await agent.observe(ref, JobState.RUNNING)  # the session goes on


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
async def test_no_grant_leads_out_of_the_attempts_own_prefix(
    controller: ControllerAddresses, client: Client, path: str
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        artifact = pipeline_pb2.Artifact(path=path, size_bytes=1, sha256="ab" * 32)
        wanted = session_service_pb2.UploadsWanted(ref=ref, artifacts=[artifact])
        await agent.send(Message(uploads_wanted=wanted))
        granted = await until(agent.granted, what="the answer")
        assert granted is not None
        assert [(grant.path, grant.url, grant.key) for grant in granted.grants] == [(path, "", "")]
        assert granted.grants[0].problem


async def test_a_success_with_somebody_elses_objects_is_not_committed(
    controller: ControllerAddresses, client: Client
) -> None:
    submitted = await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        theirs = pipeline_pb2.Artifact(
            path="results/x", size_bytes=1, sha256="ab" * 32, key="other/pipelines/p/x"
        )
        await agent.observe(ref, JobState.SUCCEEDED, artifacts=[theirs])
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert ended.state is PipelineState.FAILED
    assert ended.jobs[0].reason.short == "ARCHIVE"
    assert "other/pipelines/p/x" in ended.jobs[0].reason.message
    assert ended.jobs[0].manifest is None


async def test_keys_are_the_attempts_prefix_and_path(
    controller: ControllerAddresses, client: Client
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        prefix = parse_attempt(ref.attempt, ref.namespace, ref.epoch).prefix
        artifacts = await agent.upload(ref, {"stdout": b"1", "results/stdout": b"2", "ü +%": b""})
        assert [artifact.key for artifact in artifacts] == [
            f"{prefix}/stdout",
            f"{prefix}/out/results/stdout",
            f"{prefix}/out/ü +%",
        ]


async def test_a_log_is_taken_from_the_node_that_runs_it_alone(
    controller: ControllerAddresses, client: Client
) -> None:
    """A stranger names an attempt of another node in its Hello, and ships a log in its name."""
    name = (await client.submit(ONE)).pipeline.name
    async with connected_agent(controller.grpc, "node-1") as agent:
        ref = (await agent.assignment("a")).ref
        await agent.observe(ref, JobState.RUNNING)
        async with ScriptedAgent(controller.grpc, "node-2") as stranger:
            await stranger.hello(observed(ref, JobState.RUNNING))
            await stranger.log(ref, b"not what it said\n")
        await agent.log(ref, b"what it said\n")
        await agent.observe(ref, JobState.SUCCEEDED)
        await agent.log(ref, b"and its last words\n", offset=13)  # it was its node's
    data = b"".join([chunk.data async for chunk in client.logs(name)])
    assert data == b"what it said\nand its last words\n"


async def test_file_inputs_come_with_addresses(
    controller: ControllerAddresses, client: Client
) -> None:
    files = {
        "web": "https://example.org/model.bin",
        "kept": "default/pipelines/p/jobs/j/attempts/1-1/out/x",
    }
    job = Job(
        "a",
        ("true",),
        files=tuple(FileInput(name, source, f"in/{name}") for name, source in files.items()),
    )
    await client.submit(Pipeline("files", (job,)))
    async with connected_agent(controller.grpc) as agent:
        urls = dict((await agent.assignment("a")).file_urls)
    assert urls.keys() == {"web", "kept"}
    assert urls["web"] == files["web"]
    assert urls["kept"].startswith(f"http://{controller.objects}/objects/default/pipelines/")


async def test_no_bucket_is_a_source_unless_it_is_listed(
    controller: ControllerAddresses, client: Client
) -> None:
    del controller
    files = (FileInput("x", "s3://models/x", "in/x"),)
    with pytest.raises(ShoalError, match="--source-buckets") as refused:
        await client.submit(Pipeline("files", (Job("a", ("true",), files=files),)))
    assert refused.value.reason == "INVALID_SOURCE"


async def test_a_newer_session_of_a_node_ends_the_older(controller: ControllerAddresses) -> None:
    async with connected_agent(controller.grpc) as older, connected_agent(controller.grpc) as newer:
        await until(lambda: older.ended, what="the end of the older session")
        assert older.error is not None
        assert older.error.code() is grpc.StatusCode.ABORTED
        await newer.committed(await newer.send(Message()))
        assert not newer.ended


async def test_an_agent_that_leaves_in_good_order_is_gone_at_once(
    controller: ControllerAddresses, client: Client
) -> None:
    async with connected_agent(controller.grpc) as agent:
        await agent.end()
        assert agent.error is None
    await until(lambda: gone(client), what="the node is not connected")


async def gone(client: Client) -> bool:
    return not (await client.node("node-1")).connected


@pytest.mark.parametrize(
    ("requests", "code", "words"),
    [
        ([Request(sequence=1)], grpc.StatusCode.INVALID_ARGUMENT, "Hello"),
        (
            [Request(sequence=1, messages=[Message(heartbeat=session_service_pb2.Heartbeat())])],
            grpc.StatusCode.INVALID_ARGUMENT,
            "Hello",
        ),
        (
            [Request(sequence=1, messages=[Message(hello=session_service_pb2.Hello(node="X Y"))])],
            grpc.StatusCode.INVALID_ARGUMENT,
            "hello.node",
        ),
        (
            [
                Request(
                    sequence=5,
                    messages=[
                        Message(
                            hello=session_service_pb2.Hello(node="n", protocols=SPOKEN_SESSIONS)
                        )
                    ],
                )
            ],
            grpc.StatusCode.INVALID_ARGUMENT,
            "expected",
        ),
        (
            [
                Request(
                    sequence=1,
                    messages=[
                        Message(
                            hello=session_service_pb2.Hello(node="n", protocols=SPOKEN_SESSIONS)
                        )
                    ],
                ),
                Request(sequence=3),
            ],
            grpc.StatusCode.INVALID_ARGUMENT,
            "expected",
        ),
    ],
)
async def test_a_stream_that_breaks_the_contract_is_ended_with_the_reason(
    controller: ControllerAddresses, requests: list[Request], code: grpc.StatusCode, words: str
) -> None:
    async with ScriptedAgent(controller.grpc) as agent:
        for request in requests:
            await agent.send_request(request)
        await until(lambda: agent.ended, what="the end of the stream")
        assert agent.error is not None
        assert agent.error.code() is code
        assert words in (agent.error.details() or "")


async def test_messages_that_break_the_contract_are_refused_one_by_one(
    controller: ControllerAddresses, client: Client
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        bad_name = session_service_pb2.AttemptRef(attempt="../..", namespace="x", epoch=1)
        sequence = await agent.send(
            Message(observed=observed(bad_name, JobState.RUNNING)),
            Message(hello=session_service_pb2.Hello(node="node-1")),
            Message(),
            Message(observed=observed(ref, JobState.RUNNING)),
        )
        await agent.committed(sequence)
        await until(lambda: len(agent.refused()) == 2, what="two refusals")
        assert {refused.reason for refused in agent.refused()} == {"INVALID_FIELD"}
        (view,) = (await client.get(ref.attempt.split("/")[1])).jobs
        assert view.state is JobState.RUNNING


async def test_an_attempt_that_cannot_be_read_does_not_lock_its_agent_out(
    controller: ControllerAddresses, client: Client
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.observe(ref, JobState.RUNNING)
    bad = session_service_pb2.AttemptObserved(attempt="what?", epoch=1)
    async with ScriptedAgent(controller.grpc) as again:
        await again.hello(bad, observed(ref, JobState.RUNNING))
        assert [one.ref for one in again.messages[1].desired.assignments] == [ref]


async def test_many_agents_at_once(controller: ControllerAddresses, client: Client) -> None:
    count = 20
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            place = Place(require={"number": str(number)})
            await client.submit(Pipeline(f"p{number}", (Job("a", ("true",), place=place),)))
            tasks.create_task(one_agent(controller, number))
        await until(lambda: all_succeeded(client, count), 30, "every pipeline succeeded")


async def one_agent(controller: ControllerAddresses, number: int) -> None:
    labels = {"number": str(number)}
    async with connected_agent(controller.grpc, f"node-{number}", labels=labels) as agent:
        await agent.run_to_success("a", {"results/x": b"%d" % number})


async def all_succeeded(client: Client, count: int) -> bool:
    found = [view async for view in client.list([PipelineState.SUCCEEDED])]
    return len(found) == count


async def test_a_cut_cable_ends_the_session_and_nothing_else(
    controller: ControllerAddresses, client: Client
) -> None:
    await client.submit(ONE)
    async with TcpProxy(controller.grpc) as proxy:
        agent = ScriptedAgent(proxy.address)
        async with agent:
            await agent.hello()
            ref = (await agent.assignment("a")).ref
            await agent.observe(ref, JobState.RUNNING)
            # No goodbye, no reset: the other end is simply not there any more.
            proxy.stall()
            await until(lambda: gone(client), 15, "the controller notices")
            async with ScriptedAgent(controller.grpc) as again:
                await again.hello(observed(ref, JobState.RUNNING))
                assert [one.ref for one in again.messages[1].desired.assignments] == [ref]
            proxy.cut()


async def test_a_frozen_agent_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with (
        running_controller(
            tmp_path / "controller", lease_seconds=1.0, heartbeat_seconds=0.2
        ) as controller,
        Client(controller.grpc) as client,
        connected_agent(controller.grpc, "frozen") as frozen,
        connected_agent(controller.grpc, "lively", cpus=64) as lively,
    ):
        # It keeps its connection and says nothing: only the lease tells.
        beat = asyncio.create_task(beating(lively))
        await until(lambda: frozen.ended, 15, "the end of the frozen session")
        assert frozen.error is not None
        assert frozen.error.code() is grpc.StatusCode.ABORTED
        name = (await client.submit(ONE)).pipeline.name
        await lively.run_to_success("a")
        assert (await client.wait(name, deadline_seconds=10)).state is PipelineState.SUCCEEDED
        assert not lively.ended
        beat.cancel()


async def beating(agent: ScriptedAgent) -> None:
    """Speak as often as the controller answers."""
    while True:
        await agent.committed(await agent.send(Message()))


async def test_r7_lists_without_end_travel_in_pages_and_parts(
    controller: ControllerAddresses, client: Client
) -> None:
    """Assignments of 5 MB, 20,000 artifacts and pipelines of 5 MB: no message of 4 MB or more."""
    long = {"TEXT": "x" * 45_000}
    jobs = tuple(Job(f"j{n}", ("true",), variables=long) for n in range(110))
    for _ in range(2):
        await client.submit(Pipeline("large", jobs[:55]))
    async with connected_agent(controller.grpc, cpus=1000) as agent:
        await until(lambda: len(agent.assignments) == 110, what="all assignments")
    async with ScriptedAgent(controller.grpc, cpus=1000) as again:
        refs = [one.ref for one in agent.assignments.values()]
        await again.hello(*(observed(ref, JobState.RUNNING) for ref in refs))
        await until(lambda: len(again.assignments) == 110, what="all of the snapshot")
        parts = [one.desired for one in again.messages if one.HasField("desired")]
        assert [one.part for one in parts if one.part or one.more] == [0, 1, 2]
        assert max(one.ByteSize() for one in again.messages) < 4 << 20
        ref = refs[0]
        prefix = parse_attempt(ref.attempt, ref.namespace, ref.epoch).prefix
        paths = [f"results/{number:05}" for number in range(20_000)]
        artifacts = [
            pipeline_pb2.Artifact(path=path, sha256="ab" * 32, key=f"{prefix}/out/{path}")
            for path in paths
        ]
        await again.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
        name = ref.attempt.split("/")[1]
        channel_client = await client.get(name)
        manifest = channel_client.jobs[0].manifest
        assert manifest is not None
        assert [one.path for one in manifest.artifacts] == paths
        assert manifest.left_out == 0
        listed = [view async for view in client.list()]
        assert [len(view.jobs) for view in listed] == [55, 55]
        shown = next(view for view in listed if view.id == name).jobs[0].manifest
        assert shown is not None
        assert len(shown.artifacts) + shown.left_out == 20_000
        assert shown.left_out == 18_000
