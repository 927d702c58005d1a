"""Removes from the archive what nothing names any more, once a day and when it is asked to."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from control.core.errors import StoreFailedError
from control.leader.garbage import (
    DAY_SECONDS,
    GRACE_SECONDS,
    Garbage,
    GarbageRule,
    GarbageRules,
)
from control.store.store import Store
from services.archive.key import InvalidKeyError
from services.archive.manifest import ManifestError, read_manifest
from services.archive.object_store import (
    ArchiveError,
    ListedObject,
    ObjectMissingError,
    ObjectStore,
)
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

FIRST_SECONDS: Final = 3_600.0
"""After a start, so that a controller that is restarted often does not list its archive each time."""
KEYS_SHOWN: Final = 100
_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class CollectedGarbage:
    """What went, or would go: objects with their bytes, and unfinished uploads; some of the keys."""

    objects: int = 0
    size_bytes: int = 0
    uploads: int = 0
    keys: tuple[str, ...] = ()

    def plus(self, objects: Collection[ListedObject]) -> "CollectedGarbage":
        """Return the same with more objects."""
        shown = (*self.keys, *(one.key for one in objects))[:KEYS_SHOWN]
        size = self.size_bytes + sum(one.size_bytes for one in objects)
        return CollectedGarbage(self.objects + len(objects), size, self.uploads, shown)


class GarbageCollector:
    """Collects, one pass at a time.

    Args:
        store: says what is named; what another controller has taken over lets nothing be removed.
        archive: has the objects.
        rules: how long what is kept.
        wall: Unix time in seconds.
    """

    def __init__(
        self,
        store: Store,
        archive: ObjectStore,
        rules: GarbageRules,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._archive = archive
        self._rules = rules
        self._wall = wall
        self._passing = asyncio.Lock()
        self.sparing = asyncio.Lock()
        """Its holder may refresh an object that is about to go, and has it for sure then."""

    async def run(self) -> None:
        """Collect once a day until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.collect(dry_run=False)
            except (ArchiveError, StoreFailedError, InvalidKeyError) as error:
                LOG.warning("the archive is not tidied today", extra=fields(why=error))
            await asyncio.sleep(DAY_SECONDS)

    async def collect(self, *, dry_run: bool) -> CollectedGarbage:
        """Make one pass: remove what nothing names, or say what that would be.

        Raises:
            ArchiveError: the archive does not answer; what was removed until then was garbage.
            StoreFailedError: the store does not answer.
            TermOverError: another controller has taken over.
        """
        async with self._passing:
            rule = GarbageRule(self._rules, self._wall())
            old = [one async for one in self._archive.list_objects() if rule.is_old(one)]
            uploads = [one async for one in self._archive.unfinished_uploads()]
            # After the lists, and before the manifests: see `garbage`.
            garbage = rule.among(old, uploads, await self._store.kept_names())
            done = await self._remove(CollectedGarbage(), garbage.content, rule, dry_run=dry_run)
            for manifest, objects in garbage.attempts.items():
                unnamed = await self._unnamed(manifest, objects)
                done = await self._remove(done, unnamed, rule, dry_run=dry_run)
            done = await self._remove(done, garbage.manifests, rule, dry_run=dry_run)
            return await self._abort(done, garbage, dry_run=dry_run)

    async def has(self, key: str) -> bool:
        """Whether an object is there; then it stays as if it were stored now.

        Raises:
            ArchiveError: the archive does not answer.
        """
        async with self.sparing:
            info = await self._archive.head(key)
            if info is not None and self._wall() - info.modify_time >= GRACE_SECONDS / 2:
                await self._archive.refresh(key)
            return info is not None

    async def _unnamed(
        self, manifest: str, objects: Collection[ListedObject]
    ) -> list[ListedObject]:
        """Return which objects of a job its manifest does not name; none if it cannot be read."""
        try:
            named = {one.key for one in read_manifest(await self._archive.get(manifest))}
        except ObjectMissingError:
            named = set[str]()
        except ManifestError as error:
            LOG.warning("a manifest cannot be read", extra=fields(key=manifest, why=error))
            return []
        return [one for one in objects if one.key not in named]

    async def _remove(
        self,
        done: CollectedGarbage,
        objects: Collection[ListedObject],
        rule: GarbageRule,
        *,
        dry_run: bool,
    ) -> CollectedGarbage:
        if dry_run or not objects:
            return done.plus(objects)
        left = list(objects)
        while left:
            some, left = left[:_AT_ONCE], left[_AT_ONCE:]
            await self._store.mark_published(())  # raises once another controller has taken over
            async with self.sparing:
                old = await asyncio.gather(*(self._is_still_old(one, rule) for one in some))
                some = [one for one, is_old in zip(some, old, strict=True) if is_old]
                await self._archive.delete([one.key for one in some])
            done = done.plus(some)
            LOG.info(
                "removed from the archive what nothing names",
                extra=fields(objects=len(some), first=some[0].key if some else ""),
            )
        return done

    async def _is_still_old(self, one: ListedObject, rule: GarbageRule) -> bool:
        """Look once more: a client may have been told just now that its bundle is there."""
        info = await self._archive.head(one.key)
        return info is not None and rule.is_old(replace(one, modify_time=info.modify_time))

    async def _abort(
        self, done: CollectedGarbage, garbage: Garbage, *, dry_run: bool
    ) -> CollectedGarbage:
        for upload in garbage.uploads:
            if not dry_run:
                await self._archive.abort_upload(upload.key, upload.upload_id)
        return replace(done, uploads=len(garbage.uploads))
