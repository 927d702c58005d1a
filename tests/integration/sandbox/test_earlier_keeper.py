"""B1: a keeper of before sandboxes starts nothing with less than its plan: what is ready waits for the next one."""

import os
from pathlib import Path

import pytest

from shoal.model import JobState
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

EARLIER = """
import shoal.version
import shoal.protocol_version as known
from types import MappingProxyType
known.KEEPER = known.LinkKind("keepers", 1, MappingProxyType({1: "0.1.0"}))
shoal.version.VERSION = "0.1.0"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lets jobs have users")
async def test_b1_a_node_takes_no_work_while_its_keeper_is_one_of_before_sandboxes(
    tmp_path: Path,
) -> None:
    earlier = tmp_path / "sitecustomize.py"
    earlier.write_text(EARLIER)
    async with ObjectServer() as objects, ScriptedController(objects) as controller:
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        agent = AgentProcess(controller.address, environ=environ)
        board = Board(objects, controller, agent)
        try:
            agent.start()
            await board.connected()
            long = board.run(Job("long", ("sleep", "600")))
            await board.state(long, JobState.RUNNING)
            assert await agent.terminate() == 0
            earlier.unlink()
            agent.start("--sandbox", "user")
            await board.connected(2)

            def refuses() -> bool:
                return "keeps no job from another" in controller.conditions[-1].refuses

            await until(refuses, 30, "no work being taken")
            ready = board.run(Job("ready", ("sh", "-c", "id -u")))
            await until(lambda: controller.state(ready) is not None, 30, "it being prepared")
            assert controller.state(long) is JobState.RUNNING, "what runs goes on"
            controller.stop_attempt(long)
            assert await board.end(long) is JobState.CANCELLED
            assert await board.end(ready) is JobState.SUCCEEDED, controller.reason(ready)
            assert int(controller.log(ready)) > 0, "it has a user of its own"
            await until(lambda: not controller.conditions[-1].refuses, 30, "work being taken")
        finally:
            await agent.__aexit__()
