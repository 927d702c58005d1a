"""Stores small artifacts that came with the question where to store them: many of many sessions at once.

Rule. What waits while a batch is being stored becomes the next one. So one question alone is stored at once, and
under load an archive in a folder waits for its disk once for many (docs/adr/0037).

Which attempt may write is decided by its session, before. An artifact that is stored again, because the answer was
lost, has the same key and the same bytes.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.archive.artifact_key import artifact_key
from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveError,
    ArchiveUnavailableError,
    ObjectStore,
    SmallObject,
)
from shoal.backoff import Backoff
from shoal.session.uploads import UploadsWanted

TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""About the most bytes of a batch; all of it is in memory already."""

OBJECTS_TOGETHER: Final = 1_000
"""Most objects that the archive is asked to store at once."""

STORE_SECONDS: Final = 10.0
"""How long it usually may take for these: an agent has an address sooner than an archive gives up by itself."""

AWAY: Final = Backoff(5.0, 60.0, jitter=0.0)
"""How long an archive that did not answer is not asked again: agents are given addresses meanwhile."""


@dataclass(eq=False, slots=True)
class _Wish:
    """What one question brought, and what became of it."""

    objects: Sequence[SmallObject]
    done: bool = False
    failure: ArchiveError | InvalidKeyError | None = None


class SmallArtifacts:
    """Takes what sessions bring.

    Args:
        archive: where it goes.
        clock: seconds on a monotonic clock.
        store_seconds: how long the archive may take for what it is asked to store at once.
    """

    def __init__(
        self,
        archive: ObjectStore,
        clock: Callable[[], float],
        store_seconds: float = STORE_SECONDS,
    ) -> None:
        self._archive = archive
        self._clock = clock
        self._store_seconds = store_seconds
        self._away_until = 0.0
        self._away = ""
        self._failures = 0
        self._waiting: deque[_Wish] = deque()
        self._turn = asyncio.Lock()

    async def store(self, objects: Sequence[SmallObject]) -> None:
        """Store these, together with what others want stored; all of them survive a loss of power then.

        Raises:
            ArchiveError: The archive does not take them now.
            InvalidKeyError: It takes one of them never; others of them may be stored.
        """
        wish = _Wish(objects)
        self._waiting.append(wish)
        try:
            async with self._turn:
                while not wish.done:
                    await self._store_some()
        finally:
            if not wish.done:
                self._waiting.remove(wish)
        if wish.failure is not None:
            raise wish.failure

    async def _store_some(self) -> None:
        """Store what has waited longest, as much as fits together."""
        batch: list[_Wish] = []
        size = 0
        for wish in self._waiting:
            size += sum(len(one.data) for one in wish.objects)
            if batch and size > TOGETHER_BYTES:
                break
            batch.append(wish)
        try:
            await self._put(batch)
        except InvalidKeyError:
            # The others need not suffer for one of them.
            for wish in batch:
                try:
                    await self._put([wish])
                except InvalidKeyError as error:
                    wish.failure = error
                except ArchiveError as error:
                    wish.failure = error
        except ArchiveError as error:
            for wish in batch:
                wish.failure = error
        for wish in batch:
            wish.done = True
            # One whose session ended meanwhile is not there any more.
            if wish in self._waiting:
                self._waiting.remove(wish)

    async def _put(self, wishes: Sequence[_Wish]) -> None:
        if self._clock() < self._away_until:
            raise ArchiveUnavailableError(self._away)
        objects = iter([one for wish in wishes for one in wish.objects])
        try:
            while some := list(islice(objects, OBJECTS_TOGETHER)):
                async with asyncio.timeout(self._store_seconds):
                    await self._archive.put_many(some)
        except TimeoutError:
            why = f"the archive has not answered for {self._store_seconds:g} s"
            raise self._is_away(why) from None
        except ArchiveError as error:
            raise self._is_away(str(error)) from error
        self._failures = 0

    def _is_away(self, why: str) -> ArchiveUnavailableError:
        """Note that the archive is to be left alone for a while."""
        self._failures += 1
        self._away_until = self._clock() + AWAY.delay_seconds(self._failures, 1.0)
        self._away = why
        return ArchiveUnavailableError(why)


def objects_of(wanted: UploadsWanted) -> dict[str, SmallObject]:
    """Return what can be stored of a question, by path: what is what it was announced as.

    What is not is granted an address as if it had not come, and so is what has a key that no archive takes: the
    answer says why.
    """
    announced = {one.path: one for one in wanted.artifacts}
    found: dict[str, SmallObject] = {}
    for content in wanted.contents:
        artifact = announced.get(content.path)
        if artifact is None or artifact.size_bytes != len(content.data):
            continue
        if hashlib.sha256(content.data).hexdigest() != artifact.sha256:
            continue
        try:
            key = artifact_key(wanted.ref, content.path)
        except InvalidKeyError:
            continue
        found[content.path] = SmallObject(key, content.data)
    return found
