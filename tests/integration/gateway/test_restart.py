"""What a page watches through a gateway goes on over a kill of the controller, without a gap and no line twice."""

import asyncio
import base64
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from shoal.client import Client
from shoal.compat import Compat
from shoal.model import JobState
from shoal.spec import Job, Pipeline
from tests.integration.gateway.messages import messages, stream_of
from tests.kit.controller_process import ControllerProcess
from tests.kit.running_gateway import RunningGateway
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.until import until

Heard = list[dict[str, Any]]


@contextlib.asynccontextmanager
async def before_a_controller(
    folder: Path,
) -> AsyncIterator[tuple[ControllerProcess, RunningGateway, str]]:
    """Run a gateway before a controller that a test may kill, and let a viewer in."""
    async with ControllerProcess(folder) as controller:
        gateway = RunningGateway(folder / "gateway", controller.grpc, "--insecure")
        token = gateway.allow("ann")
        async with gateway:
            yield controller, gateway, token


async def restarted(controller: ControllerProcess) -> None:
    address = controller.grpc
    controller.end(signal.SIGKILL)
    await controller.start("--grpc", address)


@contextlib.asynccontextmanager
async def heard(
    gateway: RunningGateway, method: str, token: str, body: Mapping[str, object]
) -> AsyncIterator[Heard]:
    """Read a stream of Connect beside the block."""
    found: Heard = []

    async def read(session: aiohttp.ClientSession) -> None:
        async with stream_of(session, gateway, method, token, body) as answer:
            async for _, data in messages(answer):
                found.append(json.loads(data))

    async with aiohttp.ClientSession() as session:
        reading = asyncio.create_task(read(session))
        try:
            yield found
        finally:
            reading.cancel()
            await asyncio.wait((reading,), timeout=20)


async def test_a_watch_goes_on_and_shows_what_comes_after(tmp_path: Path) -> None:
    async with (
        before_a_controller(tmp_path) as (controller, gateway, token),
        Client(controller.grpc) as client,
        heard(gateway, "PipelinesService/WatchPipelines", token, {}) as found,
    ):

        def names() -> set[str]:
            return {one["pipeline"]["name"] for one in found if "pipeline" in one}

        first = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
        await until(lambda: first in names(), 20, "the first pipeline")
        await restarted(controller)
        second = (await client.submit(Pipeline("two", (Job("a", ("true",)),)))).pipeline.name
        await until(lambda: second in names(), 40, "the second pipeline")
        assert not any("error" in one for one in found)
        revisions = [int(one["revision"]) for one in found if "revision" in one]
        assert revisions == sorted(revisions)


async def test_events_have_no_gap_and_none_comes_twice(tmp_path: Path) -> None:
    async with (
        before_a_controller(tmp_path) as (controller, gateway, token),
        Client(controller.grpc) as client,
        heard(gateway, "PipelinesService/WatchEvents", token, {"types": ["shoal.*"]}) as found,
        heard(gateway, "PipelinesService/WatchEvents", token, {"types": ["none"]}) as other,
    ):

        def told() -> list[str]:
            return [event["id"] for one in found for event in one.get("events", ())]

        async def end_some() -> None:
            for _ in range(5):
                name = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
                await client.cancel(name, "the test wants events")

        for _ in range(3):
            await end_some()
            await restarted(controller)
        await end_some()
        await until(lambda: len(told()) >= 40, 40, "all events")
        listed = await client.events(page_size=1000, types=["shoal.*"])
        assert told() == [event.id for event in listed.events]
        assert not any("error" in one for one in (*found, *other))
        assert not any("events" in one for one in other)


async def test_an_overview_is_one_watch_with_no_gap_and_no_event_twice(tmp_path: Path) -> None:
    asked = {"pipelines": {"view": "PIPELINE_VIEW_LIGHT"}, "nodes": {}, "events": {}, "counts": {}}
    async with (
        before_a_controller(tmp_path) as (controller, gateway, token),
        Client(controller.grpc) as client,
        heard(gateway, "OverviewService/WatchOverview", token, asked) as found,
    ):

        def told(key: str, field: str) -> list[Any]:
            return [each[field] for one in found for each in one.get(key, ())]

        names: list[str] = []
        for _ in range(3):
            name = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
            names.append(name)
            await client.cancel(name, "the test wants events")
            await until(lambda: {*names} <= {*told("pipelines", "name")}, 40, "the pipelines")
            await restarted(controller)
        last = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
        await client.cancel(last, "the test wants events")
        await until(lambda: len(told("events", "id")) >= 8, 40, "all events")
        listed = await client.events(page_size=1000)
        assert told("events", "id") == [event.id for event in listed.events]
        await until(lambda: last in told("pipelines", "name"), 40, "the last pipeline")
        assert not any("error" in one for one in found)
        parts = [part for one in found for part in one.get("begun", ())]
        assert parts.count("OVERVIEW_PART_PIPELINES") == 4, "a snapshot for each start"


async def test_a_log_has_no_gap_and_no_line_twice(tmp_path: Path) -> None:
    lines = [f"line {number}\n".encode() for number in range(20)]
    async with (
        before_a_controller(tmp_path) as (controller, gateway, token),
        Client(controller.grpc) as client,
    ):
        name = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
        asked = {"name": name, "follow": True}
        async with heard(gateway, "PipelinesService/ReadLogs", token, asked) as found:

            def text() -> bytes:
                return b"".join(base64.b64decode(one["chunk"]["data"]) for one in found)

            async with connected_agent(controller.grpc) as agent:
                ref = (await agent.assignment("a")).ref
                await agent.observe(ref, JobState.PREPARING)
                await agent.observe(ref, JobState.RUNNING)
                await agent.log(ref, b"".join(lines[:7]))
                await until(lambda: text() == b"".join(lines[:7]), 20, "the first lines")
            await restarted(controller)
            async with ScriptedAgent(controller.grpc, "node-1") as agent:
                await agent.hello(observed(ref, JobState.RUNNING))
                offset = len(b"".join(lines[:7]))
                await agent.log(ref, b"".join(lines[7:]), offset)
                await until(lambda: text() == b"".join(lines), 40, "the other lines")
            assert not any("error" in one for one in found)


def two_came(found: list[tuple[str, Any]]) -> bool:
    return len(found) == 2


async def test_two_pages_hear_all_of_a_task_and_go_on_by_the_id_of_an_event(
    tmp_path: Path,
) -> None:
    """Case E9."""
    compat = Compat(user="ada", action="Classification", task="task7", updates_topic=True)
    task = Pipeline("one", (Job("a", ("true",)),), compat=compat)
    async with before_a_controller(tmp_path) as (controller, gateway, token):

        async def told(client: Client) -> None:
            name = (await client.submit(task)).pipeline.name
            await client.cancel(name, "the test wants an update")

        async with (
            Client(controller.grpc) as client,
            updates(gateway, token, {}) as one,
            updates(gateway, token, {}) as two,
        ):
            await told(client)
            await until(lambda: len(one) == len(two) == 1, 20, "the first update at both pages")
            await told(client)
            await until(lambda: len(one) == len(two) == 2, 20, "the second one")
            await restarted(controller)
            await told(client)
            await until(lambda: len(one) == len(two) == 3, 40, "the one after the restart")
            assert one == two
            assert {update["userName"] for _, update in one} == {"ada"}
            for since in (one[0][0], one[0][1]["event_id"]):
                async with updates(gateway, token, {"since": since}) as again:
                    await until(partial(two_came, again), 20, "the others")
                    assert again == one[1:]
            async with updates(gateway, token, {}, {"Last-Event-ID": one[1][0]}) as again:
                await until(lambda: again == one[2:], 20, "the last one")
            status, said = await page(gateway, token, "/updates?userName=ada&taskName=t&since=no")
            assert (status, said["code"]) == (404, "not_found")
            status, said = await page(gateway, token, "/updates?userName=ada")
            assert (status, said["code"]) == (400, "invalid_argument")


@contextlib.asynccontextmanager
async def updates(
    gateway: RunningGateway,
    token: str,
    query: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[list[tuple[str, Any]]]:
    """Read server-sent events beside the block: their ids and what they say."""
    found: list[tuple[str, Any]] = []

    async def read(session: aiohttp.ClientSession) -> None:
        said = {"userName": "ada", "taskName": "task7", **query}
        path = f"{gateway.url}/updates"
        head = {"authorization": f"Bearer {token}", **(headers or {})}
        async with session.get(path, params=said, headers=head) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            last = ""
            async for line in answer.content:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "id":
                    last = value
                elif key == "data":
                    found.append((last, json.loads(value)))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        reading = asyncio.create_task(read(session))
        try:
            yield found
        finally:
            reading.cancel()
            await asyncio.wait((reading,), timeout=20)


async def page(gateway: RunningGateway, token: str, path: str) -> tuple[int, Any]:
    """Ask an address of the original."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}{path}", headers={"authorization": f"Bearer {token}"}) as answer,
    ):
        return answer.status, await answer.json()


async def test_the_addresses_of_the_original_answer_in_its_json(tmp_path: Path) -> None:
    """Cases E10 and E13."""
    async with before_a_controller(tmp_path) as (controller, gateway, token):
        host, _, port = controller.gossip.rpartition(":")
        place = {"Name": "controller", "IP": host, "Port": int(port)}
        assert await page(gateway, token, "/members") == (200, {"Active": [place]})
        assert await page(gateway, token, "/info") == (200, place)
        status, everyone = await page(gateway, token, "/members?all=true")
        assert (status, list(everyone)) == (200, ["Active", "Suspect", "Dead", "Left"])
        (active,) = everyone["Active"]
        assert active.keys() == {*place, "Incarnation", "SinceSeconds"}
        assert await page(gateway, token, "/active") == (200, {"Active": []})
        async with connected_agent(controller.grpc, "cam-1"):
            status, said = await page(gateway, token, "/active")
            assert [one["Name"] for one in said["Active"]] == ["cam-1"]
            status, said = await page(gateway, token, "/node?name=cam-1")
            assert (status, said["Name"], "memory_used" in said) == (200, "cam-1", True)
        assert (await page(gateway, token, "/node?name=none"))[0] == 404
        for path in ("/members", "/info", "/active", "/node", "/updates"):
            assert (await page(gateway, "", path))[0] == 401
