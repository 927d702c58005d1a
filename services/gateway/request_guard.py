"""What holds for each request before any part of the gateway sees it: its method, and the time of its body.

Rule: a GET changes nothing, so it is let through to the contract only where the table of rules says that the method
reads; a browser follows a link with the cookie that it has. A body has to be there within `BODY_SECONDS`: it counts as
left off otherwise, so a caller that sends a byte a minute holds nothing. Nothing that is answered is kept by a cache.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS: Final = 20.0
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class RequestGuard:
    """Stands before an application.

    Args:
        app: the application.
        safe: by the path of each method of the contract, whether a GET may ask for it.
        body_seconds: how long a body may take.
    """

    def __init__(
        self, app: ASGIApp, safe: Mapping[str, bool], body_seconds: float = BODY_SECONDS
    ) -> None:
        self._app = app
        self._safe = safe
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        safe = self._safe.get(scope["path"])
        if safe is False and scope["method"] in {"GET", "HEAD"}:
            allowed = [(b"allow", b"POST")]
            await answer({"type": "http.response.start", "status": 405, "headers": allowed})
            await answer({"type": "http.response.body"})
            return
        # The server cancels a request at its own end alone, and this is the root of the request: it ends here.
        with contextlib.suppress(asyncio.CancelledError):
            await self._app(scope, _timed(receive, self._body_seconds), answer)


def _timed(receive: Receive, seconds: float) -> Receive:
    due = asyncio.get_running_loop().time() + seconds
    whole = False

    async def read() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(due):
                message = await receive()
        except TimeoutError:
            whole = True
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return read
