"""The agent's way to the web: through a proxy where the environment names one, and directly to what is near."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from shoal.near_address import is_near


@dataclass(frozen=True, slots=True)
class WebSessions:
    """Two sessions; each request takes one by its address.

    Attributes:
        far: takes proxies, and what `.netrc` has, from the environment.
        near: takes nothing from there.
    """

    far: aiohttp.ClientSession
    near: aiohttp.ClientSession

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["WebSessions"]:
        """Open both, and close them at the end."""
        async with aiohttp.ClientSession(trust_env=True) as far, aiohttp.ClientSession() as near:
            yield cls(far, near)

    def toward(self, url: str) -> aiohttp.ClientSession:
        """Return the session that reaches an address."""
        return self.near if is_near(url) else self.far
