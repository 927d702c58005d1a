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
    url: str,
    identity: Callable[[], Credentials] | None = None,
    *,
    port: int = 0,
    reached: str = "",
) -> AsyncIterator[OpenArchive]:
    """Open the archive at `url`, and serve it if it is a folder; over HTTPS with an identity.

    Args:
        url: address of the archive.
        identity: what the endpoint of a folder proves.
        port: where that endpoint listens; 0 for a free one.
        reached: what signed addresses begin with; empty for the archive's own.
    """
    async with open_store(
        url,
        EndpointSettings(
            "127.0.0.1", port, secrets.token_bytes(32), identity=identity, url=reached
        ),
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
