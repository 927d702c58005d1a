"""Case E7, the way up: what is large goes in parts and goes on after a cut; the rate and the spool hold."""

import asyncio
import hashlib
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import describe, job_of, submit
from tests.kit.controller_process import ControllerProcess
from tests.kit.ports import free_port
from tests.kit.s3_servers import BucketServer, make_bucket
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

MIB = 1 << 20
SIZE = 72 * MIB

# No two parts have the same bytes.
LARGE = f"""
import random
numbers = random.Random(7)
with open("results/large.bin", "wb") as file:
    for _ in range({SIZE // MIB}):
        file.write(numbers.randbytes({MIB}))
print("written")
"""
SPEC = "{name: large, bundle: ., jobs: {a: {run: [python3, main.py]}}}"


def large_digest() -> str:
    """The hash of what `LARGE` writes."""
    numbers, digest = random.Random(7), hashlib.sha256()
    for _ in range(SIZE // MIB):
        digest.update(numbers.randbytes(MIB))
    return digest.hexdigest()


@dataclass
class Board:
    """One controller and one agent, with a proxy between the board and the store."""

    controller: ControllerProcess
    agent: AgentProcess
    client: Client
    uplink: TcpProxy
    server: S3Server
    bucket: str

    async def state(self, name: str) -> JobState:
        return job_of(await self.client.get(name), "a").state

    async def unfinished(self) -> int:
        async with s3_client(self.server) as s3:
            answer = await s3.list_multipart_uploads(Bucket=self.bucket)
        return len(answer.get("Uploads", []))

    async def stored(self, view: PipelineView, path: str) -> tuple[int, str]:
        """Size and hash of what stands where the manifest says."""
        [artifact] = [one for one in job_of(view, "a").artifacts if one.path == path]
        digest, size = hashlib.sha256(), 0
        async with s3_client(self.server) as s3:
            answer = await s3.get_object(Bucket=self.bucket, Key=f"archive/{artifact.key}")
            body = answer["Body"]
            async with body:
                while chunk := await body.read(MIB):
                    digest.update(chunk)
                    size += len(chunk)
        assert artifact.size_bytes == size
        assert artifact.sha256 == digest.hexdigest()
        return size, digest.hexdigest()


@asynccontextmanager
async def board(
    ministack: BucketServer, folder: Path, monkeypatch: pytest.MonkeyPatch, *extra: str
) -> AsyncIterator[Board]:
    for name, value in ministack.credentials.items():
        monkeypatch.setenv(name, value)
    server = S3Server(ministack.endpoint)
    bucket = await make_bucket(server)
    # Restarted at the same address, as a controller is.
    grpc = f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        uplink = await stack.enter_async_context(
            TcpProxy(ministack.endpoint.removeprefix("http://"))
        )
        controller = await stack.enter_async_context(
            ControllerProcess(
                folder,
                *("--archive", f"s3://{bucket}/archive?endpoint={ministack.endpoint}"),
                *("--objects-url", f"http://{uplink.address}", "--grpc", grpc),
                # No start of an agent takes so long, however busy the machine is.
                *("--lease-seconds", "20"),
            )
        )
        agent = await stack.enter_async_context(AgentProcess(grpc, *extra))
        client = await stack.enter_async_context(Client(grpc))
        yield Board(controller, agent, client, uplink, server, bucket)


@pytest.mark.parametrize("loss", ["cut", "restart"])
async def test_e7_what_is_large_goes_on_where_it_was(
    ministack: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Half way the link is cut, or agent and controller are killed; at most 1.1 of the size is sent."""
    async with board(ministack, tmp_path, monkeypatch, "--upload-rate", "40MB/s") as one:
        uplink = one.uplink
        submitted = await submit(one.client, tmp_path / "spec", SPEC, {"main.py": LARGE})
        name = submitted.pipeline.id
        await until(lambda: uplink.carried > SIZE // 2, 120, "half of the upload")
        assert await one.state(name) is JobState.ARCHIVING
        assert await one.unfinished() == 1
        if loss == "cut":
            uplink.open = False
            uplink.cut()

            async def waits() -> bool:
                job = job_of(await one.client.get(name), "a")
                return "waits for the archive" in job.progress + job.waiting_for

            await until(waits, 60, "the words that it waits")
            uplink.open = True
        else:
            one.agent.kill()
            one.controller.end(signal.SIGKILL)
            await one.controller.start()
            one.agent.start()
        ended = await one.client.wait(name, deadline_seconds=120)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert len(job_of(ended, "a").attempts) == 1
        assert await one.stored(ended, "results/large.bin") == (SIZE, large_digest())
        print(f"E7: {uplink.carried / SIZE:.3f} of the size was sent, with a {loss}")  # noqa: T201
        assert SIZE <= uplink.carried <= 1.1 * SIZE
        assert await one.unfinished() == 0


async def test_e7_the_rate_holds_over_all_uploads_and_a_log_does_not_wait(
    ministack: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three jobs send 8 MB each at 4 MB/s in all: 6 s, where bounds are wide."""
    code = "import os\nopen('results/x','wb').write(os.urandom(8_000_000))\n"
    jobs = ", ".join(f"{name}: {{run: [python3, main.py]}}" for name in ("a", "b", "c"))
    spec = f"{{name: rate, bundle: ., jobs: {{{jobs}}}}}"
    async with board(ministack, tmp_path, monkeypatch, "--upload-rate", "4MB/s") as one:
        loop = asyncio.get_running_loop()
        submitted = await submit(one.client, tmp_path / "spec", spec, {"main.py": code})
        await until(lambda: one.uplink.carried > 2_000_000, 60, "the uploads")
        begin, before = loop.time(), one.uplink.carried
        await until(lambda: one.uplink.carried > 18_000_000, 100, "most of the uploads")
        rate = (one.uplink.carried - before) / (loop.time() - begin)
        print(f"E7: {rate / 1e6:.2f} MB/s of 4 MB/s")  # noqa: T201
        assert 0.4e6 <= rate <= 6e6
        quick = await submit(
            one.client, tmp_path / "quick", "{name: q, jobs: {a: {run: [echo, hello]}}}", {}
        )
        ended = await one.client.wait(quick.pipeline.id, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        ended = await one.client.wait(submitted.pipeline.id, deadline_seconds=100)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)


async def test_e7_a_full_spool_refuses_new_work_and_loses_nothing(
    ministack: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It has no bundle, which the closed uplink would not let through.
    spec = "{name: spool, jobs: {a: {run: [sh, -c, 'head -c 3000000 /dev/urandom > results/x']}}}"
    async with board(ministack, tmp_path, monkeypatch, "--spool-limit", "2MB") as one:
        one.uplink.open = False
        first = await submit(one.client, tmp_path / "one", spec, {})

        async def refuses() -> str:
            return next((node.refuses for node in await one.client.nodes()), "")

        await until(refuses, 60, "the refusal")
        words = await refuses()
        assert "its upload spool is full: 2.9 MiB of 1 attempts" in words
        assert "--spool-limit" in words
        second = await submit(one.client, tmp_path / "two", spec, {})
        explained = await one.client.explain(f"{second.pipeline.id}/a")
        assert "upload spool is full" in json.dumps(explained, default=str)
        assert await one.state(second.pipeline.id) is JobState.QUEUED
        one.uplink.open = True
        for name in (first.pipeline.id, second.pipeline.id):
            ended = await one.client.wait(name, deadline_seconds=100)
            assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        await until(lambda: _taken(one.client), 60, "new work")


async def _taken(client: Client) -> bool:
    [node] = await client.nodes()
    return not node.refuses
