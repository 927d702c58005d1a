"""The way of a job as a trace: client, controller, agent, program, upload, event; with everything real."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest

from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.client import Client
from shoal.model import PipelineState
from shoal.sandbox import SandboxLevel
from shoal.spec import Job, Pipeline
from shoal.trace_context import TraceContext, parse_traceparent
from tests.integration.events.test_outbox_shell import bodies, subscribed
from tests.kit.cluster import printed
from tests.kit.mosquitto import Mosquitto
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.span_collector import SpanCollector, TakenSpan, span_collector
from tests.kit.until import until

CLIENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
JOB = Job(
    "main",
    ("/bin/sh", "-c", "echo $TRACEPARENT; mkdir -p results; echo done > results/out"),
)
ONE = Pipeline("one", (JOB,))

PROGRAM = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from shoal.client import Client
from shoal.spec import Job, Pipeline

async def main():
    async with Client(sys.argv[1]) as client:
        with trace.get_tracer("program").start_as_current_span("nightly"):
            submitted = await client.submit(Pipeline("one", (Job("main", ("/bin/true",)),)))
        await client.wait(submitted.pipeline.name, deadline_seconds=60)
        print(submitted.pipeline.name)

provider = TracerProvider(resource=Resource.create({"service.name": "program"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[2], insecure=True)))
trace.set_tracer_provider(provider)
asyncio.run(main())
provider.shutdown()
"""


@pytest.fixture
async def collector() -> AsyncIterator[SpanCollector]:
    async with span_collector() as running:
        yield running


def names(spans: Sequence[TakenSpan]) -> set[str]:
    return {one.name for one in spans}


def tree(spans: Sequence[TakenSpan]) -> set[tuple[str, str]]:
    """Each span's name below that of its parent; that of one whose parent did not come is empty."""
    known = {one.span_id: one.name for one in spans}
    return {(known.get(one.parent_id, ""), one.name) for one in spans}


def config(state: Path, collector: SpanCollector, mqtt: str = "none") -> LocalClusterConfig:
    return LocalClusterConfig(
        state=state,
        agents=1,
        mqtt=mqtt,
        insecure=True,
        sandbox=SandboxLevel.NONE,
        controller_environ={
            "SHOAL_CONTROLLER_TRACES": collector.url,
            "SHOAL_CONTROLLER_TRACES_SHARE": "0",
        },
    )


async def test_the_whole_way_of_a_job_is_one_trace(
    collector: SpanCollector, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"
    async with (
        subscribed(mosquitto.port, "shoal/default/pipelines/#") as messages,
        LocalCluster(config(tmp_path, collector, broker)) as cluster,
        Client(cluster.controller_address) as client,
    ):
        submitted = (await client.submit(ONE, traceparent=str(CLIENT))).pipeline
        ended = await client.wait(submitted.name, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED

        def whole() -> bool:
            events = [one for one in collector.spans(CLIENT.trace_id) if one.name == "event"]
            return len(events) == 4 and "pipeline" in names(collector.spans(CLIENT.trace_id))

        await until(whole, 30, "the spans of all events")
        said = (await printed(client, submitted.name)).strip()
    spans = collector.spans()
    assert {one.trace_id for one in spans} == {CLIENT.trace_id}
    expected = {("", "pipeline"), ("pipeline", "job"), ("job", "wait"), ("job", "attempt")}
    expected |= {("attempt", one) for one in ("assign", "run", "collect", "store")}
    expected |= {("pipeline", "event"), ("job", "event")}
    assert expected <= tree(spans)
    [root] = [one for one in spans if one.name == "pipeline"]
    assert root.parent_id == CLIENT.span_id
    assert root.span_id == parse_traceparent(ended.traceparent).span_id
    assert root.attributes["shoal.name"] == ended.name
    assert not any(one.failed for one in spans)
    [run] = [one for one in spans if one.name == "run"]
    assert said == f"00-{CLIENT.trace_id}-{run.span_id}-01", "what the program was told"
    assert (run.service, run.instance) == ("shoal-agent", "node-1")
    assert root.service == "shoal-controller"
    attempt = next(one for one in spans if one.name == "attempt")
    inside = [one for one in spans if one.parent_id == attempt.span_id]
    assert all(attempt.start_nanos <= one.start_nanos <= one.end_nanos for one in inside)
    assert all(one.end_nanos <= attempt.end_nanos for one in inside)
    told = {str(body.get("traceparent", ""))[36:52] for body in bodies(messages)}
    assert {one.span_id for one in spans if one.name == "event"} <= told


async def test_a_program_that_makes_spans_has_the_pipeline_below_its_own(
    collector: SpanCollector, tmp_path: Path
) -> None:
    async with LocalCluster(config(tmp_path, collector)) as cluster:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, cluster.controller_address, collector.url),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert output.startswith(b"pipelines/one-")
        await until(lambda: "pipeline" in names(collector.spans()), 30, "the pipeline's span")
    submit = "shoal.v1.PipelinesService/SubmitPipelines"
    assert {("", "nightly"), ("nightly", submit), (submit, "pipeline")} <= tree(collector.spans())
    assert len({one.trace_id for one in collector.spans()}) == 1


async def test_a_kill_of_the_controller_and_a_collector_that_is_away_lose_no_span(
    collector: SpanCollector, tmp_path: Path
) -> None:
    async with (
        LocalCluster(config(tmp_path, collector)) as cluster,
        Client(cluster.controller_address) as client,
    ):
        await collector.stop()
        submitted = [
            (await client.submit(ONE, traceparent=str(CLIENT.span_of(str(number))))).pipeline
            for number in range(5)
        ]
        for one in submitted[:3]:
            ended = await client.wait(one.name, deadline_seconds=60)
            assert ended.state is PipelineState.SUCCEEDED, "a collector that is away costs no job"
        await cluster.controller.kill()
        await cluster.controller.start()
        for one in submitted:
            ended = await client.wait(one.name, deadline_seconds=60)
            assert ended.state is PipelineState.SUCCEEDED
        await collector.start()

        def all_came() -> bool:
            return sum(one.name == "pipeline" for one in collector.spans()) == len(submitted)

        await until(all_came, 60, "the spans that waited")
    spans = collector.spans()
    for name in ("job", "attempt", "wait", "run"):
        assert sum(one.name == name for one in spans) == len(submitted), name
    assert not {one for one in tree(spans) if not one[0]} - {("", "pipeline")}


async def test_a_submission_says_its_trace_again_when_it_is_repeated_and_a_bad_one_is_refused(
    collector: SpanCollector, tmp_path: Path
) -> None:
    async with (
        running_controller(tmp_path, traces=collector.url, traces_share=0.0) as addresses,
        Client(addresses.grpc) as client,
    ):
        first = await client.submit(ONE, request_id="once", traceparent=str(CLIENT))
        again = await client.submit(ONE, request_id="once", traceparent=str(CLIENT.span_of("x")))
        assert again.repeated
        assert again.pipeline.traceparent == first.pipeline.traceparent
        assert parse_traceparent(first.pipeline.traceparent).trace_id == CLIENT.trace_id
        with pytest.raises(Exception, match="write 00-TRACE-SPAN-01") as refused:
            await client.submit(ONE, traceparent="00-nothing")
        assert getattr(refused.value, "reason", "") == "INVALID_TRACEPARENT"
        assert not (await client.submit(ONE)).pipeline.traceparent


async def test_spans_that_are_refused_for_good_are_let_go(
    collector: SpanCollector, tmp_path: Path
) -> None:
    collector.refusal = grpc.StatusCode.INVALID_ARGUMENT
    lost, kept = CLIENT, TraceContext("1" * 32, CLIENT.span_id)
    async with (
        running_controller(tmp_path, traces=collector.url) as addresses,
        Client(addresses.grpc) as client,
    ):
        await succeed(addresses.grpc, client, lost)
        await until(lambda: collector.requests > 0, 20, "a request that is refused")
        collector.refusal = None
        await succeed(addresses.grpc, client, kept)
        await until(lambda: "pipeline" in names(collector.spans(kept.trace_id)), 20, "spans")
    assert "wait" not in names(collector.spans(lost.trace_id)), "what was refused is not sent again"


async def succeed(address: str, client: Client, within: TraceContext) -> None:
    """Run a pipeline to its end, as far as the controller is concerned."""
    submitted = await client.submit(ONE, traceparent=str(within))
    async with connected_agent(address) as agent:
        await agent.run_to_success("main", {"results/x": b"hello"})
    await client.wait(submitted.pipeline.name, deadline_seconds=20)
