"""An index of Python packages over real HTTP (PEP 503), which may ask for a password, and may be taken away."""

import base64
from typing import Self

from aiohttp import web


class PackageIndex:
    """Serves what is added, on loopback; `async with` starts and stops it.

    Args:
        user: the one that may read it; empty if all may.
        password: of the user.
    """

    def __init__(self, user: str = "", password: str = "") -> None:
        self.files: dict[str, bytes] = {}
        self.downloads: list[str] = []
        """Names of the files that were fetched."""
        self.refused = 0
        """Requests without the right password."""
        self._word = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/simple/{name}/", self._list)
        application.router.add_get("/files/{file}", self._file)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.take_away()

    async def take_away(self) -> None:
        """Let nothing listen there any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def host(self) -> str:
        """Where it is."""
        return "127.0.0.1"

    @property
    def url(self) -> str:
        """Its address, without a password."""
        return f"http://127.0.0.1:{self._port}/simple"

    def address(self, file: str) -> str:
        """The address of one of its files."""
        return f"http://127.0.0.1:{self._port}/files/{file}"

    def add(self, file: str, data: bytes) -> str:
        """Offer a wheel or a source archive; returns its name."""
        self.files[file] = data
        return file

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._word and request.headers.get("Authorization") != f"Basic {self._word}":
            self.refused += 1
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="packages"'})
        return None

    async def _list(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        name = request.match_info["name"]
        links = [
            f"<a href='/files/{file}'>{file}</a>"
            for file in self.files
            if file.startswith(f"{name}-")
        ]
        if not links:
            return web.Response(status=404)
        return web.Response(
            text=f"<html><body>{'<br>'.join(links)}</body></html>", content_type="text/html"
        )

    async def _file(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        file = request.match_info["file"]
        if file not in self.files:
            return web.Response(status=404)
        self.downloads.append(file)
        return web.Response(body=self.files[file], content_type="application/octet-stream")
