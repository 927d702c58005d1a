"""A board in a stranger's hands: what it may say of the jobs of another one."""

from shoal.identity import Role
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline
from shoal.v1 import session_service_pb2 as v1
from tests.integration.access.conftest import Cluster
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.until import until

SECRET = Pipeline(
    "secret", (Job("camera", ("true",), variables={"API_TOKEN": "no-board-sees-this"}),)
)


async def test_a_board_neither_gets_nor_ends_what_runs_on_another_one(cluster: Cluster) -> None:
    one, two = (cluster.credentials(Role.NODE, name) for name in ("cam-1", "cam-2"))
    async with (
        cluster.client(Role.OPERATOR) as operator,
        connected_agent(cluster.address, "cam-1", credentials=one) as owner,
    ):
        name = (await operator.submit(SECRET)).pipeline.name
        assignment = await owner.assignment("camera")
        ref = assignment.ref
        await owner.observe(ref, JobState.RUNNING)
        async with ScriptedAgent(cluster.address, "cam-2", credentials=two) as thief:
            # It says that it runs the attempt, that it has succeeded, what it printed, and that it has results.
            await thief.hello(observed(ref, JobState.SUCCEEDED))
            assert not thief.ended, thief.error
            await until(lambda: len(thief.refused()) == 1, what="the answer to its Hello")
            await thief.committed(
                await thief.send(v1.AgentMessage(observed=observed(ref, JobState.SUCCEEDED)))
            )
            await until(lambda: len(thief.refused()) == 2, what="the answer to a forged success")
            wanted = v1.UploadsWanted(ref=ref)
            wanted.artifacts.add(path="out.txt", size_bytes=1, sha256="ab" * 32)
            await thief.send(v1.AgentMessage(uploads_wanted=wanted))
            await until(lambda: len(thief.refused()) == 3, what="the answer to a wish for uploads")
            await thief.log(ref, b"forged")
            assert {one.reason for one in thief.refused()} == {"FENCED"}
            assert thief.granted() is None
            assert thief.assignments == {}
            assert not any(
                b"no-board-sees-this" in message.SerializeToString() for message in thief.messages
            )
        view = await operator.get(name)
        assert view.state is PipelineState.RUNNING
        assert view.jobs[0].node == "cam-1"
        await owner.log(ref, b"true")
        await owner.observe(ref, JobState.SUCCEEDED)
        chunks = [chunk.data async for chunk in operator.logs(name)]
        assert b"".join(chunks) == b"true"
