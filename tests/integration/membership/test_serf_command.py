"""M2: the stock `serf` command against our port, and key rotation through a mixed cluster."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from services.membership.ipc import IpcServer
from services.membership.keyring import Keyring
from services.membership.message import SwimState
from services.membership.serf.effects import EventHeard, QueryHeard
from services.membership.shell import GossipShell
from tests.kit.gossip import running, states
from tests.kit.programs import program
from tests.kit.serf import SerfAgent, serf_command
from tests.kit.until import until

ALIVE = SwimState.ALIVE


@contextlib.asynccontextmanager
async def mixed(
    folder: Path, *, key: bytes = b""
) -> AsyncIterator[tuple[list[SerfAgent], list[GossipShell]]]:
    """Two Serf agents and three members of ours that all see each other."""
    encoded = base64.b64encode(key).decode()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        agents = [await enter(SerfAgent(name="serf0", folder=folder, key=encoded))]
        first = agents[0].address
        agents.append(
            await enter(SerfAgent(name="serf1", folder=folder, key=encoded, join=[first]))
        )
        ours = [
            await enter(
                running(
                    f"ours{index}",
                    seeds=(first,),
                    keyring=Keyring([key] if key else []),
                    tags={"role": "edge", "index": str(index)},
                )
            )
            for index in range(3)
        ]
        names = dict.fromkeys(["serf0", "serf1", "ours0", "ours1", "ours2"], ALIVE)
        await until(lambda: all(states(g) == names for g in ours), 10, "all five see each other")

        async def serfs_see() -> bool:
            seen = [await agent.members() for agent in agents]
            return all(view == dict.fromkeys(names, "alive") for view in seen)

        await until(serfs_see, 10, "both agents list five")
        yield agents, ours


async def all_reached(reachability: Awaitable[tuple[int, str]]) -> bool:
    code, said = await reachability
    return code == 0 and "Successfully contacted all live nodes" in said


async def test_m2_members_info_and_reachability_on_our_port(tmp_path: Path) -> None:
    async with mixed(tmp_path) as (_, ours), IpcServer(ours[0], port=0) as ipc:
        code, said = await serf_command(ipc.port, "members", "-format=json")
        rows = {row["name"]: row for row in json.loads(said)["members"]}
        assert code == 0, said
        assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(
            ["serf0", "serf1", "ours0", "ours1", "ours2"], "alive"
        )
        assert rows["ours1"]["tags"] == {"role": "edge", "index": "1"}
        assert rows["ours1"]["addr"] == str(ours[1].address)

        code, said = await serf_command(ipc.port, "members", "-tag", "index=[12]")
        assert code == 0, said
        assert {line.split()[0] for line in said.splitlines()} == {"ours1", "ours2"}

        code, said = await serf_command(ipc.port, "info")
        assert code == 0, said
        assert "ours0" in said

        # It counts what comes within a few seconds, over UDP: on a busy machine it may ask again.
        await until(lambda: all_reached(serf_command(ipc.port, "reachability")), 15, "all answer")


async def test_m2_their_reachability_counts_us(tmp_path: Path) -> None:
    async with mixed(tmp_path) as (agents, _):
        await until(lambda: all_reached(agents[0].command("reachability")), 15, "all answer")


async def test_m2_events_pass_both_ways(tmp_path: Path) -> None:
    async with (
        mixed(tmp_path) as (agents, ours),
        IpcServer(ours[0], port=0) as ipc,
        ours[1].serf.watch() as watch,
    ):
        code, said = await serf_command(ipc.port, "event", "deploy", "v1")
        assert code == 0, said
        code, said = await agents[1].command("event", "restart", "v2")
        assert code == 0, said
        heard: set[tuple[str, bytes]] = set()
        async with asyncio.timeout(10):
            async for happening in watch:
                if isinstance(happening, EventHeard):
                    heard.add((happening.event.name, happening.event.payload))
                if len(heard) == 2:
                    break
        assert heard == {("deploy", b"v1"), ("restart", b"v2")}
        await until(
            lambda: "user-event: deploy" in agents[0].log.lower() or "deploy" in agents[0].log,
            10,
            "serf hears our event",
        )


async def test_m2_queries_pass_both_ways(tmp_path: Path) -> None:
    async with mixed(tmp_path) as (agents, ours), IpcServer(ours[0], port=0) as ipc:

        async def answering(gossip: GossipShell, ready: asyncio.Event) -> None:
            async with gossip.serf.watch() as watch:
                ready.set()
                async for happening in watch:
                    if isinstance(happening, QueryHeard):
                        answer = f"{gossip.local.name}:".encode() + happening.query.payload
                        gossip.serf.respond(happening.query, answer)

        async with asyncio.TaskGroup() as tasks:
            ready = [asyncio.Event() for _ in ours]
            answerers = [
                tasks.create_task(answering(gossip, event))
                for gossip, event in zip(ours, ready, strict=True)
            ]
            for event in ready:
                await event.wait()
            code, said = await agents[0].command("query", "-timeout=3s", "uptime", "now")
            assert code == 0, said
            assert all(f"ours{index}:now" in said for index in range(3)), said
            assert "Total Responses: 3" in said

            code, said = await serf_command(ipc.port, "query", "-timeout=2s", "uptime", "x")
            assert code == 0, said
            assert all(f"ours{index}:x" in said for index in range(3)), said
            assert "Total Acks: 5" in said

            code, said = await serf_command(
                ipc.port, "query", "-timeout=2s", "-tag", "index=1", "uptime", "x"
            )
            assert "Total Responses: 1" in said, said
            for task in answerers:
                task.cancel()


async def test_m2_tags_join_force_leave_and_rtt(tmp_path: Path) -> None:
    async with mixed(tmp_path) as (agents, ours), IpcServer(ours[0], port=0) as ipc:
        code, said = await serf_command(ipc.port, "tags", "-set", "zone=b", "-delete", "index")
        assert code == 0, said
        assert dict(ours[0].local.tags) == {"role": "edge", "zone": "b"}

        async def tagged() -> bool:
            return bool((await agents[1].rows())["ours0"]["tags"].get("zone") == "b")

        await until(tagged, 5, "serf sees the tag")
        async with running("late") as late, IpcServer(late, port=0) as other:
            code, said = await serf_command(other.port, "join", agents[0].address)
            assert code == 0, said
            assert "Successfully joined cluster by contacting 1" in said
            code, said = await serf_command(other.port, "leave")
            assert code == 0, said
            assert other.left.is_set()

        async def both_know() -> bool:
            code, said = await serf_command(ipc.port, "rtt", "serf0", "ours0")
            theirs, heard = await agents[0].command("rtt", "ours0", "serf0")
            return code == 0 and "rtt:" in said and theirs == 0 and "rtt:" in heard

        await until(both_know, 30, "round trips are known on both sides")


async def test_m2_keys_rotate_and_nobody_is_dropped(tmp_path: Path) -> None:
    old, new = b"o" * 16, b"n" * 32
    encoded = base64.b64encode(new).decode()
    async with mixed(tmp_path, key=old) as (agents, ours), IpcServer(ours[0], port=0) as ipc:
        for step in (f"-install={encoded}", f"-use={encoded}"):
            code, said = await serf_command(ipc.port, "keys", step)
            assert code == 0, said
        # The agent's own command takes the last step, so that both directions are seen.
        old_encoded = base64.b64encode(old).decode()
        code, said = await agents[0].command("keys", f"-remove={old_encoded}")
        assert code == 0, said
        assert [gossip.keyring.keys for gossip in ours] == [(new,)] * 3

        async def listed() -> bool:  # a query is a few packets, and each of them may be lost
            _, said = await serf_command(ipc.port, "keys", "-list")
            return encoded in said and "5/5" in said

        await until(listed, 30, "all five have the new key")
        code, said = await agents[0].command("members")
        assert said.count("alive") == 5
        assert all(set(states(gossip).values()) == {ALIVE} for gossip in ours)


async def test_monitor_and_auth() -> None:
    async with (
        running("ours") as ours,
        IpcServer(ours, port=0, auth_key="secret", log=logging.getLogger("shoal.test")) as ipc,
    ):
        code, said = await serf_command(ipc.port, "members")
        assert code != 0, said
        code, said = await serf_command(ipc.port, "members", "-rpc-auth=wrong")
        assert code != 0, said
        code, said = await serf_command(ipc.port, "members", "-rpc-auth=secret")
        assert code == 0, said
        assert "ours" in said
        process = await asyncio.create_subprocess_exec(
            program("serf"),
            "monitor",
            f"-rpc-addr=127.0.0.1:{ipc.port}",
            "-rpc-auth=secret",
            stdout=asyncio.subprocess.PIPE,
        )
        heard = bytearray()

        async def read() -> None:
            assert process.stdout is not None
            while data := await process.stdout.read(1000):
                heard.extend(data)

        def event_shown() -> bool:
            ours.serf.send_event("hello", b"x")
            return b"hello" in heard

        task = asyncio.create_task(read())
        try:
            await until(event_shown, 10, "serf monitor shows our event")
        finally:
            process.kill()
            await process.wait()
            await task


async def test_garbage_on_the_port_ends_only_that_client() -> None:
    async with running("ours") as ours, IpcServer(ours, port=0) as ipc:
        for data in (b"\xc1\xc1", b"\x93\x01", b"\x82\xa7Command\x05\xa3Seq\x01", b"\xff" * 9999):
            reader, writer = await asyncio.open_connection("127.0.0.1", ipc.port)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()
        code, said = await serf_command(ipc.port, "members")
        assert code == 0, said


def test_everybody_may_not_be_served_without_a_key() -> None:
    with pytest.raises(ValueError, match="auth key"):
        IpcServer(None, host="0.0.0.0")  # type: ignore[arg-type]  # noqa: S104
