"""What gossip believes reaches people and the control plane."""

from pathlib import Path

import pytest

from shoal.client import Client
from shoal.model import JobState, MemberState
from shoal.spec import Job, Pipeline
from tests.kit.gossip import running
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

ONE = Pipeline("one", (Job("a", ("true",)),))


async def believed(client: Client, name: str, state: MemberState) -> bool:
    members = {member.name: member for member in await client.members(everyone=True)}
    node = await client.node(name)
    return name in members and members[name].state is state and node.member_state is state


@pytest.mark.parametrize("good_bye", [False, True])
async def test_the_end_of_a_member_is_believed_and_shown(tmp_path: Path, good_bye: bool) -> None:  # noqa: FBT001
    ended = MemberState.LEFT if good_bye else MemberState.DEAD
    async with (
        running_controller(tmp_path / "controller") as controller,
        Client(controller.grpc) as client,
        connected_agent(controller.grpc, "node-1"),
    ):
        async with running("node-1", preset="local", seeds=(controller.gossip,)) as gossip:
            await until(lambda: believed(client, "node-1", MemberState.ALIVE), what="alive")
            if good_bye:
                await gossip.leave(2.0)
        await until(lambda: believed(client, "node-1", ended), 30, ended.name)
        assert [member.name for member in await client.members()] == ["controller"]


async def test_a_dead_member_with_a_broken_session_is_replaced_before_its_lease_ends(
    tmp_path: Path,
) -> None:
    async with (
        running_controller(
            tmp_path / "controller", lease_seconds=3600.0, heartbeat_seconds=1.0
        ) as controller,
        Client(controller.grpc) as client,
    ):
        name = (await client.submit(ONE)).pipeline.name
        async with (
            running("node-1", preset="local", seeds=(controller.gossip,)),
            connected_agent(controller.grpc, "node-1") as agent,
        ):
            ref = (await agent.assignment("a")).ref
            await agent.observe(ref, JobState.RUNNING)
            await until(lambda: believed(client, "node-1", MemberState.ALIVE), what="alive")
        # Gone without a word, from the session and from gossip alike.
        async with connected_agent(controller.grpc, "node-2") as other:
            assignment = await until(lambda: other.assignments, 30, "the replacement")
            ((attempt, again),) = assignment.items()
            assert attempt.endswith("/attempts/2")
            assert again.ref.epoch > ref.epoch
            assert again.replacement
        lost, current = (await client.get(name)).jobs[0].attempts
        assert (lost.state, current.node) == (JobState.LOST, "node-2")
