"""A small store over real HTTP that a test can send away, cut short or let refuse."""

import asyncio
import hashlib
import re
from typing import Self
from urllib.parse import quote

from aiohttp import web


class ObjectServer:
    """PUT and GET of objects on loopback; `async with` starts and stops it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.gets = 0
        self.puts = 0
        self.sent_bytes = 0
        self.ranges: list[str] = []
        self.away = False
        """Answer 503 to everything."""
        self.refuse_puts = 0
        """Answer 403 to this many PUTs, as for an address that has expired."""
        self.no_ranges = False
        """Answer with the whole object, whatever part is asked for."""
        self.hold_puts = asyncio.Event()
        """While it is not set, what was put is kept, and its answer waits."""
        self.hold_puts.set()
        self.cut_at: int | None = None
        """Break the next answer after this many bytes."""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_get(r"/{key:[\s\S]*}", self._get)
        application.router.add_put(r"/{key:[\s\S]*}", self._put)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def url(self, key: str) -> str:
        """Address of an object."""
        return f"http://127.0.0.1:{self._port}/{quote(key)}"

    def add(self, data: bytes, key: str = "") -> tuple[str, str]:
        """Keep an object; returns its SHA-256 and its address."""
        digest = hashlib.sha256(data).hexdigest()
        self.objects[key or digest] = data
        return digest, self.url(key or digest)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.gets += 1
        if self.away:
            return web.Response(status=503)
        data = self.objects.get(request.match_info["key"])
        if data is None:
            return web.Response(status=404, text="no such object")
        start = 0
        end = len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if self.no_ranges:
            wanted = None
        if wanted:
            self.ranges.append(wanted[0])
            start = int(wanted[1])
            end = min(end, int(wanted[2]) + 1) if wanted[2] else end
            if start >= len(data):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        response = web.StreamResponse(status=206 if wanted else 200)
        response.content_length = end - start
        await response.prepare(request)
        cut, self.cut_at = self.cut_at, None
        if cut is not None:
            end = min(end, start + cut)
        await response.write(data[start:end])
        self.sent_bytes += end - start
        if cut is not None and request.transport is not None:
            request.transport.close()
        return response

    async def _put(self, request: web.Request) -> web.Response:
        self.puts += 1
        if self.away:
            return web.Response(status=503)
        if self.refuse_puts:
            self.refuse_puts -= 1
            return web.Response(status=403, text="the address has expired")
        key = request.match_info["key"]
        self.objects[key] = await request.read()
        self.headers[key] = dict(request.headers)
        await self.hold_puts.wait()
        return web.Response()
