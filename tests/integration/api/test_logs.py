"""What attempts print: kept, followed, and still there when the node is gone."""

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline
from shoal.v1 import session_service_pb2
from shoal.view import LogChunk, LogStream
from tests.kit.controller_process import ControllerProcess
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

ONE = Pipeline("one", (Job("a", ("true",)),))
TWO = Pipeline("two", (Job("a", ("true",)), Job("b", ("true",))))


async def read(client: Client, name: str, *, tail_lines: int = 0) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    async for chunk in client.logs(name, tail_lines=tail_lines):
        key = (chunk.attempt.split("/")[3], int(chunk.stream))
        found[key] = found.get(key, b"") + chunk.data
    return found


async def test_logs_are_read_by_pipeline_and_by_job(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    async with connected_agent(controller.grpc) as agent:
        for job in ("a", "b"):
            ref = (await agent.assignment(job)).ref
            await agent.log(ref, b"first\nout of\n\n" + job.encode())
            await agent.log(ref, b"err", stream=2)
    # The agent is gone; what it said stays.
    assert await read(client, name) == {
        ("a", 1): b"first\nout of\n\na",
        ("a", 2): b"err",
        ("b", 1): b"first\nout of\n\nb",
        ("b", 2): b"err",
    }
    assert (await read(client, f"{name}/jobs/b")).keys() == {("b", 1), ("b", 2)}
    for lines, last in ((1, b"a"), (2, b"\na"), (3, b"out of\n\na"), (4, b"first\nout of\n\na")):
        assert (await read(client, f"{name}/jobs/a", tail_lines=lines))["a", 1] == last
    assert (await read(client, f"{name}/jobs/a", tail_lines=9))["a", 1].startswith(b"first")
    with pytest.raises(ShoalError, match="nobody"):
        await read(client, f"{name}/jobs/nobody")
    with pytest.raises(ShoalError, match="no pipeline"):
        await read(client, "pipelines/nobody")


async def test_times_come_from_the_board_and_choose_what_is_shown(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    minute = timedelta(minutes=1)

    async def since(moment: datetime, job: str = "a", lines: int = 0) -> list[LogChunk]:
        chunks = client.logs(f"{name}/jobs/{job}", since=moment, times=True, tail_lines=lines)
        return [chunk async for chunk in chunks]

    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.log(ref, b"one\ntw", print_time=noon)
        await agent.log(ref, b"o\nthree\n", offset=6, print_time=noon + minute)
        await agent.log(ref, b"four", offset=14, print_time=noon + 2 * minute)
        await agent.log((await agent.assignment("b")).ref, b"of an older agent\n")
        assert [(chunk.data, chunk.print_time) for chunk in await since(noon)] == [
            (b"one\ntw", noon),
            (b"o\nthree\n", noon + minute),
            (b"four", noon + 2 * minute),
        ]
        # A line that goes on later is shown from its beginning.
        assert [chunk.data for chunk in await since(noon + minute)] == [
            b"tw",
            b"o\nthree\n",
            b"four",
        ]
        assert [chunk.data for chunk in await since(noon, lines=2)] == [b"three\n", b"four"]
        assert await since(noon + 3 * minute) == []
        older = await since(noon, "b")
        assert [(chunk.data, chunk.print_time) for chunk in older] == [
            (b"of an older agent\n", None)
        ]
        whole = [chunk async for chunk in client.logs(f"{name}/jobs/a")]
        assert [(chunk.data, chunk.print_time) for chunk in whole] == [
            (b"one\ntwo\nthree\nfour", None)
        ]


async def test_pieces_that_come_again_are_kept_once_and_gaps_are_not_filled(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.log(ref, b"hello ")
        await agent.log(ref, b"hello ")
        await agent.log(ref, b"lo world", offset=3)
        await agent.log(ref, b"far away", offset=100)
        foreign = session_service_pb2.AttemptRef(
            attempt="pipelines/p/jobs/a/attempts/1", namespace="default", epoch=1
        )
        await agent.log(foreign, b"not mine")
        assert await read(client, name) == {("a", 1): b"hello world"}


async def test_logs_of_an_ended_pipeline_outlive_a_restart(tmp_path: Path) -> None:
    async with ControllerProcess(tmp_path) as controller:
        async with Client(controller.grpc) as client, connected_agent(controller.grpc) as agent:
            name = (await client.submit(ONE)).pipeline.name
            ref = (await agent.assignment("a")).ref
            await agent.log(ref, b"hello")
            await agent.run_to_success("a")
            assert (await client.wait(name)).state is PipelineState.SUCCEEDED
        forgotten = tmp_path / "state" / "logs" / "default" / "forgotten"
        forgotten.mkdir()
        controller.end(signal.SIGKILL)
        await controller.start()
        await until(lambda: not forgotten.exists(), what="the cleaning of the logs")
        async with Client(controller.grpc) as client:
            assert await read(client, name) == {("a", 1): b"hello"}


async def test_a_large_log_arrives_whole(controller: ControllerAddresses, client: Client) -> None:
    name = (await client.submit(TWO)).pipeline.name
    piece = bytes(range(256)) * 1024
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        for number in range(12):
            await agent.log(ref, piece, offset=number * len(piece))
    assert (await read(client, name))["a", 1] == piece * 12


async def test_following_shows_what_comes_and_ends_with_the_pipeline(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    seen: list[LogChunk] = []

    async def follow() -> None:
        async for chunk in client.logs(name, follow=True):
            seen.append(chunk)  # noqa: PERF401 - each as it arrives

    def text(job: str) -> bytes:
        return b"".join(chunk.data for chunk in seen if f"/jobs/{job}/" in chunk.attempt)

    def ends(job: str, words: bytes) -> bool:
        return text(job).endswith(words)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        async with connected_agent(controller.grpc) as agent:
            refs = {job: (await agent.assignment(job)).ref for job in ("a", "b")}
            for number in range(5):
                for job, ref in refs.items():
                    await agent.log(ref, b"%d\n" % number, offset=2 * number)
                    await until(partial(ends, job, b"%d\n" % number), what=job)
            assert not following.done()
            for ref in refs.values():
                # The last words travel with the end, in one message.
                await agent.log(ref, b"end\n", offset=10)
                await agent.observe(ref, JobState.SUCCEEDED)
    assert text("a") == text("b") == b"0\n1\n2\n3\n4\nend\n"
    assert {chunk.stream for chunk in seen} == {LogStream.STDOUT}
    assert (await client.get(name)).state is PipelineState.SUCCEEDED


async def test_a_follower_that_goes_away_leaves_nothing_behind(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.log(ref, b"hello")
        async with contextlib.aclosing(client.logs(name, follow=True)) as chunks:
            assert (await anext(chunks)).data == b"hello"
        await agent.log(ref, b" again", offset=5)
    assert (await read(client, name))["a", 1] == b"hello again"
