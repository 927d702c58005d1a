"""A proxy to a web that is not there: it counts what it is asked for, and has a few pages by heart."""

import asyncio
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Self

_NAMES: Final = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@dataclass(eq=False)
class WebProxy:
    """Listens on loopback within `async with`.

    Attributes:
        pages: what is answered, by address; everything else, a tunnel too, is refused with 502.
        asked: first lines of all requests, in their order: `GET http://…`, `CONNECT host:port`.
    """

    pages: Mapping[str, bytes]
    _: KW_ONLY
    asked: list[str] = field(default_factory=list[str])
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def variables(self) -> dict[str, str]:
        """What an environment that names this proxy has, in capitals, too; `no_proxy` is empty."""
        assert self._server is not None
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        named = {**dict.fromkeys(_NAMES, url), "no_proxy": "", "no_grpc_proxy": ""}
        return {**named, **{name.upper(): value for name, value in named.items()}}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, address, _ = head.split("\r\n", 1)[0].split(" ", 2)
            self.asked.append(f"{method} {address}")
            page = self.pages.get(address)
            status = "502 This proxy knows no such place" if page is None else "200 OK"
            kind = "text/html" if address.endswith("/") else "application/octet-stream"
            body = b"" if page is None or method == "HEAD" else page
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(page or b'')}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
