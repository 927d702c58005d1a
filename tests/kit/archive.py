"""An archive as a controller has it: open, and its endpoint served."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.archive.opening import EndpointSettings, OpenArchive, open_store
from shoal.credentials import Credentials


@asynccontextmanager
async def served_archive(
    url: str, identity: Callable[[], Credentials] | None = None
) -> AsyncIterator[OpenArchive]:
    """Open the archive at `url`, and serve it if it is a folder; over HTTPS with an identity."""
    async with open_store(
        url,
        EndpointSettings("127.0.0.1", 0, secrets.token_bytes(32), identity=identity),
        wall=time.time,
        clock=time.monotonic,
        new_id=lambda: secrets.token_hex(8),
    ) as archive:
        serving = asyncio.create_task(archive.serve())
        try:
            yield archive
        finally:
            serving.cancel()
            await asyncio.wait([serving])
