"""Controllers, agents and Serf's own agents as one gossip cluster of real processes."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shoal.client import Client, SnapshotEnd
from shoal.gossip_key import key_id, write_key
from shoal.model import MemberState, PipelineState
from shoal.spec import Job, Pipeline
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.ports import free_port
from tests.kit.serf import SerfAgent, serf_command
from tests.kit.until import until

ONE = Pipeline("one", (Job("say", ("sh", "-c", "echo hello > results/x")),))


async def shoal(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `shoal` command to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "shoal.cli", *words, "--controller", address],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def page(address: str, path: str) -> Any:
    """Get a page of JSON."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}{path}") as answer:
        return await answer.json()


async def members(client: Client) -> dict[str, MemberState]:
    """State by name of everybody that the controller remembers."""
    return {member.name: member.state for member in await client.members(everyone=True)}


@dataclass(frozen=True, slots=True)
class Mixed:
    """Two Serf agents, a controller and two agents, each with a port for the `serf` command."""

    serfs: list[SerfAgent]
    controller: ControllerProcess
    agents: list[AgentProcess]
    rpc_ports: list[int]

    @property
    def names(self) -> set[str]:
        """Of all five."""
        return {"serf0", "serf1", "controller", "node-1", "node-2"}


@contextlib.asynccontextmanager
async def mixed(folder: Path, key: bytes) -> AsyncIterator[Mixed]:
    """All five, which know each other by gossip alone; with a key they are encrypted."""
    encoded = write_key(key) if key else ""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        serfs = [await enter(SerfAgent(name="serf0", folder=folder, key=encoded))]
        seed = serfs[0].address
        serfs.append(await enter(SerfAgent(name="serf1", folder=folder, key=encoded, join=[seed])))
        controller = await enter(
            ControllerProcess(
                folder,
                *("--join", seed, "--serf-rpc", "127.0.0.1:0", "--members-http", "127.0.0.1:0"),
                # In its environment, where no list of processes shows it.
                environ={"SHOAL_CONTROLLER_GOSSIP_KEY": encoded} if key else None,
            )
        )
        agents: list[AgentProcess] = []
        ports = [int(controller.addresses["serf_rpc"].rpartition(":")[2])]
        for name in ("node-1", "node-2"):
            settings = folder / f"{name}.toml"
            lines = [f'join = ["{seed}"]', 'gossip = "127.0.0.1:0"']
            if key:
                keyring = folder / f"{name}.keys"
                keyring.write_text(json.dumps([encoded]))
                keyring.chmod(0o600)
                lines.append(f'gossip_keyring = "{keyring}"')
            ports.append(free_port())
            lines.append(f'serf_rpc = "127.0.0.1:{ports[-1]}"')
            settings.write_text("\n".join(lines))
            agents.append(await enter(_agent("--config", str(settings), name=name)))
        yield Mixed(serfs, controller, agents, ports)


class _Agent(AgentProcess):
    """An agent that is told nothing on its command line that a file could say."""

    def argv(self) -> list[str]:
        words = super().argv()
        at = words.index("--gossip")
        return words[:at] + words[at + 2 :]


def _agent(*words: str, name: str = "node-1") -> AgentProcess:
    return _Agent("", *words, name=name)


@pytest.mark.parametrize("key", [b"", b"k" * 32], ids=["plain", "encrypted"])
async def test_m1_m2_e10_two_serf_agents_and_three_of_ours_are_one_cluster(
    tmp_path: Path, key: bytes
) -> None:
    async with mixed(tmp_path, key) as cluster, Client(cluster.controller.grpc) as client:
        alive = dict.fromkeys(cluster.names, MemberState.ALIVE)

        async def all_alive() -> bool:
            return await members(client) == alive

        await until(all_alive, 20, "five members alive")

        # What people see.
        said = (await shoal(client.address, "members")).stdout.splitlines()
        assert {line.split()[0] for line in said[1:]} == cluster.names
        assert all(line.split()[1] == "alive" for line in said[1:])

        # What a Serf agent sees, and what ours tell the stock command.
        for port in (*(serf.rpc_port for serf in cluster.serfs), *cluster.rpc_ports):
            await until(partial(_five, port, cluster), 20, f"five on port {port}")

        # E10: the pages of the original program.
        http = cluster.controller.addresses["members_http"]
        active = (await page(http, "/members"))["Active"]
        assert {member["Name"] for member in active} == cluster.names
        assert all(set(member) == {"Name", "IP", "Port"} for member in active)
        assert (await page(http, "/info"))["Name"] == "controller"

        # The agents found their controller among all these members, and work.
        async def ready() -> bool:
            return [node.connected for node in await client.nodes()] == [True, True]

        await until(ready, 30, "both agents' sessions")
        submitted = await client.submit(ONE)
        ended = await client.wait(submitted.pipeline.name, deadline_seconds=120)
        assert ended.state is PipelineState.SUCCEEDED
        if not key:
            await _forgotten_and_back(cluster, client)
        if key:
            assert write_key(key) not in cluster.controller.log()
            assert all(write_key(key) not in agent.log() for agent in cluster.agents)


async def _forgotten_and_back(cluster: Mixed, client: Client) -> None:
    """A node is forgotten once it is gone, by all members, and comes back as a new one."""
    address = client.address
    assert (await shoal(address, "drain", "node-2")).returncode == 0
    alive = await shoal(address, "nodes", "forget", "node-2")
    assert alive.returncode == 1
    assert "node node-2 is not gone, so not forgotten: its agent has a session" in alive.stderr
    cluster.agents[1].kill()

    async def forgotten() -> bool:
        said = await shoal(address, "nodes", "forget", "node-2")
        return (said.returncode, said.stdout) == (0, "node-2 is forgotten\n")

    await until(forgotten, 60, "gossip finds node-2 dead")
    assert [node.name for node in await client.nodes()] == ["node-1"]

    async def unknown() -> bool:
        _, said = await serf_command(cluster.serfs[1].rpc_port, "members", "-format=json")
        known = {row["name"] for row in json.loads(said)["members"]}
        return "node-2" not in {*known, *await members(client)}

    await until(unknown, 20, "no member knows node-2")
    cluster.agents[1].start()

    async def back() -> bool:
        return [(one.name, one.drained) for one in await client.nodes() if one.connected] == [
            ("node-1", False),
            ("node-2", False),
        ]

    await until(back, 30, "node-2 as a new node")


async def _five(rpc_port: int, cluster: Mixed) -> bool:
    code, said = await serf_command(rpc_port, "members", "-format=json")
    assert code == 0, said
    rows = {row["name"]: row["status"] for row in json.loads(said)["members"]}
    return rows == dict.fromkeys(cluster.names, "alive")


async def test_m2_keys_rotate_through_ours_and_serf_and_nobody_is_dropped(tmp_path: Path) -> None:
    old, new = b"o" * 16, b"n" * 32
    async with mixed(tmp_path, old) as cluster, Client(cluster.controller.grpc) as client:
        address = client.address

        async def all_known() -> bool:
            return len(await members(client)) == 5

        await until(all_known, 20, "five members")
        (tmp_path / "new.key").write_text(write_key(new) + "\n")

        async def listed(*rows: str) -> bool:
            shown = await shoal(address, "keys", "list")
            return shown.returncode == 0 and _rows(shown.stdout)[1:] == list(rows)

        await until(lambda: listed(f"{key_id(old)} in use 5/5 5/5"), 20, "the first key")
        done = await shoal(address, "keys", "install", str(tmp_path / "new.key"))
        assert done.returncode == 0, done.stderr
        assert "installed on 5 members" in done.stdout
        in_use = await shoal(address, "keys", "remove", key_id(old))
        assert in_use.returncode == 1
        assert "seals gossip" in in_use.stderr
        done = await shoal(address, "keys", "use", key_id(new)[:6])
        assert done.returncode == 0, done.stderr
        done = await shoal(address, "keys", "remove", key_id(old))
        assert done.returncode == 0, done.stderr
        assert await listed(f"{key_id(new)} in use 5/5 5/5")
        unknown = await shoal(address, "keys", "use", "0000")
        assert unknown.returncode == 1
        assert "no keys are called" in unknown.stderr

        # Kept: an agent that starts anew has the key of now, and nobody was lost meanwhile.
        for name in ("node-1", "node-2"):
            ring = tmp_path / f"{name}.keys"
            await until(partial(_holds, ring, new), 10, f"the new key in {ring.name}")
            assert ring.stat().st_mode & 0o077 == 0
        assert await members(client) == dict.fromkeys(cluster.names, MemberState.ALIVE)
        before = await _incarnation(client, "node-1")
        cluster.agents[0].kill()
        cluster.agents[0].start()

        async def again() -> bool:
            return await _incarnation(client, "node-1") > before and set(
                (await members(client)).values()
            ) == {MemberState.ALIVE}

        await until(again, 30, "the restarted agent in the cluster")
        told = cluster.controller.log() + "".join(agent.log() for agent in cluster.agents)
        assert all(write_key(key) not in told and key.hex() not in told for key in (old, new))


def _holds(keyring: Path, key: bytes) -> bool:
    return bool(json.loads(keyring.read_text()) == [write_key(key)])


def _rows(table: str) -> list[str]:
    return [" ".join(line.split()) for line in table.splitlines()]


async def _incarnation(client: Client, name: str) -> int:
    found = {member.name: member for member in await client.members(everyone=True)}
    return found[name].incarnation if name in found else 0


async def test_a_keyring_is_read_again_when_it_changes(tmp_path: Path) -> None:
    keyring = tmp_path / "gossip.keys"
    first, second = b"1" * 16, b"2" * 24
    keyring.write_text(first.hex())  # one a line, as a person may write it
    keyring.chmod(0o600)
    async with ControllerProcess(tmp_path, "--gossip-keyring", str(keyring)) as controller:
        keyring.write_text(f"{write_key(second)}\n{write_key(first)}\n")

        async def rotated() -> bool:
            said = (await shoal(controller.grpc, "keys", "list", "--json")).stdout
            return [json.loads(line)["id"] for line in said.splitlines()] == [
                key_id(second),
                key_id(first),
            ]

        await until(rotated, 30, "the second key in use")
        keyring.write_text("not a key at all")
        await until(lambda: "keyring not kept" in controller.log(), 10, "the refusal")
        assert "not a key at all" not in controller.log()
        assert await rotated()


async def test_keys_are_refused_where_gossip_is_plain_or_off(tmp_path: Path) -> None:
    async with ControllerProcess(tmp_path) as controller:
        said = await shoal(controller.grpc, "keys", "list")
        assert said.returncode == 1
        assert "gossip is not encrypted" in said.stderr
    hears = ("--gossip-key", "5a" * 32, "--gossip-encryption", "hear")
    async with ControllerProcess(tmp_path, *hears) as controller:  # T5: its query would go plain
        said = await shoal(controller.grpc, "keys", "list")
        assert said.returncode == 1
        assert "--gossip-encryption speak first" in said.stderr
    async with ControllerProcess(tmp_path, "--gossip", "off") as controller:
        said = await shoal(controller.grpc, "keys", "use", "abc")
        assert said.returncode == 1
        assert "does not gossip" in said.stderr


async def test_a_stranger_without_the_key_or_with_another_label_stays_out(tmp_path: Path) -> None:
    async with (
        ControllerProcess(
            tmp_path, "--gossip-key", base64.b64encode(b"k" * 16).decode(), "--gossip-label", "farm"
        ) as controller,
        Client(controller.grpc) as client,
    ):
        join = ("--gossip", "127.0.0.1:0", "--join", controller.gossip)
        key = ("--gossip-key", (b"k" * 16).hex())
        async with (
            _Agent("", *join, name="plain"),
            _Agent("", *join, *key, name="unlabelled"),
            _Agent("", *join, *key, "--gossip-label", "farm", name="right"),
        ):

            async def joined() -> bool:
                return "right" in await members(client)

            await until(joined, 30, "the agent with key and label")
            assert set(await members(client)) == {"controller", "right"}


@pytest.mark.parametrize(
    ("before", "after"), [("plain", "hear"), ("hear", "speak"), ("speak", "require")]
)
async def test_a_plain_cluster_moves_to_encryption_a_step_at_a_time(
    tmp_path: Path, before: str, after: str
) -> None:
    def stage(name: str) -> tuple[str, ...]:
        key = ("--gossip-key", "5a" * 32, "--gossip-encryption", name)
        return key if name != "plain" else ()

    async with (
        ControllerProcess(tmp_path, *stage(before)) as controller,
        Client(controller.grpc) as client,
        _Agent("", "--gossip", "127.0.0.1:0", "--join", controller.gossip, *stage(after)) as agent,
    ):
        # The session shows that the agent hears the controller, the list that it hears the agent.
        await until(lambda: _connected(controller.grpc), 30, f"a session\n{agent.log()}")
        both = dict.fromkeys(("controller", "node-1"), MemberState.ALIVE)
        assert await members(client) == both


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_controller_that_comes_back_elsewhere_is_found_again(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with ControllerProcess(tmp_path, "--gossip-preset", "local") as controller:
        port = free_port()
        join = ("--join", controller.gossip, "--gossip-preset", "local")
        async with _Agent("", "--gossip", f"127.0.0.1:{port}", *join) as agent:
            await until(lambda: _connected(controller.grpc), 30, "the first session")
            was = controller.addresses
            controller.end(how)
            # Other ports for everything: the agent knows only what gossip tells.
            await controller.start("--join", f"127.0.0.1:{port}")
            assert controller.grpc != was["grpc"]
            assert controller.gossip != was["gossip"]
            await until(lambda: _connected(controller.grpc), 60, f"a session anew\n{agent.log()}")


async def _connected(address: str) -> bool:
    async with Client(address) as client:
        return [node.connected for node in await client.nodes()] == [True]


async def test_e10_who_stops_has_left_and_who_is_killed_is_suspect_and_then_dead(
    tmp_path: Path,
) -> None:
    async with (
        ControllerProcess(tmp_path, "--gossip-preset", "local") as controller,
        Client(controller.grpc) as client,
    ):
        join = ("--join", controller.gossip, "--gossip-preset", "local", "--gossip", "127.0.0.1:0")
        http = f"127.0.0.1:{free_port()}"
        async with (
            _Agent("", *join, "--members-http", http, name="peer"),
            _Agent("", *join, name="stopped") as stopped,
            _Agent("", *join, name="killed") as killed,
        ):

            async def all_connected() -> bool:
                nodes = await client.nodes()
                believed = {node.member_state for node in nodes if node.connected}
                return len(nodes) == 3 and believed == {MemberState.ALIVE}

            await until(all_connected, 30, "three sessions")
            story: list[tuple[str, str]] = []
            begun = asyncio.Event()

            async def follow() -> None:
                async with contextlib.aclosing(client.watch_members()) as changes:
                    async for change in changes:
                        if isinstance(change, SnapshotEnd):
                            story.clear()
                            begun.set()
                        elif (change.name, change.state.name) not in story:
                            story.append((change.name, change.state.name))

            following = asyncio.create_task(follow())
            await begun.wait()
            watching = (tmp_path / "watch.log").open("wb")
            people = subprocess.Popen(
                [sys.executable, "-m", "shoal.cli", "members", "--watch"],
                env={**os.environ, "SHOAL_CONTROLLER": client.address, "PYTHONUNBUFFERED": "1"},
                stdout=watching,
            )
            log = tmp_path / "watch.log"
            await until(lambda: "killed" in log.read_text(), 20, "the table")
            assert await stopped.terminate() == 0, stopped.log()
            await until(lambda: ("stopped", "LEFT") in story, 20, "the goodbye")
            killed.kill()

            async def node_is_dead() -> bool:
                return (await client.node("killed")).member_state is MemberState.DEAD

            await until(lambda: ("killed", "DEAD") in story, 30, "the verdict")
            await until(node_is_dead, 5, "the verdict at the control plane")
            following.cancel()
            mine = [state for name, state in story if name == "killed"]
            assert mine == ["SUSPECT", "DEAD"]
            assert [state for name, state in story if name == "stopped"] == ["LEFT"]

            lines = (
                "  stopped  was alive, is left",
                "  killed  was alive, is suspect",
                "  killed  was suspect, is dead",
            )
            await until(lambda: all(line in log.read_text() for line in lines), 20, "the lines")
            people.send_signal(signal.SIGINT)
            assert people.wait(20) == 130
            watching.close()

            # The same is told by a peer, and to people who ask now.
            async def peer_knows() -> bool:
                said = await page(http, "/members?all=true")
                names = {title: {one["Name"] for one in said[title]} for title in said}
                return names["Left"] == {"stopped"} and names["Dead"] == {"killed"}

            await until(peer_knows, 20, "the peer's page")
            shown = _rows((await shoal(client.address, "members", "--all")).stdout)
            states = {row.split()[0]: row.split()[1] for row in shown[1:]}
            assert states == {
                "controller": "alive",
                "peer": "alive",
                "stopped": "left",
                "killed": "dead",
            }
            alive = _rows((await shoal(client.address, "members")).stdout)
            assert {row.split()[0] for row in alive[1:]} == {"controller", "peer"}
