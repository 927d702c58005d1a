"""What holds for each request."""

import asyncio
from typing import Any

from services.gateway.request_guard import RequestGuard


class Server:
    """Hands a request to an application, as a server of HTTP does; a body part that is None never comes."""

    def __init__(self, *parts: bytes | None) -> None:
        self._parts = list(parts)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        part = self._parts.pop(0)
        if part is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))


async def reader(_: Any, receive: Any, send: Any) -> None:
    """Answers with the kinds of messages that it received."""
    kinds: list[str] = []
    while True:
        message = await receive()
        kinds.append(message["type"])
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(kinds).encode()})


async def asked(server: Server, method: str, path: str, seconds: float = 20) -> None:
    guard = RequestGuard(reader, {"/reads": True, "/changes": False}, seconds)
    scope = {"type": "http", "method": method, "path": path}
    await guard(scope, server.receive, server.send)


async def test_a_get_reads_and_changes_nothing() -> None:
    for method, path, status in (
        ("GET", "/reads", 200),
        ("POST", "/changes", 200),
        ("GET", "/changes", 405),
        ("HEAD", "/changes", 405),
        ("GET", "/elsewhere", 200),
    ):
        server = Server(b"")
        await asked(server, method, path)
        assert server.sent[0]["status"] == status, (method, path)


async def test_a_body_that_does_not_come_counts_as_left_off() -> None:
    server = Server(b"a", None)
    await asked(server, "POST", "/reads", seconds=0.01)
    assert server.sent[1]["body"] == b"http.request http.disconnect"


async def test_no_cache_keeps_an_answer() -> None:
    server = Server(b"a", b"b")
    await asked(server, "POST", "/reads")
    assert (b"cache-control", b"no-store") in server.sent[0]["headers"]
    assert server.sent[1]["body"] == b"http.request http.request"
