"""M1: Debian's Serf agents and our members in one cluster."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
from pathlib import Path

import pytest

from services.membership.keyring import Keyring
from services.membership.message import SwimState
from tests.kit.gossip import running, states
from tests.kit.serf import SerfAgent
from tests.kit.until import until

ALIVE, DEAD, LEFT = SwimState.ALIVE, SwimState.DEAD, SwimState.LEFT
KEYS = [b"", b"k" * 16, b"k" * 24, b"k" * 32]


async def serf_sees(agent: SerfAgent, **expected: str) -> None:
    async def seen() -> bool:
        found = await agent.members()
        return all(found.get(name) == state for name, state in expected.items())

    await until(seen, 40, f"{agent.name} sees {expected}")


@pytest.mark.parametrize("key", KEYS, ids=["plain", "aes128", "aes192", "aes256"])
@pytest.mark.parametrize("we_join", [True, False], ids=["we join", "serf joins"])
async def test_m1_both_see_each_other(tmp_path: Path, key: bytes, *, we_join: bool) -> None:
    encoded = base64.b64encode(key).decode()
    keyring = Keyring([key] if key else [])
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(
            running("ours", keyring=keyring, tags={"role": "controller"})
        )
        agent = SerfAgent(
            name="serf",
            folder=tmp_path,
            key=encoded,
            tags={"board": "tx2"},
            join=[] if we_join else [str(ours.address)],
        )
        await stack.enter_async_context(agent)
        if we_join:
            assert await ours.join([agent.address]) == 1

        await until(lambda: states(ours) == {"ours": ALIVE, "serf": ALIVE}, 5, "we see serf")
        await serf_sees(agent, ours="alive", serf="alive")
        assert (await agent.rows())["ours"]["tags"] == {"role": "controller"}
        serf = next(member for member in ours.members() if member.name == "serf")
        assert dict(serf.tags) == {"board": "tx2"}

        await ours.set_tags({"role": "edge", "zone": "b"})

        async def tagged() -> bool:
            tags = (await agent.rows())["ours"]["tags"]
            return bool(tags == {"role": "edge", "zone": "b"})

        await until(tagged, 5, "serf sees our new tags")
        code, said = await agent.command("tags", "-set", "board=nano")
        assert code == 0, said
        await until(
            lambda: any(dict(m.tags) == {"board": "nano"} for m in ours.members()),
            5,
            "we see serf's new tags",
        )

        await ours.leave(5)
        await serf_sees(agent, ours="left")


async def test_m1_serf_leaves_us(tmp_path: Path) -> None:
    async with (
        SerfAgent(name="serf", folder=tmp_path) as agent,
        running("ours", seeds=(agent.address,)) as ours,
    ):
        await until(lambda: states(ours).get("serf") is ALIVE, 5, "we see serf")
        agent.signal(signal.SIGINT)  # a graceful leave

        await until(lambda: states(ours).get("serf") is LEFT, 20, "we see serf left")


async def test_m1_a_killed_member_is_found_by_both(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(SerfAgent(name="serf1", folder=tmp_path))
        second = await enter(SerfAgent(name="serf2", folder=tmp_path, join=[first.address]))
        ours = await enter(running("ours1", seeds=(first.address,)))
        dying = running("ours2", seeds=(first.address,))
        await dying.__aenter__()
        everybody = dict.fromkeys(["serf1", "serf2", "ours1", "ours2"], ALIVE)
        await until(lambda: states(ours) == everybody, 10, "all four see each other")
        await serf_sees(second, ours1="alive", ours2="alive")

        await dying.__aexit__(None, None, None)  # its sockets close without a word
        second.signal(signal.SIGKILL)

        await until(
            lambda: states(ours) == everybody | {"serf2": DEAD, "ours2": DEAD}, 40, "we find both"
        )
        await serf_sees(first, ours2="failed", serf2="failed", ours1="alive")


async def test_m1_a_stopped_member_refutes(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        agents = [await enter(SerfAgent(name="serf0", folder=tmp_path))]
        agents += [
            await enter(SerfAgent(name=f"serf{i}", folder=tmp_path, join=[agents[0].address]))
            for i in (1, 2)
        ]
        ours = [await enter(running(f"ours{i}", seeds=(agents[0].address,))) for i in range(3)]
        await until(lambda: all(len(states(gossip)) == 6 for gossip in ours), 10, "six are known")
        async with ours[0].watch() as watch:
            agents[1].signal(signal.SIGSTOP)
            suspected = False
            async with asyncio.timeout(30):
                async for change in watch:
                    if change.member.name != "serf1":
                        continue
                    assert change.kind != "died"
                    if change.kind == "suspected" and not suspected:
                        suspected = True
                        agents[1].signal(signal.SIGCONT)
                    if change.kind == "recovered":
                        break

        await until(
            lambda: all(states(gossip)["serf1"] is ALIVE for gossip in ours), 5, "all see it well"
        )
        await serf_sees(agents[0], serf1="alive")


async def test_random_bytes_on_the_port_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    async with (
        SerfAgent(name="serf", folder=tmp_path) as agent,
        running("ours", seeds=(agent.address,)) as ours,
    ):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=ours.address
        )
        for data in (b"", b"\xff" * 100, bytes.fromhex("0780" + "00" * 10), b"\x00\xc1", b"\x06"):
            transport.sendto(data)
        transport.close()
        _, writer = await asyncio.open_connection(*ours.address)
        writer.write(b"\x99" * 1000)
        await writer.drain()
        writer.close()

        def dropped() -> int:
            return sum(n for name, n in ours.counters.items() if name.startswith("dropped_"))

        await until(lambda: dropped() >= 5, 5, "the garbage is counted")
        await until(lambda: states(ours).get("serf") is ALIVE, 5, "the cluster is well")
