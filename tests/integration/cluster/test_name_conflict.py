"""K10: two boards of one name: the first keeps it with its jobs, the second is told, and nothing flaps."""

import contextlib
import sqlite3
from pathlib import Path

from shoal.client import Client
from shoal.model import JobState, PipelineState
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import describe, submit, when
from tests.kit.controller_process import ControllerProcess
from tests.kit.until import until

_SPEC = "name: patient\njobs: {main: {run: ['sh', '-c', 'until [ -e %s ]; do sleep 0.1; done']}}\n"


def _sessions(agent: AgentProcess) -> int:
    return agent.log().count('"session opened"') + agent.log().count(" session opened")


async def _conflict(client: Client, second: AgentProcess) -> str:
    """Wait until the second agent is quarantined, and return what is shown of it."""

    async def shown() -> str:
        [node] = await client.nodes()
        return node.conflict if node.connected else ""

    await until(lambda: "quarantined" in second.log(), 20, "the second agent's word")
    return await until(shown, 10, "the conflict in `shoal nodes`")


async def test_k10_a_second_agent_of_a_name_is_quarantined_and_the_job_ends_with_attempt_1(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    async with (
        ControllerProcess(tmp_path) as controller,
        AgentProcess(controller.grpc, name="pi") as first,
        Client(controller.grpc) as client,
    ):
        await until(lambda: _sessions(first) == 1, 20, "the first session")
        found = await submit(client, tmp_path / "bundle", _SPEC % gate, {})
        name = found.pipeline.id
        await when(client, name, lambda now: now.jobs[0].state is JobState.RUNNING)

        async with AgentProcess(controller.grpc, name="pi") as second:
            said = await _conflict(client, second)
            assert said.count("127.0.0.1") == 2
            assert "give one of them another --name" in said
            await until(lambda: said in first.log(), 10, "the first agent's word")
            assert "another --name" in second.log()
            assert "another --name" in controller.log()
            assert _sessions(second) == 0

        copied = AgentProcess(
            controller.grpc, name="pi"
        )  # a board from a card with the state on it
        with (
            contextlib.closing(sqlite3.connect(first.state / "agent.db")) as source,
            contextlib.closing(sqlite3.connect(copied.state / "agent.db")) as target,
        ):
            source.backup(target)
            target.execute("DELETE FROM attempt")
            target.commit()
        async with copied:
            said = await _conflict(client, copied)
            await until(lambda: "a --state of its own" in copied.log(), 10, "its word")
            assert _sessions(copied) == 0

        assert _sessions(first) == 1, "nothing has flapped"
        first.kill()
        first.start()
        await until(lambda: _sessions(first) == 2, 20, "its name, at once after a restart")
        gate.touch()
        done = await when(client, name, lambda now: now.state.terminal)
        assert done.state is PipelineState.SUCCEEDED, describe(done)
        assert len(done.jobs[0].attempts) == 1
