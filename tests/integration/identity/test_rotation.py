"""Keys of gossip are rotated over sessions: a board that was away gossips again by itself.

Real processes. The board finds its controller by gossip, and after the rotation it can open nothing of that.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from services.membership.keyring_file import KeyringFile
from shoal.client import Client
from shoal.gossip_key import key_id
from shoal.identity import Role
from shoal.model import MemberState
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.joined import issued, join_node
from tests.kit.until import until

NEW = b"n" * 32


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    options = ("--no-insecure", "--gossip-preset", "local")
    async with ControllerProcess(tmp_path, *options) as controller:
        yield controller


@pytest.fixture
async def client(controller: ControllerProcess) -> AsyncIterator[Client]:
    person = issued(controller.folder / "state", Role.OPERATOR, "ann")
    async with Client(controller.grpc, credentials=person) as client:
        yield client


def board(controller: ControllerProcess, name: str) -> AgentProcess:
    options = ("--no-insecure", "--gossip", "127.0.0.1:0", "--gossip-preset", "local")
    agent = AgentProcess("", *options, "--join", controller.gossip, name=name)
    join_node(controller.folder / "state", agent.state, name)
    return agent


def ring(folder: Path) -> tuple[bytes, ...]:
    return KeyringFile(folder / "identity" / "gossip.keyring").read()


def holds(folder: Path, key: bytes) -> bool:
    return ring(folder) == (key,)


async def gossips(client: Client, name: str) -> bool:
    return any(
        member.name == name and member.state is MemberState.ALIVE
        for member in await client.members()
    )


async def connected(client: Client, name: str) -> bool:
    return any(node.name == name and node.connected for node in await client.nodes())


async def rotated_by_gossip(client: Client, old: bytes) -> None:
    await client.install_gossip_key(NEW)
    await client.use_gossip_key(key_id(NEW))
    await client.remove_gossip_key(key_id(old))


async def rotated_over_sessions(client: Client, _old: bytes) -> None:
    _, report = await client.rotate_gossip_key()
    assert report.members >= 2


@pytest.mark.parametrize("rotate", [rotated_by_gossip, rotated_over_sessions])
async def test_a_board_that_was_away_during_a_rotation_gossips_again(
    controller: ControllerProcess,
    client: Client,
    rotate: Callable[[Client, bytes], Awaitable[None]],
) -> None:
    state = controller.folder / "state"
    (old,) = ring(state)
    async with board(controller, "cam-1") as away, board(controller, "cam-2") as here:
        for name in ("cam-1", "cam-2"):
            await until(partial(gossips, client, name), 30, f"{name} in gossip")
            await until(partial(connected, client, name), 30, f"{name} with a session")
        assert await away.terminate() == 0, away.log()
        await rotate(client, old)
        await until(lambda: ring(state) != (old,) and len(ring(state)) == 1, 30, "the new ring")
        (new,) = ring(state)
        await until(partial(holds, here.state, new), 30, "the ring of the board that was there")
        assert ring(away.state) == (old,)
        away.start()
        await until(partial(connected, client, "cam-1"), 60, "a session")
        await until(partial(holds, away.state, new), 30, "the ring of the board that was away")
        for name in ("cam-1", "cam-2"):
            await until(partial(gossips, client, name), 60, f"{name} in gossip\n{away.log()}")
        # Each keeps the ring without the other.
        controller.end(signal.SIGKILL)
        assert ring(state) == ring(away.state) == (new,)
