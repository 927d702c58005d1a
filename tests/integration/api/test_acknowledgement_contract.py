"""R1: the scripted controller of the agent's tests acknowledges as the real one does."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from control.front.sessions.acknowledgements import ANSWERS_A_LEASE, SILENT_REQUESTS
from shoal.model import Capacity, Followed
from shoal.session.messages import Hello
from shoal.v1 import session_service_pb2
from shoal.wire.session import encode_hello
from tests.kit.object_server import ObjectServer
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

LEASE = 4.0
BEAT = session_service_pb2.AgentMessage(heartbeat=session_service_pb2.Heartbeat())
PROGRESS = session_service_pb2.AgentMessage(progress=session_service_pb2.AttemptProgress())
Serve = Callable[[Path], AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def real(state: Path) -> AsyncIterator[str]:
    async with running_controller(state, lease_seconds=LEASE, heartbeat_seconds=0.5) as addresses:
        yield addresses.grpc


@contextlib.asynccontextmanager
async def scripted(_state: Path) -> AsyncIterator[str]:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects, heartbeat_seconds=0.5, lease_seconds=LEASE) as controller,
    ):
        yield controller.address


both = pytest.mark.parametrize("serve", [real, scripted])


@both
async def test_signs_of_life_are_acknowledged_together(serve: Serve, tmp_path: Path) -> None:
    async with serve(tmp_path / "state") as address, connected_agent(address) as agent:
        await agent.committed(1)
        messages, answers, began = len(agent.messages), agent.responses, time.monotonic()
        sent = [await agent.send(BEAT) for _ in range(10 * SILENT_REQUESTS)]
        await agent.committed(sent[-SILENT_REQUESTS])
        quarters = (time.monotonic() - began) / (LEASE / ANSWERS_A_LEASE)
        assert 1 <= agent.responses - answers <= 10 + quarters
        assert len(agent.messages) == messages, "an acknowledgement says nothing else"


@both
async def test_r1_a_lone_sign_of_life_is_acknowledged_well_within_the_lease(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(tmp_path / "state") as address, connected_agent(address) as agent:
        await agent.committed(1)
        quiet_until = time.monotonic() + LEASE / ANSWERS_A_LEASE
        await until(lambda: time.monotonic() >= quiet_until, what="a quarter of the lease")
        await agent.committed(await agent.send(BEAT))


@both
async def test_what_says_more_is_acknowledged_at_once(serve: Serve, tmp_path: Path) -> None:
    async with serve(tmp_path / "state") as address, connected_agent(address) as agent:
        for _ in range(SILENT_REQUESTS):
            await agent.committed(await agent.send(PROGRESS))


async def test_what_is_said_in_quarantine_is_acknowledged_too(tmp_path: Path) -> None:
    followed = Followed("another-cluster", 1, "its-start", 1)
    said = encode_hello(Hello("node-1", "scripted", Capacity(1, 1 << 30), followed=followed))
    async with real(tmp_path / "state") as address, ScriptedAgent(address) as agent:
        await agent.send(session_service_pb2.AgentMessage(hello=said))
        await agent.committed(await agent.send(BEAT))
        assert agent.messages[0].welcome.quarantine
