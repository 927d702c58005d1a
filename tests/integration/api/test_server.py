"""Health, reflection, and everything that a controller does about its own beginning and end."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from control.controller import ControllerAddresses
from control.front.api.server import _HEALTH_GRPC, _HEALTH_PB2
from services.runtime.process import ExitCode, StartRefusedError
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.until import until

BIN = Path(sys.executable).parent
ONE = Pipeline("one", (Job("a", ("true",)),))


async def test_health_is_served_for_each_service(controller: ControllerAddresses) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        stub: Any = _HEALTH_GRPC.HealthStub(channel)
        for service in ("", "shoal.v1.PipelinesService", "shoal.v1.SessionService"):
            answer = await stub.Check(_HEALTH_PB2.HealthCheckRequest(service=service))
            assert answer.status == _HEALTH_PB2.HealthCheckResponse.SERVING


async def test_reflection_lets_a_stranger_ask(controller: ControllerAddresses) -> None:
    asking = await asyncio.create_subprocess_exec(
        str(BIN / "buf"),
        *("curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect"),
        f"http://{controller.grpc}/shoal.v1.NodesService/ListMembers",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asking.communicate()
    assert json.loads(said)["members"][0]["name"] == "controller"


class ControllerProcess:
    """`shoal controller` as a process of its own; its state and ports stay over a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = folder / "ready.json"
        self._process: asyncio.subprocess.Process | None = None
        self.addresses: dict[str, str] = {}

    async def start(self, *options: str) -> None:
        self._ready.unlink(missing_ok=True)
        ports = {name: self.addresses.get(name, "127.0.0.1:0") for name in ("grpc", "gossip")}
        self._process = await asyncio.create_subprocess_exec(
            str(BIN / "shoal"),
            *("controller", "--state", str(self._folder / "state"), "--log-format", "json"),
            "--insecure",
            *("--grpc", ports["grpc"], "--gossip", ports["gossip"]),
            *("--objects", self.addresses.get("objects", "127.0.0.1:0")),
            *("--ready-file", str(self._ready)),
            *options,
        )
        process = self._process
        await until(
            lambda: self._ready.exists() or process.returncode is not None, 30, "the ready file"
        )
        assert process.returncode is None
        self.addresses = json.loads(self._ready.read_text())

    async def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
        return await self._process.wait()


@asynccontextmanager
async def controller_process(folder: Path) -> AsyncIterator[ControllerProcess]:
    process = ControllerProcess(folder)
    await process.start()
    try:
        yield process
    finally:
        await process.end(signal.SIGKILL)


async def test_sigterm_ends_it_in_good_order_with_a_session_and_a_watch_open(
    tmp_path: Path,
) -> None:
    async with controller_process(tmp_path) as process:
        address = process.addresses["grpc"]
        async with connected_agent(address) as agent, Client(address) as client:
            changes = client.watch()
            await anext(changes)
            assert await process.end(signal.SIGTERM) == ExitCode.OK
            await until(lambda: agent.ended, what="the end of the session")
            await changes.aclose()


async def test_everything_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    async with controller_process(tmp_path) as process:
        address = process.addresses["grpc"]
        async with Client(address) as client:
            submitted = (await client.submit(ONE, request_id="once")).pipeline
            async with connected_agent(address) as agent:
                ref = (await agent.assignment("a")).ref
                await agent.observe(ref, JobState.RUNNING)
                await agent.log(ref, b"before\n")
                artifacts = await agent.upload(ref, {"results/x": b"hello"})
                await process.end(signal.SIGKILL)
                await until(lambda: agent.ended, what="the broken session")
            await process.start()
            # The agent was not restarted: it goes on, and reports what happened meanwhile.
            async with ScriptedAgent(address) as again:
                await again.hello(observed(ref, JobState.RUNNING))
                assert [one.ref for one in again.messages[1].desired.assignments] == [ref]
                await again.log(ref, b"after\n", offset=7)
                await again.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
                ended = await client.wait(submitted.name, deadline_seconds=20)
            assert ended.state is PipelineState.SUCCEEDED
            assert len(ended.jobs[0].attempts) == 1
            assert (await client.submit(ONE, request_id="once")).pipeline.name == submitted.name
            text = b"".join([chunk.data async for chunk in client.logs(submitted.name)])
            assert text == b"before\nafter\n"
            # Its addresses are those of before: the key of the signatures is kept.
            manifest = ended.jobs[0].manifest
            assert manifest is not None
            url = await client.artifact_url(manifest.artifacts[0])
            async with aiohttp.ClientSession() as http, http.get(url) as response:
                assert await response.read() == b"hello"
            stored = tmp_path / "state" / "archive" / manifest.key
            await until(stored.exists, what="the manifest in the archive")
            events = (await client.events(submitted.name)).events
            assert [event.id for event in events].count(ended.final_event_id) == 1


async def test_settings_come_from_flags_then_variables_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "controller.toml"
    settings.write_text('name = "from-file"\nlease_seconds = 12\nmqtt = "mqtt://127.0.0.1:1"\n')
    monkeypatch.setenv("SHOAL_CONTROLLER_LEASE_SECONDS", "9")
    process = ControllerProcess(tmp_path)
    try:
        await process.start("--config", str(settings))
        async with Client(process.addresses["grpc"]) as client:
            (member,) = await client.members()
            assert member.name == "from-file"
            await until(lambda: unreachable(client), what="the broker's state")
        async with connected_agent(process.addresses["grpc"]) as agent:
            assert agent.messages[0].welcome.lease_seconds == 9
            assert agent.messages[0].welcome.heartbeat_seconds == 1.5
    finally:
        await process.end(signal.SIGKILL)


async def unreachable(client: Client) -> bool:
    state = (await client.events()).publisher_state
    return state.startswith("broker mqtt://127.0.0.1:1 unreachable since")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--grpc", "nowhere"], "--grpc: 'nowhere' is not an address"),
        (["--archive", "ftp://x"], "file:///folder"),
        (["--mqtt", "http://x"], "mqtt://"),
        (["--lease-seconds", "1", "--heartbeat-seconds", "2"], "sixth"),
        (["--name", "Not An Id"], "--name"),
        (["--url-expires-seconds", "1"], "a week"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused_with_the_remedy(
    tmp_path: Path, options: list[str], words: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        str(BIN / "shoal"),
        *("controller", "--state", str(tmp_path / "state"), *options),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == ExitCode.REFUSED
    assert words in " ".join(said.decode().split())
    assert b"Traceback" not in said


async def test_a_second_controller_on_the_same_state_or_port_is_refused(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "state") as first:
        with pytest.raises(StartRefusedError, match="cannot start"):
            async with running_controller(tmp_path / "state"):
                pass
        with pytest.raises(StartRefusedError, match="in use"):
            async with running_controller(tmp_path / "other", grpc=first.grpc):
                pass
