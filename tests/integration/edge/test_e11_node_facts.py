"""E11: what a board is and how it stands is told within a second, by the board itself and by no other service."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from shoal.client import Client
from shoal.names import JobRef
from shoal.node_facts import Heat, NodeFacts
from shoal.spec import Job, Pipeline
from shoal.v1 import session_service_pb2 as v1
from shoal.view import NodeView
from shoal.wire.node_facts import NODE_FACTS
from tests.integration.sdk.test_cli_processes import SHOAL
from tests.kit.agent_process import AgentProcess
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent
from tests.kit.tx2_tree import Tx2Tree
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Bench:
    """A controller, its client, and a board that looks like a TX2."""

    address: str
    client: Client
    tree: Tx2Tree
    agent: AgentProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("e11")
    tree = Tx2Tree(folder / "root")
    async with running_controller(folder / "controller", lease_seconds=60) as controller:
        words = ("--facts-root", str(tree.root), "--label", "location=Vineyard 3, row 12")
        async with (
            AgentProcess(controller.grpc, *words, name="jetson-1") as agent,
            Client(controller.grpc) as client,
        ):
            await until(lambda: _connected(client, "jetson-1"), 60, "the session of the board")
            yield Bench(controller.grpc, client, tree, agent)


async def _fresh(client: Client) -> tuple[NodeView, float]:
    """The board as it is now, and how long the answer took; a machine that is busy with other tests is asked again."""
    for _ in range(10):
        begun = time.monotonic()
        node = await client.node("jetson-1", fresh_facts=True)
        seconds = time.monotonic() - begun
        if not node.facts_problem:
            return node, seconds
    raise AssertionError("the board answered none of ten questions in time")


async def _connected(client: Client, name: str) -> bool:
    return any(node.name == name and node.connected for node in await client.nodes())


async def test_a_board_tells_every_key_of_the_original_within_a_second(bench: Bench) -> None:
    """Location is the operator's label; memory is told to the byte, so two decimals of a GB are too."""
    node, seconds = await _fresh(bench.client)
    assert seconds <= 1.0
    facts = node.facts
    assert facts is not None
    assert node.labels["location"] == "Vineyard 3, row 12"
    assert node.architecture
    original = {
        "location": node.labels["location"],
        "Architecture": node.architecture,
        "OS": facts.os,
        "OS_Version": facts.os_version,
        "cpu_percent": facts.cpu_percent,
        "cpu_count": facts.cpu_count,
        "total_memory": round(facts.memory_total_bytes / 1e9, 2),
        "used_memory": round(facts.memory_used_bytes / 1e9, 2),
        "available_memory": round(facts.memory_available_bytes / 1e9, 2),
        "temperature": [zone.celsius for zone in facts.temperatures],
    }
    # Nothing is busy in a /proc/stat that stands still, and that is not the same as 0 percent.
    assert original.pop("cpu_percent") is None
    assert all(original.values()), original
    assert (original["OS"], original["OS_Version"]) == ("Linux", "Ubuntu 18.04.6 LTS")
    assert (original["total_memory"], original["used_memory"]) == (8.23, 2.07)
    assert facts.gpu_percent == 34.5
    assert facts.emc_percent == 5.0
    assert {rail.name for rail in facts.rails} >= {"VDD_IN", "VDD_SYS_GPU", "VDD_SYS_CPU"}
    assert (facts.jetpack_version, facts.throttled) == ("4.6.4", ())


async def test_what_is_asked_is_measured_then(bench: Bench) -> None:
    for degrees in (55.5, 62.25):
        bench.tree.heat("GPU-therm", degrees)
        facts = (await _fresh(bench.client))[0].facts
        assert facts is not None
        assert degrees in [zone.celsius for zone in facts.temperatures]


async def test_a_watch_that_asks_for_facts_shows_them_and_another_does_not(bench: Bench) -> None:
    async def hears(celsius: float, *, facts: bool) -> NodeView:
        async for change in bench.client.watch_nodes(facts=facts):
            if isinstance(change, NodeView):
                seen = () if change.facts is None else change.facts.temperatures
                if any(zone.celsius == celsius for zone in seen):
                    return change
        raise AssertionError("a watch has no end")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        with_facts = group.create_task(hears(71.0, facts=True))
        without = group.create_task(hears(71.0, facts=False))
        while not with_facts.done():
            bench.tree.heat("GPU-therm", 71.0)
            await bench.client.node("jetson-1", fresh_facts=True)
        assert not without.done()
        without.cancel()


async def test_the_command_shows_it_to_people_and_to_programs(bench: Bench) -> None:
    async def shoal(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(SHOAL),
            *words,
            env={**os.environ, "SHOAL_CONTROLLER": bench.address},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0
        return said.decode()

    said = await shoal("nodes", "show", "jetson-1")
    for words in (
        "Vineyard 3, row 12",
        "Ubuntu 18.04.6 LTS 4.9.337-tegra",
        "32.7.4 (JetPack 4.6.4)",
        "BCPU-therm  41.5 °C (slows at 95.5, ends at 101)",
        "VDD_IN  2.94 W",
    ):
        assert words in said
    document = json.loads(await shoal("nodes", "show", "jetson-1", "--json"))
    assert document["facts"]["board"] == "quill"
    assert document["facts"]["gpu_percent"] == 34.5


async def test_a_hot_board_is_told_by_steps_and_takes_work_last(bench: Bench) -> None:
    assert (await _heat(bench.client)) is Heat.COOL
    bench.tree.heat("BCPU-therm", 93.0)
    assert (await _heat(bench.client)) is Heat.HOT
    async with ScriptedAgent(bench.address, "spare") as spare:
        await spare.hello()
        submitted = await bench.client.submit(Pipeline("cool", (Job("main", ("true",)),)))
        assert (await spare.assignment("main")).ref.attempt
        ref = JobRef("default", submitted.pipeline.id, "main")
        verdicts = {one.node: one for one in await bench.client.explain(ref.name)}
        assert verdicts["jetson-1"].feasible
        assert "but it is hot, so others go before it" in verdicts["jetson-1"].sentence
        assert verdicts["jetson-1"].score < verdicts["spare"].score
        bench.tree.heat("BCPU-therm", 98.5)
        assert (await _heat(bench.client)) is Heat.HOT
        await until(lambda: _refuses(bench.client, "jetson-1"), what="a refusal for the heat")
        verdicts = {one.node: one for one in await bench.client.explain(ref.name)}
        assert not verdicts["jetson-1"].feasible
        assert "BCPU-therm is within 3 °C of the 101 °C" in verdicts["jetson-1"].sentence
        await bench.client.cancel(submitted.pipeline.id)
    bench.tree.heat("BCPU-therm", 41.5)


async def _refuses(client: Client, name: str) -> bool:
    return "too hot" in (await client.node(name)).refuses


async def _heat(client: Client) -> Heat:
    facts = (await _fresh(client))[0].facts
    assert facts is not None
    return facts.heat


async def test_an_agent_of_before_is_not_asked_and_named(bench: Bench) -> None:
    async with ScriptedAgent(bench.address, "old") as old:
        await old.hello()
        node = await bench.client.node("old", fresh_facts=True)
        assert node.facts is None
        assert node.facts_problem == "not told by an agent of version 0: upgrade it"
        assert not any(message.HasField("facts_wanted") for message in old.messages)


async def test_an_agent_that_does_not_answer_costs_a_second_and_its_last_facts_stay(
    bench: Bench,
) -> None:
    async with ScriptedAgent(bench.address, "mute") as mute:
        await mute.hello(facts=NodeFacts(board="a mute one"))
        begun = time.monotonic()
        node = await bench.client.node("mute", fresh_facts=True)
        assert time.monotonic() - begun >= 0.8
        assert node.facts is not None
        assert node.facts.board == "a mute one"
        assert node.facts_problem == "its agent did not answer within 0.9 s: these were told last"
        assert sum(message.HasField("facts_wanted") for message in mute.messages) == 1
        asked = asyncio.create_task(bench.client.node("mute", fresh_facts=True))
        also = asyncio.create_task(bench.client.node("mute", fresh_facts=True))
        await until(
            lambda: sum(message.HasField("facts_wanted") for message in mute.messages) == 2,
            what="one question for both who ask",
        )
        await mute.send(v1.AgentMessage(facts=NODE_FACTS.encode(NodeFacts(board="it speaks"))))
        for node in await asyncio.gather(asked, also):
            assert node.facts is not None
            assert (node.facts.board, node.facts_problem) == ("it speaks", "")
    await until(
        lambda: _told(bench.client, "mute", "no session"), what="what is said without a session"
    )


async def _told(client: Client, name: str, words: str) -> bool:
    node = await client.node(name, fresh_facts=True)
    return words in node.facts_problem and node.facts is not None
