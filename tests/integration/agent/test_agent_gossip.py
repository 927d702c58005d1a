"""An agent that knows nobody but a member of the cluster finds its controller."""

import asyncio
import contextlib

from services.membership.config import GossipConfig
from services.membership.message import SwimState
from services.membership.shell import GossipShell
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until


async def test_a_controller_is_found_by_its_tags_and_the_agent_says_goodbye() -> None:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        GossipShell(
            GossipConfig(
                name="controller",
                bind_host="127.0.0.1",
                bind_port=0,
                tags={"role": "controller", "grpc": controller.address},
                preset="local",
            )
        ) as gossip,
    ):
        running = asyncio.create_task(gossip.run())
        agent = AgentProcess(
            "", "--gossip", "127.0.0.1:0", "--join", str(gossip.address), "--gossip-preset", "local"
        )
        async with agent:
            await until(lambda: controller.sessions, 30, "a session")
            assert controller.hellos[0].member_name == "node-1"
            [member] = [found for found in gossip.members() if found.name == "node-1"]
            assert member.tags["role"] == "agent"
            assert await agent.terminate() == 0, agent.log()

            def left() -> bool:
                states = {found.name: found.state for found in gossip.members(all_states=True)}
                return states["node-1"] is SwimState.LEFT

            await until(left, 10, "the agent shown as left")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
