"""Agents of a cluster with identity, which have joined already."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.kit.agent_process import AgentProcess
from tests.kit.joined import join_node


@contextlib.asynccontextmanager
async def joined_agents(
    state: Path, controller: str, names: Sequence[str], *extra: str
) -> AsyncIterator[list[AgentProcess]]:
    """Start agents of nodes of the controller with that state folder, each with its name as the label `board`."""
    agents = [
        AgentProcess(controller, "--no-insecure", "--label", f"board={name}", *extra, name=name)
        for name in names
    ]
    async with contextlib.AsyncExitStack() as stack:
        for agent in agents:
            join_node(state, agent.state, agent.name)
            await stack.enter_async_context(agent)
        yield agents
