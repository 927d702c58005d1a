"""The agent's way to the web: through a proxy where the environment names one, and directly to what is near.

Rule: aiohttp is loaded with the first request, and on a thread.
Why: it takes an eighth of an idle agent's memory, and on a slow board a second, in which an event loop would neither
gossip nor renew leases. So the modules that use it import it where they use it, after `toward` has.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.near_address import is_near

if TYPE_CHECKING:
    import aiohttp


@dataclass(eq=False)
class WebSessions:
    """Two sessions, opened with the first request; each request takes one by its address.

    Attributes:
        far: takes proxies, and what `.netrc` has, from the environment.
        near: takes nothing from there.
    """

    far: "aiohttp.ClientSession | None" = None
    near: "aiohttp.ClientSession | None" = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["WebSessions"]:
        """Close at the end what was opened."""
        sessions = cls()
        try:
            yield sessions
        finally:
            for session in (sessions.far, sessions.near):
                if session is not None:
                    await session.close()

    async def toward(self, url: str) -> "aiohttp.ClientSession":
        """Return the session that reaches an address."""
        if self.far is None or self.near is None:
            await asyncio.to_thread(importlib.import_module, "aiohttp")
            import aiohttp  # noqa: PLC0415 - see the rule

            self.far = self.far or aiohttp.ClientSession(trust_env=True)
            self.near = self.near or aiohttp.ClientSession()
        return self.near if is_near(url) else self.far
