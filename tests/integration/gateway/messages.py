"""Streams of Connect and gRPC-Web, as a program reads them without a library."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.integration.gateway.conftest import Site
from tests.kit.running_gateway import RunningGateway


def envelope(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, bytes]]:
    """The messages of a stream, with their flags."""
    while True:
        try:
            head = await answer.content.readexactly(5)
        except asyncio.IncompleteReadError:
            return
        flags, size = struct.unpack(">BI", head)
        yield flags, await answer.content.readexactly(size)


def stream_of(
    session: aiohttp.ClientSession, gateway: RunningGateway, method: str, token: str, body: object
) -> Any:
    """Ask for a stream by Connect, in JSON."""
    return session.post(
        f"{gateway.url}/shoal.v1.{method}",
        data=envelope(json.dumps(body).encode()),
        headers={"content-type": "application/connect+json", "authorization": f"Bearer {token}"},
        timeout=aiohttp.ClientTimeout(total=None),
    )


def watch(session: aiohttp.ClientSession, site: Site, method: str, token: str, body: object) -> Any:
    """Ask for a stream of a site."""
    return stream_of(session, site.gateway, method, token, body)
