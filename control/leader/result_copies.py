"""Copies results of committed jobs to where programs of before look for them, until they are there.

Rule. What is told of a pipeline after its commit waits for its copies (`held`), so that `Done` is true, for as
long as it takes: copies may be large, and their bucket away. Events of other pipelines wait for none of it.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Final

from control.core.errors import StoreFailedError
from control.core.rows import OutboxRow
from control.store.store import Store
from services.archive.copying import copies, copy_artifact
from services.archive.key import InvalidKeyError
from services.archive.manifest import ManifestError, read_manifest
from services.archive.object_store import ArchiveError, ObjectMissingError, ObjectStore
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.model import Artifact

LOG = logging.getLogger(__name__)

WAITING_MAX: Final = 10_000
_AT_ONCE: Final = 8
_RETRY: Final = Backoff(initial_seconds=0.2, maximum_seconds=10.0, jitter=0.5)


class ResultCopies:
    """Carries out rows of the outbox one after the other: of two tasks with the same names the last stays.

    Args:
        store: has the outbox.
        archive: has manifests and artifacts.
        target: where copies go; the archive itself, or another store.
        chance: a number from [0, 1) for each backoff.
        done: is called when a row is done.
    """

    def __init__(
        self,
        store: Store,
        archive: ObjectStore,
        target: ObjectStore,
        *,
        chance: Callable[[], float],
        done: Callable[[], None],
    ) -> None:
        self._store = store
        self._archive = archive
        self._target = target
        self._chance = chance
        self._done = done
        self._rows: asyncio.Queue[OutboxRow] = asyncio.Queue(WAITING_MAX)
        self._waiting: dict[int, OutboxRow] = {}
        self._failure = ""
        """Why the row whose turn it is could not be copied at its last try."""

    def held(self, namespace: str, subject: str, sequence: int) -> str:
        """Say for which copies of its pipeline an event waits; empty if for none."""
        pipeline = _pipeline(subject)
        for row in self._waiting.values():
            if row.sequence > sequence:
                break
            if row.namespace == namespace and _pipeline(row.subject) == pipeline:
                why = f": {self._failure}" if self._failure else ""
                return f"it waits until the results of {row.subject} are copied{why}"
        return ""

    async def add(self, row: OutboxRow) -> None:
        """Let a row wait for its turn; its manifest is in the archive."""
        if row.sequence not in self._waiting:
            self._waiting[row.sequence] = row
            await self._rows.put(row)

    async def run(self) -> None:
        """Copy until cancelled."""
        while True:
            row = await self._rows.get()
            failures = 0
            while True:
                try:
                    await self._copy(row)
                    await self._store.mark_published([row.sequence])
                    break
                except (ArchiveError, StoreFailedError) as error:
                    failures += 1
                    LOG.warning(
                        "copies of results wait for the archive",
                        extra=fields(key=row.key, why=error, failures=failures),
                    )
                    self._failure = str(error)
                    await asyncio.sleep(_RETRY.delay_seconds(failures, self._chance()))
            del self._waiting[row.sequence]
            self._failure = ""
            self._done()

    async def _copy(self, row: OutboxRow) -> None:
        """Copy what one manifest names.

        Raises:
            ArchiveError: one of the stores does not answer.
        """
        try:
            artifacts = read_manifest(await self._archive.get(row.key))
        except (ObjectMissingError, ManifestError) as error:
            self._give_up(row.key, error)
            return
        wanted = copies(artifacts, json.loads(row.data)["prefix"])
        left = iter(wanted.items())
        away: list[ArchiveError] = []
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(self._copy_each(left, away))
        if away:
            raise away[0]
        LOG.info("results are copied", extra=fields(key=row.key, copies=len(wanted)))

    async def _copy_each(
        self, left: Iterator[tuple[str, Artifact]], away: list[ArchiveError]
    ) -> None:
        for to, artifact in left:
            if away:
                return
            try:
                await copy_artifact(artifact, self._archive, self._target, to)
            except (InvalidKeyError, ObjectMissingError) as error:
                self._give_up(to, error)
            except ArchiveError as error:
                away.append(error)

    def _give_up(self, key: str, error: Exception) -> None:
        """Go on with the others: another try would meet the same, and the manifest has what counts."""
        LOG.error("a result is not copied", extra=fields(key=key, why=error))


def _pipeline(subject: str) -> str:
    """Return of `pipelines/P/jobs/J` what names the pipeline."""
    return "/".join(subject.split("/")[:2])
