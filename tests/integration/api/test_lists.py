"""Lists of pipelines and jobs as a dashboard asks for them, of a real controller."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import DeadLetter, JobState, MemberState, PipelineState
from shoal.node_filter import NodeFilter
from shoal.pipeline_filter import PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.spec import Job, Pipeline
from shoal.v1 import (
    nodes_service_pb2,
    nodes_service_pb2_grpc,
    pipeline_pb2,
    pipelines_service_pb2_grpc,
)
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import PipelineSummary, PipelineTotals, SnapshotEnd, Unlisted
from tests.kit.ports import free_port
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.tcp_proxy import TcpProxy

ERROR = pipeline_pb2.Reason(code="EXIT", number=3, message="x" * 5_000)


def spec(name: str, *jobs: str, replicas: int = 1, **labels: str) -> Pipeline:
    made = tuple(Job(job, ("true",), replicas=replicas) for job in jobs or ("main",))
    return Pipeline(name, made, labels=labels)


@pytest.fixture
async def stub(
    controller: ControllerAddresses,
) -> AsyncIterator[pipelines_service_pb2_grpc.PipelinesServiceStub]:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        yield pipelines_service_pb2_grpc.PipelinesServiceStub(channel)


async def fail(agent: ScriptedAgent, job: str) -> None:
    ref = (await agent.assignment(job)).ref
    await agent.observe(ref, JobState.RUNNING)
    await agent.observe(ref, JobState.FAILED, reason=ERROR)


async def listed(client: Client, where: PipelineFilter, **how: Any) -> list[str]:
    """What is listed, by the names of the specifications; whole and light lists are the same."""
    light = [one.spec_name async for one in client.summaries(where, **how)]
    assert light == [one.spec.name async for one in client.list(where=where, **how)]
    return light


async def test_a_list_has_what_its_filter_asks_for(
    controller: ControllerAddresses, client: Client
) -> None:
    done = await client.submit(spec("done", site="north"))
    async with connected_agent(controller.grpc) as agent:
        await agent.run_to_success("main")
        await client.submit(spec("broken", "bad", site="south"))
        await fail(agent, "bad")
        await client.submit(spec("running", "busy", site="north", shift="night"))
        await agent.observe((await agent.assignment("busy")).ref, JobState.RUNNING)
        await client.submit(spec("waiting", "main", replicas=50))
        asked: list[tuple[PipelineFilter, list[str]]] = [
            (PipelineFilter(), ["waiting", "running", "broken", "done"]),
            (PipelineFilter("ro"), ["broken"]),
            (PipelineFilter("?o*"), ["done"]),
            (PipelineFilter(labels={"site": "north"}), ["running", "done"]),
            (PipelineFilter(labels={"site": "", "shift": "night"}), ["running"]),
            (PipelineFilter(states=frozenset({PipelineState.RUNNING})), ["running"]),
            (PipelineFilter(dead_letters=True), ["broken"]),
            (PipelineFilter(until_time=done.pipeline.create_time), []),
            (PipelineFilter(creator="nobody"), []),
            (PipelineFilter(node="node-1"), ["waiting", "running"]),
            (PipelineFilter("run", node="node-1"), ["running"]),
        ]
        for where, names in asked:
            assert await listed(client, where) == names, where
            assert await listed(client, where, page_size=1) == names, where
            assert await listed(client, where, order=PipelineOrder.OLDEST) == names[::-1], where
            totals = await client.totals(where)
            assert sum(totals.pipelines.values()) == len(names), where
        ended = await listed(client, PipelineFilter(), order=PipelineOrder.ENDED, page_size=1)
        assert ended == ["broken", "done"]
        with pytest.raises(ShoalError, match="no node 'nobody'"):
            await listed(client, PipelineFilter(node="nobody"))


async def test_a_summary_is_short_however_many_jobs_there_are(
    controller: ControllerAddresses,
    client: Client,
    stub: pipelines_service_pb2_grpc.PipelinesServiceStub,
) -> None:
    submitted = await client.submit(spec("many", "main", replicas=5_000, site="north"))
    light = v1.PIPELINE_VIEW_LIGHT
    page = await stub.ListPipelines(v1.ListPipelinesRequest(view=light))
    got = await stub.GetPipeline(v1.GetPipelineRequest(name=submitted.pipeline.id, view=light))
    for one in (page.pipelines[0], got.pipeline):
        assert one.ByteSize() < 300
        assert (one.spec_name, dict(one.labels)) == ("many", {"site": "north"})
        assert [(count.state, count.count) for count in one.job_counts] == [(1, 5_000)]
    async with connected_agent(controller.grpc, cpus=2) as agent:
        await agent.observe((await agent.assignment("main-0")).ref, JobState.RUNNING)
        (summary,) = [one async for one in client.summaries()]
        assert summary.job_counts[JobState.RUNNING] == 1
        assert sum(summary.job_counts.values()) == 5_000


async def test_what_has_ended_is_summed_up_as_before_after_a_restart(tmp_path: Path) -> None:
    async with running_controller(tmp_path) as addresses, Client(addresses.grpc) as client:
        async with connected_agent(addresses.grpc) as agent:
            await client.submit(spec("broken", "bad", "neighbour", site="south"))
            await fail(agent, "bad")
            ref = (await agent.assignment("neighbour")).ref
            await agent.observe(
                ref, JobState.CANCELLED, reason=pipeline_pb2.Reason(code="CANCELLED")
            )
            await client.submit(spec("waiting", "main", replicas=7))
            await agent.observe((await agent.assignment("main-0")).ref, JobState.RUNNING)
        before = [one async for one in client.summaries()]
        totals = await client.totals()
    assert totals == PipelineTotals(
        {PipelineState.RUNNING: 1, PipelineState.FAILED: 1},
        {
            JobState.QUEUED: 3,
            JobState.ASSIGNED: 3,
            JobState.RUNNING: 1,
            JobState.FAILED: 1,
            JobState.CANCELLED: 1,
        },
        1,
    )
    broken = before[1]
    assert broken.dead_letter is DeadLetter.KEPT
    assert len(broken.reason.message) <= 200
    async with running_controller(tmp_path) as addresses, Client(addresses.grpc) as client:
        after = [one async for one in client.summaries()]
        assert [_without_revision(one) for one in after] == [
            _without_revision(one) for one in before
        ]
        assert await client.totals() == totals
        await client.discard(broken.id)
        assert (await client.totals(PipelineFilter(dead_letters=True))).pipelines == {}
        await client.cancel(after[0].id)
        assert (await client.totals()).pipelines[PipelineState.RUNNING] == 1


def _without_revision(one: PipelineSummary) -> tuple[object, ...]:
    return (one.id, one.state, one.spec_name, one.labels, one.job_counts, one.reason, one.end_time)


async def test_a_watch_with_a_filter_tells_of_what_matches_no_longer(
    controller: ControllerAddresses, client: Client
) -> None:
    async with connected_agent(controller.grpc) as agent:
        submitted = await client.submit(spec("mine", "main"))
        await client.submit(spec("other", "busy"))
        ref = (await agent.assignment("main")).ref
        await agent.observe(ref, JobState.RUNNING)
        where = PipelineFilter("mine", states=frozenset({PipelineState.RUNNING}))
        shown: list[PipelineSummary | Unlisted | SnapshotEnd] = []
        async with contextlib.aclosing(client.watch_summaries(where)) as changes:
            async for change in changes:
                shown.append(change)
                if isinstance(change, SnapshotEnd):
                    await agent.observe((await agent.assignment("busy")).ref, JobState.RUNNING)
                    await agent.observe(ref, JobState.SUCCEEDED)
                if isinstance(change, Unlisted):
                    break
    first = shown[0]
    assert isinstance(first, PipelineSummary)
    assert (first.id, first.state) == (submitted.pipeline.id, PipelineState.RUNNING)
    assert shown[-1] == Unlisted(submitted.pipeline.id, "default")
    assert {one.id for one in shown if isinstance(one, PipelineSummary)} == {first.id}


async def test_jobs_are_listed_by_node_state_and_pipeline(
    controller: ControllerAddresses, client: Client
) -> None:
    async with (
        connected_agent(controller.grpc, "node-1", cpus=2) as first,
        connected_agent(controller.grpc, "node-2", cpus=2) as second,
    ):
        many = await client.submit(spec("many", "main", replicas=6))
        await client.submit(spec("one", "alone"))
        for agent in (first, second):
            for name in ("main-0", "main-1", "main-2", "main-3"):
                if any(f"/{name}/" in assigned for assigned in agent.assignments):
                    await agent.observe((await agent.assignment(name)).ref, JobState.RUNNING)
        everything = [job.name async for job in client.jobs(page_size=2)]
        assert [name.rsplit("/", 1)[1] for name in everything] == [
            "alone",
            *(f"main-{number}" for number in range(6)),
        ]
        on_first = [job async for job in client.jobs(node="node-1", page_size=1)]
        on_second = [job async for job in client.jobs(node="node-2")]
        assert {job.node for job in on_first} == {"node-1"}
        assert len(on_first) + len(on_second) == 4
        queued = [job.name async for job in client.jobs(states=[JobState.QUEUED], page_size=1)]
        assert len(queued) == 3
        of_one = [job.name async for job in client.jobs(pipeline=many.pipeline.id)]
        assert of_one == everything[1:]
        busy = [JobState.ASSIGNED, JobState.RUNNING]
        assert len([job async for job in client.jobs(states=busy)]) == 4
        over = PipelineFilter(states=frozenset({PipelineState.SUCCEEDED}))
        assert [job async for job in client.jobs(states=busy, where=over)] == []
        with pytest.raises(ShoalError, match="no pipeline 'nobody'"):
            _ = [job async for job in client.jobs(pipeline="nobody")]


async def test_jobs_that_failed_are_found_among_those_that_ended(
    controller: ControllerAddresses, client: Client
) -> None:
    async with connected_agent(controller.grpc) as agent:
        for number in range(2):
            await client.submit(spec("good", f"good-{number}"))
            await agent.run_to_success(f"good-{number}", {"stdout": b"said"} if number else None)
        await client.submit(spec("broken", "bad"))
        await fail(agent, "bad")
    (job,) = [job async for job in client.jobs(states=[JobState.FAILED], node="node-1")]
    assert (job.id, len(job.attempts)) == ("bad", 1)
    assert len(job.reason.message) <= 200
    good = [job async for job in client.jobs(states=[JobState.SUCCEEDED])]
    assert [(job.id, job.manifest.left_out if job.manifest else 0) for job in good] == [
        ("good-1", 1),
        ("good-0", 0),
    ]


async def test_a_token_is_good_for_its_own_question_alone(
    client: Client, stub: pipelines_service_pb2_grpc.PipelinesServiceStub
) -> None:
    for number in range(4):
        await client.submit(spec(f"p-{number}"))
    first = await stub.ListPipelines(v1.ListPipelinesRequest(page_size=2))
    token = first.next_page_token
    assert not token.isdecimal()
    rest = await stub.ListPipelines(v1.ListPipelinesRequest(page_size=1, page_token=token))
    assert [one.spec.name for one in rest.pipelines] == ["p-1"], "another size is no other list"
    others: list[tuple[Any, Any]] = [
        (stub.ListPipelines, v1.ListPipelinesRequest(namespace="lab", page_token=token)),
        (
            stub.ListPipelines,
            v1.ListPipelinesRequest(view=v1.PIPELINE_VIEW_LIGHT, page_token=token),
        ),
        (
            stub.ListPipelines,
            v1.ListPipelinesRequest(order=v1.PIPELINE_ORDER_OLDEST, page_token=token),
        ),
        (
            stub.ListPipelines,
            v1.ListPipelinesRequest(filter=v1.PipelineFilter(name="p"), page_token=token),
        ),
        (stub.ListJobs, v1.ListJobsRequest(page_token=token)),
    ]
    for method, request in others:
        with pytest.raises(grpc.aio.AioRpcError, match="is of another list") as error:
            await method(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for wrong in (token[:-3], token + "AAAA", "12", "é", "[1]", "x" * 10_000):
        with pytest.raises(grpc.aio.AioRpcError, match="page token") as error:
            await stub.ListPipelines(v1.ListPipelinesRequest(page_token=wrong))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"name": "x" * 257}, "filter.name: it has 257 characters"),
        ({"labels": {str(number): "" for number in range(17)}}, "filter.labels: it has 17 labels"),
        ({"states": [9]}, r"filter.states\[0\]: 9 is not a pipeline state"),
        ({"node": "Not An Id"}, "filter.node"),
        ({"since_time": {"seconds": 1 << 60}}, "filter.since_time"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused_with_its_field(
    stub: pipelines_service_pb2_grpc.PipelinesServiceStub, wanted: dict[str, Any], said: str
) -> None:
    asked = v1.PipelineFilter(**wanted)
    calls: list[Any] = [
        stub.ListPipelines(v1.ListPipelinesRequest(filter=asked)),
        stub.CountPipelines(v1.CountPipelinesRequest(filter=asked)),
        stub.ListJobs(v1.ListJobsRequest(filter=asked)),
        stub.WatchPipelines(v1.WatchPipelinesRequest(filter=asked)).read(),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError, match=said) as error:
            await call
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_nodes_are_listed_by_name_label_and_how_they_stand(
    controller: ControllerAddresses, client: Client
) -> None:
    async with (
        connected_agent(controller.grpc, "north-1", labels={"site": "north"}),
        connected_agent(controller.grpc, "north-2", labels={"site": "north", "gpu": ""}),
        connected_agent(controller.grpc, "south-1", labels={"site": "south"}) as south,
    ):
        await client.drain("north-2")
        await south.end()
        asked: list[tuple[NodeFilter, list[str]]] = [
            (NodeFilter(), ["north-1", "north-2", "south-1"]),
            (NodeFilter("th-1"), ["north-1", "south-1"]),
            (NodeFilter("north*"), ["north-1", "north-2"]),
            (NodeFilter(labels={"gpu": ""}), ["north-2"]),
            (NodeFilter(labels={"site": "south"}), ["south-1"]),
            (NodeFilter(connected=False), ["south-1"]),
            (NodeFilter(connected=True, drained=False), ["north-1"]),
            (NodeFilter("nobody"), []),
        ]
        for where, names in asked:
            assert [node.name for node in await client.nodes(where)] == names
        async with grpc.aio.insecure_channel(controller.grpc) as channel:
            nodes = nodes_service_pb2_grpc.NodesServiceStub(channel)
            backwards = nodes_service_pb2.NODE_ORDER_NAME_BACKWARDS
            request = nodes_service_pb2.ListNodesRequest(page_size=2, order=backwards)
            first = await nodes.ListNodes(request)
            assert [node.name for node in first.nodes] == ["south-1", "north-2"]
            request.page_token = first.next_page_token
            last = await nodes.ListNodes(request)
            assert [node.name for node in last.nodes] == ["north-1"]
            assert not last.next_page_token
            request.order = nodes_service_pb2.NODE_ORDER_NAME
            with pytest.raises(grpc.aio.AioRpcError, match="another list"):
                await nodes.ListNodes(request)


async def test_members_are_listed_by_name_and_state(
    controller: ControllerAddresses, client: Client
) -> None:
    (own,) = await client.members()
    assert [one.name for one in await client.members(name=f"{own.name[0]}*")] == [own.name]
    assert await client.members(name="nobody") == ()
    assert await client.members(states=[MemberState.DEAD]) == ()
    alive = await client.members(states=[MemberState.ALIVE])
    assert [one.name for one in alive] == [own.name]


async def test_a_watch_says_what_went_while_it_was_cut_and_the_controller_began_anew(
    tmp_path: Path,
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    where = PipelineFilter(states=frozenset({PipelineState.QUEUED}))
    async with TcpProxy(address) as proxy, Client(proxy.address) as far:
        async with running_controller(tmp_path, grpc=address), Client(address) as near:
            gone = (await near.submit(spec("gone"))).pipeline
            stays = (await near.submit(spec("stays"))).pipeline
            watch = far.watch_summaries(where)
            begun = [await anext(watch) for _ in range(3)]
            assert {one.id for one in begun if isinstance(one, PipelineSummary)} == {
                gone.id,
                stays.id,
            }
            proxy.open = False
            proxy.cut()
            await near.cancel(gone.id)
        async with running_controller(tmp_path, grpc=address):
            proxy.open = True
            shown: list[PipelineSummary | Unlisted | SnapshotEnd] = []
            while not shown or not isinstance(shown[-1], SnapshotEnd):
                shown.append(await anext(watch))
            assert [one.id for one in shown if isinstance(one, PipelineSummary)] == [stays.id]
            assert [one.id for one in shown if isinstance(one, Unlisted)] == [gone.id]
            await watch.aclose()
