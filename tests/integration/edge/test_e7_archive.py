"""Case E7: Results/ with folders is archived, private, whole or not at all, and S3 may be away meanwhile."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.archive.manifest import manifest_key
from shoal.model import JobState, PipelineState
from shoal.names import JobRef
from shoal.view import JobView, PipelineView
from tests.kit.cluster import describe, job_of, submit
from tests.kit.edge import Edge, running_edge
from tests.kit.mosquitto import Mosquitto
from tests.kit.s3_servers import Ministack
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def patient_edge(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack, edge_broker: Mosquitto
) -> AsyncIterator[Edge]:
    """One board, whose lease outlives a start of its agent on a busy machine."""
    folder = tmp_path_factory.mktemp("edge")
    async with running_edge(folder, ministack, edge_broker, agents=1, lease_seconds=30.0) as edge:
        yield edge


SPEC = """
name: {task}
bundle: .
compat: {{user: ada, action: Classification, task: {task}, updates_topic: true, legacy_results: true}}
jobs:
  main:
    run: [python3, main.py]
    archive: ["Results/**"]
"""
CODE = """
import os
os.makedirs("Results/plots/deep")
open("Results/out.txt", "w").write("{word}")
open("Results/plots/a.png", "wb").write(bytes(range(256)) * 1000)
open("Results/plots/deep/b ü.csv", "w").write("1,2\\n")
print("made")
"""
FILES = ("out.txt", "plots/a.png", "plots/deep/b ü.csv")


async def stored(edge: Edge, ended: PipelineView, word: str) -> dict[str, bytes]:
    """What the manifest in the bucket names, each with its hash; and what is not named is not there."""
    key = "archive/" + manifest_key(JobRef("default", ended.id, "main"))
    found = await edge.objects(f"archive/default/pipelines/{ended.id}/", edge.archive)
    manifest = json.loads(found.pop(key))
    named = {f"archive/{one['key']}": one for one in manifest["artifacts"]}
    assert set(found) == set(named)
    for name, data in found.items():
        assert named[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert named[name]["size_bytes"] == len(data)
    paths = {one["path"] for one in manifest["artifacts"]}
    assert paths == {"stdout", *(f"Results/{file}" for file in FILES)}
    assert word.encode() in found.values()
    return found


async def copied(edge: Edge, task: str) -> dict[str, bytes]:
    prefix = f"archive/ada/Classification/{task}/Results/"
    found = await edge.objects(prefix, edge.archive)
    return {key.removeprefix(prefix): data for key, data in found.items()}


async def grants(edge: Edge, key: str) -> list[str]:
    """Whom the access list of an object names."""
    acl = await edge.s3.get_object_acl(Bucket=edge.archive, Key=key)
    return [grant.get("Grantee", {}).get("URI", "its owner") for grant in acl["Grants"]]


async def test_e7_results_are_archived_private_and_copied_before_done(
    edge: Edge, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spec")
    async with edge.subscribed("Updates") as heard:
        spec, code = SPEC.format(task="task7"), CODE.format(word="first")
        submitted = await submit(edge.client, folder / "one", spec, {"main.py": code})

        def done() -> int:
            said = [json.loads(bytes(message.payload)) for message in heard]
            return sum(one["status"] == "Done" for one in said)

        await until(lambda: done() == 1, 60, "Done")
        # What it says is true: there is nothing to wait for.
        copies = await copied(edge, "task7")
        ended = await edge.client.get(submitted.pipeline.id)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        objects = await stored(edge, ended, "first")
        assert set(copies) == set(FILES)
        assert copies["out.txt"] == b"first"
        assert copies["plots/a.png"] == bytes(range(256)) * 1000
        for key in (*objects, "archive/ada/Classification/task7/Results/out.txt"):
            assert set(await grants(edge, key)) <= {"its owner"}
        # Of two tasks with the same names the last one stays, where they have the same files.
        spec = spec.replace("name: task7", "name: again")
        code = CODE.format(word="second").replace("plots/a.png", "plots/c.png")
        await submit(edge.client, folder / "two", spec, {"main.py": code})
        await until(lambda: done() == 2, 60, "Done again")
        copies = await copied(edge, "task7")
        assert copies["out.txt"] == b"second"
        assert set(copies) == {*FILES, "plots/c.png"}


async def test_e7_archiving_waits_while_s3_is_down_and_completes_by_itself(
    edge: Edge, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The server is killed while the job runs, and the agent while it waits for the server."""
    folder = tmp_path_factory.mktemp("spec")
    gate = folder / "gate"
    wait = f"while not pathlib.Path({str(gate)!r}).exists(): select.select([], [], [], 0.05)\n"
    code = CODE.format(word="third").replace('print("made")', wait)
    code = f"import pathlib, select\n{code}print('made')\n"
    # Pinned, since on a busy machine the next agent may begin after gossip has given up the board.
    spec = SPEC.format(task="down") + "    placement: pinned\n"
    submitted = await submit(edge.client, folder / "down", spec, {"main.py": code})
    name = submitted.pipeline.id

    async def job() -> JobView:
        return job_of(await edge.client.get(name), "main")

    async def in_state(state: JobState) -> bool:
        return (await job()).state is state

    async def waits() -> bool:
        seen = await job()
        return "waits for the archive" in seen.progress + seen.waiting_for

    await until(lambda: in_state(JobState.RUNNING), 60, "the program")
    edge.ministack.stop()
    try:
        gate.touch()
        await until(lambda: in_state(JobState.ARCHIVING), 60, "archiving")
        await until(waits, 60, "the words that it waits")
        agent = edge.cluster.agents[(await job()).node]
        await agent.kill()
        await agent.start()
        await until(waits, 60, "the words of the next agent")
        assert await in_state(JobState.ARCHIVING)
        # Nobody sees anything of it, since nothing is committed.
        assert not (await job()).artifacts
    finally:
        await asyncio.to_thread(edge.ministack.start)
    ended = await edge.client.wait(name, deadline_seconds=90)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert len(job_of(ended, "main").attempts) == 1, describe(ended)
    manifest = manifest_key(JobRef("default", ended.id, "main"))
    await until(lambda: edge.objects(f"archive/{manifest}", edge.archive), 60, "the manifest")
    await stored(edge, ended, "third")
    await until(lambda: copied(edge, "down"), 60, "the copies")
    assert set(await copied(edge, "down")) == set(FILES)
