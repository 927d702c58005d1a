"""Two controllers by mistake: on one state folder, in one gossip cluster, or one from a copy of the other's folder."""

import contextlib
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.identity import Role
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.joined import issued, join_node
from tests.kit.until import until

IDENTITY = ("--no-insecure", "--newcomers", "127.0.0.1:0")


async def test_a_second_controller_on_one_state_folder_is_refused(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    async with ControllerProcess(tmp_path) as first:
        other = ControllerProcess(second, "--state", str(tmp_path / "state"))
        with pytest.raises(
            AssertionError, match="belongs to a controller that is running"
        ) as refused:
            await other.start()
        assert "end that one, or use another --state folder" in str(refused.value)
        assert first.process is not None
        assert first.process.poll() is None


@contextlib.asynccontextmanager
async def agent(
    gossip: str, name: str, *words: str, folder: Path | None = None
) -> AsyncIterator[AgentProcess]:
    """An agent that finds its controller by gossip."""
    one = AgentProcess("", "--gossip", "127.0.0.1:0", "--join", gossip, *words, name=name)
    if folder is not None:
        join_node(folder, one.state, name)
    async with one:
        yield one


def sessions(one: AgentProcess) -> int:
    return one.log().count("session opened")


async def test_two_controllers_of_different_stores_in_one_gossip_cluster_are_told(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        ControllerProcess(tmp_path / "a") as first,
        agent(first.gossip, "n1") as one,
    ):
        await until(lambda: sessions(one) == 1, 30, "the session of n1")
        words = ("--name", "second", "--join", first.gossip)
        async with (
            ControllerProcess(tmp_path / "b", *words) as second,
            agent(second.gossip, "n2") as two,
        ):
            await until(
                lambda: sessions(two) + two.log().count("quarantined") > 0, 30, "n2 at one of both"
            )
            for controller, other in ((first, "second"), (second, "controller")):
                said = await until(partial(another, controller), 30, "the word")
                assert f"name={other}" in said
                assert "end the one that is there by mistake" in said
            # Each node stays with the one that it follows, also over a restart.
            one.kill()
            one.start()
            await until(lambda: sessions(one) == 2, 60, "the session of n1 again")
            async with Client(first.grpc) as client:
                nodes = {node.name: node for node in await client.nodes()}
                assert nodes["n1"].connected


def says(controller: ControllerProcess, words: str) -> bool:
    return words in controller.log()


def another(controller: ControllerProcess) -> str:
    """The line in which a controller tells of another one; empty if it does not."""
    lines = controller.log().splitlines()
    return next((line for line in lines if "another controller gossips here" in line), "")


async def test_a_copy_of_the_state_folder_is_told_and_takes_no_node_away(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    state, copy = tmp_path / "a/state", tmp_path / "b/state"
    async with ControllerProcess(tmp_path / "a", *IDENTITY) as first:
        operator = issued(state, Role.OPERATOR, "ann")
        async with agent(first.gossip, "n1", "--no-insecure", folder=state) as one:
            await until(lambda: sessions(one) == 1, 30, "the session")
            shutil.copytree(state, copy, ignore=shutil.ignore_patterns("controller.db*"))
            with (
                contextlib.closing(sqlite3.connect(state / "controller.db")) as store,
                contextlib.closing(sqlite3.connect(copy / "controller.db")) as target,
            ):
                store.backup(target)
            async with ControllerProcess(
                tmp_path / "b", *IDENTITY, "--join", first.gossip
            ) as second:
                doubled = "two members call themselves controller"
                for controller in (first, second):
                    await until(partial(says, controller, doubled), 60, "the word")
                    assert "or end the one that is there by mistake" in controller.log()
                one.kill()
                one.start()
                await until(lambda: sessions(one) == 2, 60, "the session again")
                async with Client(first.grpc, credentials=operator) as client:
                    [node] = await client.nodes()
                    assert node.connected
                    assert not node.quarantine
                second.end(signal.SIGTERM)
                assert sessions(one) == 2
