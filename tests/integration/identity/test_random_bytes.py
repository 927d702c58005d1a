"""A million random first bytes on each port of a cluster with identity: it lives on, and answers.

Real processes. `SHOAL_SEED=N` begins with another seed.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import aiohttp
import psutil
import pytest

from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile
from services.membership.preset import LOCAL
from shoal.client import Client
from shoal.credentials import Credentials
from shoal.identity import Identity, Role
from shoal.tls import client_context
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.gossip import running
from tests.kit.joined import issued, join_node
from tests.kit.until import until

SEED = int(os.environ.get("SHOAL_SEED", "12"))
BYTES = 1_000_000
FIRST_MAX = 8_192
TOGETHER = 16
GROWTH_BYTES = 64 << 20
BEGINNINGS = (
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a ClientHello, RFC 8446 section 4.1.2
    b"\x16\x03\x01\xff\xff",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # RFC 9113 section 3.4
    b"GET / HTTP/1.1\r\n",
    b"\x0a\x00\x00\x10\x00",  # a sealed stream of gossip, and its length
    b"\x0a\xff\xff\xff\xff",
    b"\x06",  # a push/pull of gossip in the clear
    b"\x09",
)


def firsts(rng: Random) -> Iterator[bytes]:
    """What a stranger says first, again and again, until there was as much as is asked for."""
    left = BYTES
    while left > 0:
        data = rng.choice(BEGINNINGS) + rng.randbytes(rng.randint(1, FIRST_MAX))
        left -= len(data)
        yield data


async def dial(address: str, data: bytes, rng: Random) -> None:
    """Say it over TCP, and hang up in one way or another."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(data)
                await writer.drain()
                if rng.random() < 0.8:
                    writer.write_eof()
                    while await reader.read(65536):
                        pass
            finally:
                writer.transport.abort()


async def dialled(address: str, rng: Random) -> int:
    """Dial again and again, a few at a time; returns how often."""
    count = 0
    batch: list[bytes] = []
    for data in firsts(rng):
        batch.append(data)
        count += 1
        if len(batch) == TOGETHER:
            async with asyncio.TaskGroup() as tasks:
                for one in batch:
                    tasks.create_task(dial(address, one, rng))
            batch = []
    return count


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    served = ("--members-http", "0.0.0.0:0", "--metrics", "0.0.0.0:0")
    options = ("--no-insecure", *served, "--gossip-preset", "local")
    async with ControllerProcess(tmp_path, *options) as controller:
        yield controller


def process_of(controller: ControllerProcess) -> psutil.Process:
    assert controller.process is not None
    return psutil.Process(controller.process.pid)


async def answers(controller: ControllerProcess, folder: Path) -> None:
    """Each port answers who proves an identity of the cluster."""
    state = controller.folder / "state"
    person = issued(state, Role.OPERATOR, "ann")
    (folder / "ann.pem").write_bytes(person.key + person.certificate)
    async with Client(controller.grpc, credentials=person) as client:
        assert [member.name for member in await client.members()] == ["controller"]
    tls = client_context(person.authorities, web=False)
    tls.load_cert_chain(folder / "ann.pem")
    members = controller.addresses["members_http"].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    async with aiohttp.ClientSession() as http:
        async with http.get(f"https://{members}/members", ssl=tls) as response:
            assert [row["Name"] for row in (await response.json())["Active"]] == ["controller"]
        metrics = controller.addresses["metrics"].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        async with http.get(f"https://{metrics}/metrics", ssl=tls) as response:
            assert "shoal_controller_leads 1.0" in await response.text()
        async with http.get(
            f"https://{controller.addresses['objects']}/objects/x", ssl=tls
        ) as response:
            assert response.status == 403
        async with http.get(
            f"https://{controller.addresses['newcomers']}/v1/authorities", ssl=tls
        ) as response:
            assert response.status == 200
    (key,) = KeyringFile(state / "identity" / "gossip.keyring").read()
    async with running("probe", preset=LOCAL, keyring=Keyring([key])) as member:
        assert await member.join([controller.gossip]) == 1
        await member.leave(5)


@pytest.mark.parametrize(
    "port", ["grpc", "objects", "members_http", "metrics", "newcomers", "gossip"]
)
async def test_a_million_random_bytes_over_tcp_change_nothing(
    controller: ControllerProcess, tmp_path: Path, port: str
) -> None:
    await answers(controller, tmp_path)
    process = process_of(controller)
    before, files = process.memory_info().rss, process.num_fds()
    address = controller.addresses[port].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert await dialled(address, Random(f"{SEED} {port}")) > BYTES / (2 * FIRST_MAX)
    assert process.is_running()
    await answers(controller, tmp_path)
    await until(lambda: process.num_fds() < files + 20, 60, "connections closed")
    assert process.memory_info().rss < before + GROWTH_BYTES
    assert "Traceback" not in controller.log()


async def test_a_million_random_bytes_over_udp_change_nothing(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    await answers(controller, tmp_path)
    process = process_of(controller)
    before = process.memory_info().rss
    await thrown(controller.gossip, Random(f"{SEED} udp"))
    await answers(controller, tmp_path)
    assert process.memory_info().rss < before + GROWTH_BYTES
    assert "Traceback" not in controller.log()


async def shaken(address: str, proof: Credentials, expect: str) -> None:
    """Shake hands with a gRPC server, which proves that it is what is expected."""
    tls = client_context(proof.authorities, web=False)
    tls.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(proof.key + proof.certificate)
        file.flush()
        tls.load_cert_chain(file.name)
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=tls, server_hostname=expect
        )
        assert await reader.readexactly(3)  # the SETTINGS of HTTP/2, which come unasked
    writer.transport.abort()


async def thrown(address: str, rng: Random) -> None:
    """Say it over UDP."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        loop = asyncio.get_running_loop()
        for data in firsts(rng):
            await loop.sock_sendto(datagrams, data, (host, int(port)))


async def test_a_million_random_bytes_on_each_port_of_a_board_change_nothing(
    controller: ControllerProcess,
) -> None:
    person = issued(controller.folder / "state", Role.OPERATOR, "ann")
    agent = AgentProcess(
        controller.grpc, "--no-insecure", "--gossip", "127.0.0.1:0", "--gossip-preset", "local",
        "--join", controller.gossip,
    )  # fmt: skip
    join_node(controller.folder / "state", agent.state, agent.name)
    async with agent, Client(controller.grpc, credentials=person) as client:

        async def well() -> tuple[str, str]:
            """Where its streams and its gossip are, once it has a session and is a member."""
            [node] = await client.nodes() or [None]
            found = [member for member in await client.members() if member.name == agent.name]
            if node is None or not node.connected or not node.stream_address or not found:
                return "", ""
            alive = found[0].state.name == "ALIVE"
            return node.stream_address, f"127.0.0.1:{found[0].port}" if alive else ""

        async def all_well() -> bool:
            return all(await well())

        await until(all_well, 60, f"the board\n{agent.log()}")
        streams, gossip = await well()
        processes = [psutil.Process(pid) for pid in agent.processes()]
        before = {process.pid: process.memory_info().rss for process in processes}
        assert len(processes) >= 3  # agent, keeper, stream worker
        await dialled(streams, Random(f"{SEED} streams"))
        await dialled(gossip, Random(f"{SEED} gossip of a board"))
        await thrown(gossip, Random(f"{SEED} udp of a board"))
        await until(all_well, 60, f"the board as before\n{agent.log()}")
        assert await well() == (streams, gossip)
        await shaken(streams, person, Identity(person.identity.cluster, Role.NODE, agent.name).dns)
        for process in processes:
            assert process.is_running()
            assert process.memory_info().rss < before[process.pid] + GROWTH_BYTES
        assert "Traceback" not in agent.log()
