"""A stranger's member that says it is the controller: what agents that find their controller by gossip do.

Without identity each of these took over all agents that were started with --join alone.
"""

import contextlib
import datetime as dt
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from services.identity.cluster_identity import ClusterIdentity
from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile
from services.membership.message import SwimState
from services.membership.preset import LOCAL
from services.membership.shell import GossipShell
from services.runtime.rpc import bind, server_options
from shoal.channel import SESSION
from shoal.client import Client
from shoal.credentials import Credentials
from shoal.identity import Role
from shoal.v1 import session_service_pb2 as v1
from shoal.v1 import session_service_pb2_grpc
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.gossip import running, states
from tests.kit.joined import issued, join_node
from tests.kit.ports import free_port
from tests.kit.until import until

STRANGE = b"s" * 32


class Impostor(session_service_pb2_grpc.SessionServiceServicer):
    """Serves sessions, and counts the agents that speak to it."""

    def __init__(self) -> None:
        self.spoken = 0

    async def Connect(  # noqa: N802 the contract's name
        self, request_iterator: AsyncIterator[v1.ConnectRequest], context: Any
    ) -> AsyncIterator[v1.ConnectResponse]:
        """Hear what an agent says."""
        async for request in request_iterator:
            self.spoken += 1
            yield v1.ConnectResponse(sequence=self.spoken, acknowledged=request.sequence)


@contextlib.asynccontextmanager
async def impostor(
    identity: Callable[[], Credentials] | None,
) -> AsyncIterator[tuple[Impostor, str]]:
    """Serve as a controller does, with what is stolen or made up; yields it and its address."""
    server = grpc.aio.server(options=server_options(SESSION))
    servicer = Impostor()
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)
    port = bind(server, "127.0.0.1:0", identity)
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def false_member(name: str, grpc_address: str, key: bytes, *seeds: str) -> Any:
    """A member that says it is the controller."""
    tags = {"role": "controller", "grpc": grpc_address}
    return running(name, preset=LOCAL, keyring=Keyring([key]), tags=tags, seeds=seeds)


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    gossip = f"127.0.0.1:{free_port()}"
    options = ("--no-insecure", "--gossip", gossip, "--gossip-preset", "local")
    async with ControllerProcess(tmp_path, *options) as controller:
        yield controller


def board(controller: ControllerProcess, *seeds: str) -> AgentProcess:
    """An agent that has joined, and finds its controller by gossip alone."""
    options = ("--no-insecure", "--gossip", "127.0.0.1:0", "--gossip-preset", "local")
    joins = [word for seed in seeds for word in ("--join", seed)]
    agent = AgentProcess("", *options, *joins)
    join_node(controller.folder / "state", agent.state, agent.name)
    return agent


def ring(controller: ControllerProcess) -> bytes:
    (key,) = KeyringFile(controller.folder / "state" / "identity" / "gossip.keyring").read()
    return key


async def session_of(controller: ControllerProcess, agent: AgentProcess) -> None:
    """Wait until the controller has a session with the node."""
    person = issued(controller.folder / "state", Role.OPERATOR, "ann")

    async def ready() -> bool:
        return any(node.name == agent.name and node.connected for node in await client.nodes())

    async with Client(controller.grpc, credentials=person) as client:
        await until(ready, 30, f"{agent.name} with its controller\n{agent.log()}")


async def test_a_stranger_without_the_key_is_no_member(controller: ControllerProcess) -> None:
    agent = board(controller, controller.gossip)
    async with (
        impostor(None) as (spy, address),
        false_member("evil", address, STRANGE) as evil,
        agent,
    ):
        assert await evil.join([controller.gossip]) == 0
        await session_of(controller, agent)
        assert spy.spoken == 0
        assert set(states(evil)) == {"evil"}
        assert address not in agent.log()


def nothing(_state: Path, _own: Path) -> None:
    """It serves in the clear."""


def made_up(state: Path, own: Path) -> Callable[[], Credentials]:
    """Its authority is its own, under the id of the cluster."""
    cluster = (state / "identity" / "cluster").read_text()
    made = ClusterIdentity(own, cluster, "controller", lambda: dt.datetime.now(dt.UTC))
    return lambda: made.credentials


def of_a_node(state: Path, _own: Path) -> Callable[[], Credentials]:
    """It is a node of the cluster, with a good certificate for that."""
    stolen = issued(state, Role.NODE, "cam-9")
    return lambda: stolen


@pytest.mark.parametrize(
    ("proof", "why"),
    [
        (nothing, "does not prove who it is"),
        (made_up, "its authority is not one that you believe"),
        (of_a_node, "is not its controller"),
    ],
)
async def test_a_stranger_with_the_key_gets_no_agent(
    controller: ControllerProcess,
    tmp_path: Path,
    proof: Callable[[Path, Path], Callable[[], Credentials] | None],
    why: str,
) -> None:
    identity = proof(controller.folder / "state", tmp_path / "evil")
    async with (
        impostor(identity) as (spy, address),
        false_member("evil", address, ring(controller), controller.gossip) as evil,
    ):
        await joined(evil, "controller")
        real = controller.gossip
        controller.end(signal.SIGKILL)
        await until(lambda: states(evil)["controller"] is SwimState.DEAD, 60, "the real one dead")
        agent = board(controller, str(evil.address), real)
        async with agent:
            # The impostor is all that there is: it is dialled, and is not believed.
            await until(lambda: f"no controller is believed at {address}" in agent.log(), 30)
            await joined(evil, agent.name)
            await controller.start()
            await session_of(controller, agent)
            assert why in agent.log()
            assert spy.spoken == 0
            # With both at hand it stays where it is, also after the real one was away for a moment.
            controller.end(signal.SIGKILL)
            await controller.start()
            await session_of(controller, agent)
            assert spy.spoken == 0


async def joined(member: GossipShell, name: str) -> None:
    await until(lambda: states(member).get(name) is SwimState.ALIVE, 30, f"{name} in gossip")
