"""An upload that makes no progress is given up and tried anew; a slow one is not."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edge_agent.tree import PlainFile
from edge_agent.uploads.uploader import Uploader
from edge_agent.web_sessions import WebSessions
from shoal.backoff import Backoff
from shoal.model import Artifact
from shoal.session.uploads import UploadGrant


@asynccontextmanager
async def stalling_store(behaviours: list[str], bodies: list[bytes]) -> AsyncIterator[int]:
    """A store that does with each connection what the next word says."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behaviour = behaviours.pop(0) if behaviours else "at once"
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = bytearray()
        if behaviour == "nothing":
            await over.wait()
            writer.close()
            return
        while len(body) < size:
            body += await reader.read(64 << 10)
            if behaviour == "slowly":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.01)
        if behaviour == "no answer":
            await over.wait()
            writer.close()
            return
        bodies.append(bytes(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


@pytest.mark.parametrize("first", ["nothing", "no answer"])
async def test_a_store_that_stalls_is_given_up_and_tried_anew(tmp_path: Path, first: str) -> None:
    data = b"x" * (32 << 20)
    path = tmp_path / "file"
    path.write_bytes(data + b"written since it was measured")
    artifact = Artifact("file", len(data), hashlib.sha256(data).hexdigest())
    bodies: list[bytes] = []
    said: list[str] = []
    async with (
        stalling_store([first, "slowly"], bodies) as port,
        aiohttp.ClientSession() as client,
    ):
        uploader = Uploader(
            WebSessions(client, client),
            chance=lambda: 0.5,
            backoff=Backoff(0.01, 0.01),
            stall_seconds=2.0,
        )
        grant = UploadGrant("file", "key", f"http://127.0.0.1:{port}/a%0Ab")
        begin = time.monotonic()
        file = PlainFile(path.parent, path.name)
        stored = await asyncio.wait_for(uploader.store(file, artifact, grant, said.append), 60)
    assert stored.key == "key"
    assert bodies == [data]
    [words] = said
    assert words.startswith("'file' waits for the archive: it took nothing for 2 s; tried 1 times")
    assert time.monotonic() - begin > 2
