"""A process that believes everything and is reachable says so at each start."""

from pathlib import Path

from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.until import until


async def test_a_controller_and_an_agent_beyond_loopback_say_that_they_are_insecure(
    tmp_path: Path,
) -> None:
    async with (
        ControllerProcess(tmp_path, "--grpc", "0.0.0.0:0") as controller,
        AgentProcess(controller.grpc, "--streams", "0.0.0.0:0") as agent,
    ):
        assert "INSECURE" in controller.log()
        assert "--grpc 0.0.0.0:0" in controller.log()
        await until(lambda: "INSECURE" in agent.log())


async def test_on_loopback_there_is_nothing_to_warn_of(tmp_path: Path) -> None:
    async with ControllerProcess(tmp_path) as controller, AgentProcess(controller.grpc) as agent:
        await until(lambda: "agent started" in agent.log())
        assert "INSECURE" not in controller.log() + agent.log()
