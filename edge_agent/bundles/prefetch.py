"""Bundles that are fetched before a job needs them here, one after the other, and kept for as long."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from edge_agent.content_cache import ContentCache
from edge_agent.download import FetchError
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.session.bundles import BundlesWanted, WantedBundle

LOG = logging.getLogger(__name__)

_BACKOFF: Final = Backoff(5.0, 300.0)


class Prefetch:
    """Brings into the cache what the controller wants there.

    A bundle that the cache has no room for beside others that are wanted is given up until something
    else is wanted: it is fetched when a job needs it.

    Args:
        cache: keeps bundles.
        chance: draws from [0, 1) for the jitter between tries.
    """

    def __init__(self, cache: ContentCache, chance: Callable[[], float]) -> None:
        self._cache = cache
        self._chance = chance
        self._wanted: tuple[WantedBundle, ...] = ()
        self._given_up: set[str] = set()
        self._failures = Counter[str]()
        self._changed = asyncio.Event()

    def want(self, wanted: BundlesWanted) -> None:
        """Take what is wanted from now on."""
        self._wanted = wanted.bundles
        self._given_up.clear()
        self._failures.clear()
        self._cache.pin({one.digest for one in wanted.bundles})
        self._changed.set()

    async def run(self) -> None:
        """Fetch until cancelled; what failed waits, and holds up nothing else."""
        full = 0
        while True:
            self._changed.clear()
            bundle = self._next()
            if bundle is None:
                await self._changed.wait()
                continue
            full = 0 if self._cache.has_room() else full + 1
            failures = max(full, self._failures[bundle.digest])
            if failures and await self._changed_within(
                _BACKOFF.delay_seconds(failures, self._chance())
            ):
                continue
            if not full:
                await self._fetch(bundle)

    async def _changed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _next(self) -> WantedBundle | None:
        """The bundle that is to be fetched: of those that failed least often the first.

        One without an address waits for the next session.
        """
        missing = [
            one
            for one in self._wanted
            if one.url and one.digest not in self._given_up and not self._cache.has(one.digest)
        ]
        return min(missing, key=lambda one: self._failures[one.digest], default=None)

    async def _fetch(self, bundle: WantedBundle) -> None:
        """Fetch a bundle, unless it is wanted no longer."""
        fetching = asyncio.ensure_future(self._borrow(bundle))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({fetching, changed}, return_when=asyncio.FIRST_COMPLETED)
            while not fetching.done() and any(one.digest == bundle.digest for one in self._wanted):
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({fetching, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                return
            await fetching
        except (FetchError, OSError) as error:
            self._failures[bundle.digest] += 1
            LOG.warning("not prefetched", extra=fields(digest=bundle.digest, why=error))
            return
        finally:
            for task in (fetching, changed):
                task.cancel()
            await asyncio.wait({fetching, changed})
        if not self._cache.has(bundle.digest):
            self._given_up.add(bundle.digest)
            LOG.warning(
                "no room for a prefetched bundle: a larger --bundle-cache has",
                extra=fields(digest=bundle.digest),
            )

    async def _borrow(self, bundle: WantedBundle) -> None:
        async with self._cache.borrow(bundle.digest, bundle.url, pieces_url=bundle.pieces_url):
            pass
