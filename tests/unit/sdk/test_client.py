"""The client keeps its promises over real sockets: batches, cuts, restarts, clear errors."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shoal import bundle, spec, view
from shoal.client import Client, SnapshotEnd
from shoal.errors import ControllerUnreachableError, ShoalError, TooLateError
from shoal.model import Artifact, JobState, PipelineState
from tests.kit.memory_controller import MemoryController
from tests.kit.ports import free_port
from tests.kit.until import until

PIPELINE = spec.Pipeline("hello", (spec.Job("say", ("echo", "hello")),))


@pytest.fixture
async def controller() -> AsyncIterator[MemoryController]:
    async with MemoryController() as running:
        yield running


@pytest.fixture
async def client(controller: MemoryController) -> AsyncIterator[Client]:
    async with Client(controller.address) as connected:
        yield connected


async def test_a_submission_is_recorded_once_per_key(client: Client) -> None:
    first = await client.submit(PIPELINE, request_id="key")
    again = await client.submit(PIPELINE, request_id="key")
    assert first.pipeline.spec == PIPELINE
    assert not first.repeated
    assert again.repeated
    assert again.pipeline.id == first.pipeline.id
    other = spec.Pipeline("other", PIPELINE.jobs)
    with pytest.raises(ShoalError, match="was another specification") as caught:
        await client.submit(other, request_id="key")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.code == "ALREADY_EXISTS"
    assert caught.value.metadata == {"pipeline": first.pipeline.id}


async def test_concurrent_submissions_travel_in_batches(
    controller: MemoryController, client: Client
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.submit(PIPELINE)) for _ in range(300)]
    assert len({task.result().pipeline.id for task in tasks}) == 300
    assert sum(controller.batches) == 300
    assert max(controller.batches) > 10
    assert max(controller.batches) <= 64


async def test_submissions_survive_a_restart_of_the_controller(
    controller: MemoryController, client: Client
) -> None:
    await client.submit(PIPELINE)
    await controller.stop()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.submit(PIPELINE)) for _ in range(20)]
        group.create_task(controller.start())
    assert len({task.result().pipeline.id for task in tasks}) == 20
    assert len(controller.pipelines) == 21


async def test_an_answer_lost_on_the_way_makes_no_second_pipeline(
    controller: MemoryController, client: Client
) -> None:
    await client.submit(PIPELINE)

    async def die(_pipeline: view.PipelineView) -> None:
        controller.on_submit = None
        asyncio.get_running_loop().create_task(restart())
        await asyncio.Event().wait()

    async def restart() -> None:
        await controller.stop()
        await controller.start()

    controller.on_submit = die
    submitted = await client.submit(PIPELINE)
    assert submitted.repeated
    assert len(controller.pipelines) == 2


async def test_a_watch_shows_a_snapshot_then_changes_and_goes_on_after_a_cut(
    controller: MemoryController, client: Client
) -> None:
    first = (await client.submit(PIPELINE)).pipeline
    seen: list[str] = []
    async with contextlib.aclosing(client.watch(first.id)) as changes:
        async for change in changes:
            if isinstance(change, SnapshotEnd):
                seen.append("end")
                controller.cut()
                controller.finish(first.id, PipelineState.RUNNING, JobState.RUNNING)
            else:
                seen.append(change.state.name)
            if seen[-1] == "RUNNING":
                await controller.stop()
                controller.finish(first.id, PipelineState.SUCCEEDED, JobState.SUCCEEDED)
                await controller.start()
            if seen[-1] == "SUCCEEDED":
                break
    assert seen == ["QUEUED", "end", "RUNNING", "SUCCEEDED"]
    assert controller.watches == 3


async def test_waiting_ends_with_the_pipeline_or_the_deadline(
    controller: MemoryController, client: Client
) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    with pytest.raises(TooLateError, match=r"did not end within 0\.05 s"):
        await client.wait(name, deadline_seconds=0.05)
    before = controller.watches  # none, where the machine is busy and the deadline was over first
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(name, deadline_seconds=60))
        await until(lambda: controller.watches > before, 30, "another watch")
        controller.finish(name, PipelineState.FAILED, JobState.FAILED)
    assert waiting.result().state is PipelineState.FAILED


async def test_logs_come_once_despite_cuts(controller: MemoryController, client: Client) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    attempt = f"pipelines/{name}/jobs/say/attempts/1"

    def say(offset: int, data: bytes) -> None:
        controller.say(view.LogChunk(attempt, view.LogStream.STDOUT, offset, data, 1))

    say(0, b"hello ")
    got = b""
    async for chunk in client.logs(name, follow=True):
        assert chunk.offset == len(got)
        got += chunk.data
        if got == b"hello ":
            say(3, b"lo world")  # overlaps what is known
        elif got == b"hello world":
            controller.cut()
            say(11, b"!")
            controller.finish(name, PipelineState.SUCCEEDED, JobState.SUCCEEDED)
    assert got == b"hello world!"
    assert controller.log_readers == 2


async def test_a_bundle_is_uploaded_only_when_it_is_missing(
    controller: MemoryController, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/big").write_bytes(bytes(range(256)) * 20_000)
    packed = bundle.pack(bundle.BundleFolder(tmp_path / "in"), tmp_path)
    assert await client.ensure_bundle(packed)
    assert controller.bundles[packed.digest] == packed.path.read_bytes()
    assert not await client.ensure_bundle(packed)


async def test_a_damaged_bundle_is_refused(client: Client, tmp_path: Path) -> None:
    packed = bundle.pack(bundle.BundleFolder(tmp_path), tmp_path)
    packed.path.write_bytes(b"something else")
    with pytest.raises(ShoalError, match="the bundle is not") as caught:
        await client.ensure_bundle(packed)
    assert caught.value.reason == "BUNDLE_CHECKSUM"


async def test_lists_are_read_page_by_page(controller: MemoryController, client: Client) -> None:
    for _ in range(5):
        await client.submit(PIPELINE)
    controller.finish("hello-3", PipelineState.SUCCEEDED, JobState.SUCCEEDED)
    controller.events = [view.Event(f"e{n}", "t", "s", sequence=n) for n in range(3)]
    assert [item.id async for item in client.list(page_size=2)] == [
        f"hello-{n}" for n in (5, 4, 3, 2, 1)
    ]
    assert [item.id async for item in client.list([PipelineState.SUCCEEDED])] == ["hello-3"]
    page = await client.events(page_size=2)
    assert [event.id for event in page.events] == ["e0", "e1"]
    assert "no broker" in page.publisher_state
    rest = await client.events(page_token=page.next_page_token)
    assert [event.id for event in rest.events] == ["e2"]


async def test_artifacts_that_a_picture_leaves_out_are_read_page_by_page(
    controller: MemoryController, client: Client
) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    pipeline = controller.pipelines[name]
    [job] = pipeline.jobs
    every = tuple(Artifact(f"results/{n}", n, f"{n:064x}") for n in range(6))
    controller.artifacts[job.name] = every
    manifest = view.Manifest("key", f"{job.name}/attempts/1", 1, every[:1], left_out=5)
    controller.put(replace(pipeline, jobs=(replace(job, manifest=manifest),)))
    [shown] = (await client.get(name)).jobs
    assert shown.manifest == replace(manifest, artifacts=every, left_out=0)


async def test_nodes_members_and_verdicts(client: Client) -> None:
    name = (await client.submit(PIPELINE)).pipeline.id
    assert [node.name for node in await client.nodes()] == ["node-1", "node-2"]
    assert (await client.drain("node-1")).drained
    assert (await client.node("node-1")).drained
    assert not (await client.drain("node-1", drained=False)).drained
    assert [member.tags for member in await client.members()] == [{"role": "agent"}] * 2
    verdicts = await client.explain(f"pipelines/{name}/jobs/say")
    assert [verdict.sentence for verdict in verdicts] == ["node-1 has room", "node-2 has room"]


async def test_a_member_that_was_forgotten_during_a_cut_is_said_to_be_gone(
    controller: MemoryController, client: Client
) -> None:
    seen: list[str] = []
    async with contextlib.aclosing(client.watch_members()) as changes:
        async for change in changes:
            if isinstance(change, SnapshotEnd):
                seen.append("end")
                if seen.count("end") == 2:
                    break
                del controller.nodes["node-2"]
                controller.cut()
            else:
                seen.append(f"{change.name} {change.state.name}")
    assert seen == [
        "node-1 ALIVE", "node-2 ALIVE", "end", "node-1 ALIVE", "node-2 UNKNOWN", "end",
    ]  # fmt: skip


async def test_an_unknown_pipeline_is_an_error_with_a_reason(client: Client) -> None:
    with pytest.raises(ShoalError) as caught:
        await client.get("nobody")
    assert (caught.value.reason, caught.value.code) == ("UNKNOWN_PIPELINE", "NOT_FOUND")
    with pytest.raises(ShoalError, match="there is no pipeline 'nobody'"):
        await client.wait("nobody")


async def test_nobody_at_the_address_is_said_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with Client(address) as client:
        for call in (client.get("x"), client.wait("x"), client.submit(PIPELINE)):
            with pytest.raises(ControllerUnreachableError, match=r"connection refused.*shoal up"):
                await call


async def test_a_silent_server_is_given_up_after_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # connects, and never says a word
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with Client(address, deadline_seconds=0.2) as client:
            with pytest.raises(ShoalError):
                await client.get("x")
            with pytest.raises(
                TooLateError, match=r"did not record the pipeline 'hello' within 0\.2 s"
            ):
                await client.submit(PIPELINE)


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:http", "host:70000"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ShoalError, match="write HOST:PORT"):
        Client(address)


async def test_errors_of_the_body_pass_as_they_are(controller: MemoryController) -> None:
    with pytest.raises(KeyError):
        async with Client(controller.address):
            raise KeyError("mine")


async def test_cancellation_passes(controller: MemoryController) -> None:
    async def body() -> None:
        async with Client(controller.address) as client:
            await client.wait((await client.submit(PIPELINE)).pipeline.id)

    task = asyncio.create_task(body())
    await until(lambda: controller.watches == 1, what="the watch")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
