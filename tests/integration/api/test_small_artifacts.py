"""What an agent sends along with its question is in the archive before the answer, or is granted an address."""

import hashlib
from pathlib import Path

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.limits import ARTIFACT_CONTENT_BYTES_MAX, ARTIFACT_CONTENTS_BYTES_MAX
from shoal.model import JobState, PipelineState
from shoal.names import parse_attempt
from shoal.spec import Job, Pipeline
from shoal.v1 import pipeline_pb2
from shoal.v1 import session_service_pb2 as v1
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.until import until

ONE = Pipeline("one", (Job("a", ("true",)),))


def archived(tmp_path: Path, key: str) -> bytes | None:
    """What the archive has under a key."""
    path = tmp_path / "controller" / "archive" / key
    return path.read_bytes() if path.is_file() else None


def question(
    ref: v1.AttemptRef, files: dict[str, bytes], sent: dict[str, bytes] | None = None
) -> v1.UploadsWanted:
    """Announce files, and send these contents along."""
    return v1.UploadsWanted(
        ref=ref,
        artifacts=[
            pipeline_pb2.Artifact(
                path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
            for path, data in files.items()
        ],
        contents=[
            v1.ArtifactContent(path=path, data=data)
            for path, data in (files if sent is None else sent).items()
        ],
    )


async def answer(agent: ScriptedAgent, wanted: v1.UploadsWanted) -> dict[str, v1.UploadGrant]:
    """Ask, and wait for the grants."""
    before = len([one for one in agent.messages if one.HasField("uploads_granted")])
    await agent.send(v1.AgentMessage(uploads_wanted=wanted))

    def granted() -> list[v1.UploadsGranted]:
        found = [one.uploads_granted for one in agent.messages if one.HasField("uploads_granted")]
        return found[before:]

    [found] = await until(granted, 20, "the answer")
    return {grant.path: grant for grant in found.grants}


async def test_what_came_along_is_stored_and_can_be_committed(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    submitted = await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        assert agent.messages[0].welcome.takes_contents
        ref = (await agent.assignment("a")).ref
        prefix = parse_attempt(ref.attempt, ref.namespace, ref.epoch).prefix
        wanted = question(ref, {"stdout": b"hello", "results/ü +%": b"", "results/x": b"1" * 65536})
        first = await answer(agent, wanted)
        grants = await answer(agent, wanted)  # as after an answer that was lost
        assert [*first.values()] == [*grants.values()]
        assert all(one.stored and not one.url for one in grants.values())
        for artifact, content in zip(wanted.artifacts, wanted.contents, strict=True):
            artifact.key = grants[artifact.path].key
            assert archived(tmp_path, artifact.key) == content.data
        assert grants["stdout"].key == f"{prefix}/stdout"
        assert grants["results/x"].key == f"{prefix}/out/results/x"
        await agent.observe(ref, JobState.SUCCEEDED, artifacts=list(wanted.artifacts))
    ended = await client.wait(submitted.pipeline.name, deadline_seconds=10)
    assert ended.state is PipelineState.SUCCEEDED


async def test_what_is_not_what_was_announced_is_not_stored(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        files = {"results/x": b"made", "results/y": b"made", "results/z": b"made"}
        sent = {"results/x": b"othr", "results/y": b"longer", "results/other": b"made"}
        grants = await answer(agent, question(ref, files, sent))
        assert [(one.path, one.stored, bool(one.url)) for one in grants.values()] == [
            (path, False, True) for path in files
        ]
        assert all(archived(tmp_path, one.key) is None for one in grants.values())


async def test_what_is_too_large_is_refused_and_what_is_too_much_is_granted_an_address(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        large = b"1" * (ARTIFACT_CONTENT_BYTES_MAX + 1)
        grants = await answer(agent, question(ref, {"results/x": large, "results/y": b"1"}))
        assert "65536" in grants["results/x"].problem
        assert grants["results/y"].stored
        fit = ARTIFACT_CONTENTS_BYTES_MAX // 1000
        many = {f"results/{n}": bytes(1000) for n in range(fit + 5)}
        grants = await answer(agent, question(ref, many))
        assert [one.stored for one in grants.values()] == [True] * fit + [False] * 5
        assert all(one.url for one in grants.values() if not one.stored)


async def test_what_no_attempt_of_the_node_may_write_is_not_written(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    await client.submit(ONE)
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        for path in ("../x", "/etc/x", "a/../../x"):
            grants = await answer(agent, question(ref, {path: b"1"}))
            assert grants[path].problem
            assert not grants[path].stored
        stale = v1.AttemptRef(attempt=ref.attempt, namespace=ref.namespace, epoch=ref.epoch + 7)
        await agent.send(v1.AgentMessage(uploads_wanted=question(stale, {"results/x": b"1"})))
        assert (await until(agent.refused, what="the refusal"))[0].reason == "FENCED"
        prefix = parse_attempt(ref.attempt, ref.namespace, ref.epoch).prefix
        assert archived(tmp_path, f"{prefix}/out/results/x") is None
        found = [path for path in tmp_path.rglob("x") if path.is_file()]
        assert found == []


async def test_while_the_archive_is_away_addresses_are_granted(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    """The agent stores it itself then, for as long as that takes; and once it is back, the controller does."""
    await client.submit(ONE)
    archive, elsewhere = tmp_path / "controller" / "archive", tmp_path / "elsewhere"
    async with connected_agent(controller.grpc) as agent:
        ref = (await agent.assignment("a")).ref
        archive.rename(elsewhere)
        wanted = question(ref, {"results/x": b"made"})
        grants = await answer(agent, wanted)
        assert not grants["results/x"].stored
        assert grants["results/x"].url
        assert not archive.exists()
        elsewhere.rename(archive)

        async def stored() -> bool:
            return (await answer(agent, wanted))["results/x"].stored

        await until(stored, 20, "the archive is asked again")
        assert archived(tmp_path, grants["results/x"].key) == b"made"
