"""What attempts print: kept, followed, and still there when the node is gone."""

import asyncio
import contextlib
import itertools
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1 import pipelines_service_pb2_grpc, session_service_pb2
from shoal.view import LogChunk, LogStream
from tests.kit.controller_process import ControllerProcess
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
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


async def test_what_was_printed_then_or_later_is_left_out(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    minute = timedelta(minutes=1)

    async def between(
        since: datetime | None, until: datetime, job: str = "a", *, times: bool = False
    ) -> bytes:
        path = f"{name}/jobs/{job}"
        chunks = client.logs(path, since=since, until=until, times=times)
        return b"".join([chunk.data async for chunk in chunks])

    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.log(ref, b"one\ntw", print_time=noon)
        await agent.log(ref, b"o\nthree\n", offset=6, print_time=noon + minute)
        await agent.log(ref, b"four", offset=14, print_time=noon + 2 * minute)
        await agent.log((await agent.assignment("b")).ref, b"of an older agent\n")
        for times in (False, True):
            assert await between(None, noon, times=times) == b""
            assert await between(None, noon + minute, times=times) == b"one\ntw"
            assert await between(noon + minute, noon + 2 * minute, times=times) == b"two\nthree\n"
            whole = await between(None, noon + 3 * minute, times=times)
            assert whole == b"one\ntwo\nthree\nfour"
        assert await between(None, noon, "b") == b"of an older agent\n"
        with pytest.raises(ShoalError, match="use a later until_time"):
            await between(noon, noon)


async def test_a_follow_ends_at_its_moment_while_the_pipeline_runs(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(ONE)).pipeline.name
    until_time = datetime.now(UTC) + timedelta(seconds=1)
    seen: list[bytes] = []
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        await agent.log(ref, b"early\n", print_time=until_time - timedelta(seconds=1))
        await agent.log(ref, b"late\n", offset=6, print_time=until_time)
        async with asyncio.timeout(60):
            async for chunk in client.logs(name, follow=True, until=until_time):
                seen.append(chunk.data)  # noqa: PERF401 - each as it arrives
        assert datetime.now(UTC) >= until_time
        assert not (await client.get(name)).state.terminal
    assert seen == [b"early\n"]


async def test_a_reader_goes_on_at_the_places_that_it_names(
    controller: ControllerAddresses, client: Client
) -> None:
    name = (await client.submit(TWO)).pipeline.name
    async with (
        connected_agent(controller.grpc) as agent,
        grpc.aio.insecure_channel(controller.grpc) as channel,
    ):
        stub = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        refs = {job: (await agent.assignment(job)).ref for job in ("a", "b")}
        for ref in refs.values():
            await agent.log(ref, b"0123456789")

        async def from_places(*places: v1.LogPlace) -> dict[str, tuple[int, bytes]]:
            request = v1.ReadLogsRequest(name=name, tail_bytes=2, places=places)
            found = [response.chunk async for response in stub.ReadLogs(request)]
            return {one.attempt.split("/")[3]: (one.offset, one.data) for one in found}

        def place(job: str, offset: int, epoch: int = 0) -> v1.LogPlace:
            ref = refs[job]
            return v1.LogPlace(
                attempt=ref.attempt,
                epoch=epoch or ref.epoch,
                stream=v1.LOG_STREAM_STDOUT,
                offset=offset,
            )

        assert await from_places(place("a", 3)) == {"a": (3, b"3456789"), "b": (8, b"89")}
        assert await from_places(place("a", 10), place("b", 2**64 - 1)) == {}
        other = place("a", 3, epoch=refs["a"].epoch + 7)
        assert (await from_places(other))["a"] == (8, b"89")
        foreign = v1.LogPlace(attempt="pipelines/p/jobs/a/attempts/1", stream=v1.LOG_STREAM_STDOUT)
        for wrong, words in (
            ([foreign], "no attempt of"),
            ([v1.LogPlace(attempt=refs["a"].attempt)], "use LOG_STREAM_STDOUT"),
            ([v1.LogPlace(attempt="a")], "attempt"),
            ([place("a", 3)] * 10_001, "10,000 is the most"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
                await from_places(*wrong)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_follows_sees_each_byte_once_over_a_kill(tmp_path: Path) -> None:
    lines = [b"line %d\n" % number for number in range(30)]
    seen: list[LogChunk] = []
    begin = len(b"".join(lines[:10]))
    async with ControllerProcess(tmp_path) as controller, Client(controller.grpc) as client:
        name = (await client.submit(ONE)).pipeline.name

        async def follow() -> None:
            async for chunk in client.logs(name, follow=True, tail_lines=5):
                seen.append(chunk)  # noqa: PERF401 - each as it arrives

        def text() -> bytes:
            return b"".join(chunk.data for chunk in seen)

        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            async with connected_agent(controller.grpc) as agent:
                ref = (await agent.assignment("a")).ref
                await agent.observe(ref, JobState.PREPARING)
                await agent.observe(ref, JobState.RUNNING)
                await agent.log(ref, b"".join(lines[:10]))
                following = tasks.create_task(follow())
                await until(lambda: text() == b"".join(lines[5:10]), 20, "the first lines")
            address = controller.grpc
            controller.end(signal.SIGKILL)
            await controller.start("--grpc", address)
            async with ScriptedAgent(controller.grpc, "node-1") as agent:
                await agent.hello(observed(ref, JobState.RUNNING))
                # The agent does not know what was kept, and begins again.
                await agent.log(ref, b"".join(lines[5:]), len(b"".join(lines[:5])))
                await until(lambda: text() == b"".join(lines[5:]), 40, "the other lines")
            following.cancel()
    places = [(chunk.offset, chunk.offset + len(chunk.data)) for chunk in seen]
    assert places[0][0] == len(b"".join(lines[:5]))
    assert all(one[1] == next_one[0] for one, next_one in itertools.pairwise(places))
    assert begin in {offset for offset, _ in places}


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
