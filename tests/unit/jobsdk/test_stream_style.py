"""Job code that reads and writes its ports itself, with `for` or in an event loop."""

import asyncio
import os

import pytest

from shoal import job
from shoal.job import PortError, testing

LARGE = 1_000_000


@job.stream
def double() -> None:
    for number in job.inputs["numbers"]:
        job.outputs["doubled"].send(2 * number)


@job.stream
async def double_async() -> None:
    async for number in job.inputs["numbers"]:
        await job.outputs["doubled"].send(2 * number)


@pytest.mark.parametrize("target", [double, double_async])
def test_records_in_records_out(target: object) -> None:
    result = testing.call(target, {"numbers": range(1000)}, ["doubled"])
    assert result.outputs["doubled"] == [2 * number for number in range(1000)]
    assert result.acknowledged == {"numbers": 1000}
    assert result.ended == {"doubled": True}


@job.stream
async def grow() -> None:
    async for size in job.inputs["sizes"]:
        buffer = bytearray(size)
        sending = job.outputs["data"].send(memoryview(buffer))
        buffer[:] = b"x" * size  # too late: what is sent is sent
        await sending


@job.stream
async def grow_without_waiting() -> None:
    async for size in job.inputs["sizes"]:
        job.outputs["data"].send(bytes(size))


@pytest.mark.parametrize("target", [grow, grow_without_waiting])
def test_large_records_go_through_an_event_loop_unchanged(target: object) -> None:
    sizes = [LARGE, 3 * LARGE, 10, LARGE]
    result = testing.call(target, {"sizes": sizes}, ["data"])
    assert result.outputs["data"] == [bytes(size) for size in sizes]


def test_tasks_share_the_ports() -> None:
    @job.stream
    async def merge() -> None:
        async def follow(name: str) -> None:
            async for record in job.inputs[name]:
                await job.outputs["out"].send((name, record))

        await asyncio.gather(follow("a"), follow("b"))

    result = testing.call(merge, {"a": [LARGE * b"a"] * 5, "b": [LARGE * b"b"] * 5}, ["out"])
    out = result.outputs["out"]
    assert sorted(name for name, _ in out) == ["a"] * 5 + ["b"] * 5
    assert all(record == LARGE * name.encode() for name, record in out)


def test_a_mapping_of_ports_is_a_mapping() -> None:
    seen: list[object] = []

    @job.stream
    def look() -> None:
        seen.extend([dict(job.inputs).keys(), len(job.outputs), "found" in job.outputs])
        seen.append("nothing" in job.inputs)

    testing.call(look, {"frames": []}, ["found"])
    assert seen == [{"frames"}, 1, True, False]


def test_an_unknown_port_is_named_with_what_there_is() -> None:
    @job.stream
    def look() -> None:
        list(job.inputs["frame"])

    with pytest.raises(PortError, match="no input port 'frame': its inputs are frames"):
        testing.call(look, {"frames": []}, ["found"])


def test_the_context_is_what_the_agent_said() -> None:
    seen: list[object] = []

    def look() -> None:
        context = job.context
        seen.extend([context.namespace, context.pipeline, context.name, context.job])
        seen.extend([context.replica, context.replicas, context.attempt, context.epoch])
        seen.extend([context.recovery, context.results.is_dir()])

    testing.call(
        look,
        environment={
            "SHOAL_NAMESPACE": "lab",
            "SHOAL_PIPELINE": "p-1",
            "SHOAL_NAME": "pipelines/p-1/jobs/d-1/attempts/2",
            "SHOAL_JOB": "d",
            "SHOAL_REPLICA": "1",
            "SHOAL_REPLICAS": "2",
            "SHOAL_ATTEMPT": "2",
            "SHOAL_EPOCH": "5",
        },
    )
    assert seen == [
        *("lab", "p-1", "pipelines/p-1/jobs/d-1/attempts/2", "d", 1, 2, 2, 5, "restart", True)
    ]


def test_the_last_progress_arrives() -> None:
    @job.stream
    def tell() -> None:
        for number in job.inputs["numbers"]:
            job.progress(f"{number} of 100")

    result = testing.call(tell, {"numbers": range(101)}, [])
    assert result.progress[-1] == "100 of 100"
    assert len(result.progress) < 100


def test_the_log_is_a_line_with_fields(capsys: pytest.CaptureFixture[str]) -> None:
    job.log.warning("frame dropped", frame=7, why="too dark\n")
    job.log("started")
    assert capsys.readouterr().err == (
        'WARNING frame dropped frame=7 why="too dark\\n"\nINFO started\n'
    )


def test_b6_variables_are_those_of_the_process_while_the_job_runs() -> None:
    seen: list[str | None] = []
    testing.call(lambda: seen.append(os.environ.get("SPEED")), environment={"SPEED": "7"})
    assert seen == ["7"]
    assert "SPEED" not in os.environ
