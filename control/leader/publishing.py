"""From the outbox to the world: manifests into the archive, then events to the broker.

Manifests do not wait for the broker. An event does wait for every manifest that was recorded before
it, so a client that hears of a success finds its manifest; and for the copies of results that are made
for programs of before, so that their `Done` is true, too.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile

from control.core.errors import StoreFailedError
from control.core.rows import ObjectsWaiting, OutboxKind, OutboxRow
from control.leader.event_spans import EventSpans
from control.leader.recorded_objects import RecordedObjects
from control.leader.result_copies import ResultCopies
from control.store.store import Store, may_go_on
from services.archive.key import InvalidKeyError
from services.archive.object_store import ArchiveError, ObjectStore, PutOutcome, SmallObject
from services.events.broker_link import OpenLink
from services.events.broker_url import BrokerAddress
from services.events.entry import OutboxEntry
from services.events.outbox.events import RowsRead
from services.events.outbox.shell import NO_BROKER, OutboxShell, RowsUnavailableError, open_mqtt
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.view import Event

LOG = logging.getLogger(__name__)

ROWS_AT_ONCE = 1_000
"""Most rows of a reading; it ends before when it has many bytes."""

GATHER_SECONDS = 0.05
"""From a reading that found something for the archive to the next, so that many jobs share one wait for its disk."""

COUNTED_MAX = 1000
_RETRY = Backoff(initial_seconds=0.2, maximum_seconds=10.0, jitter=0.5)


class Publishing:
    """Empties the outbox for as long as `run` runs.

    Args:
        store: has the outbox.
        archive: where manifests go.
        grown: set by the leader when it has added rows; cleared here.
        objects: has what the leader recorded for the archive.
        broker: where events go; None keeps them.
        client_id: our name at the broker.
        clock: seconds on a monotonic clock.
        wall: now, for people.
        chance: a number from [0, 1) for each backoff.
        open_link: makes a connection to the broker.
        results: where results are copied for pipelines that ask for it; None for the archive.
        spans_wait: set when spans of events were added to the store; None for a controller that sends no spans.
    """

    def __init__(
        self,
        store: Store,
        archive: ObjectStore,
        grown: asyncio.Event,
        objects: RecordedObjects,
        *,
        broker: BrokerAddress | None,
        client_id: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        chance: Callable[[], float],
        open_link: OpenLink = open_mqtt,
        results: ObjectStore | None = None,
        spans_wait: asyncio.Event | None = None,
    ) -> None:
        self._store = store
        self._archive = archive
        self._clock = clock
        self._grown = grown
        self._objects = objects
        self._chance = chance
        # All that waited for the archive up to here is there.
        self._stored_through = 0
        # Manifests that are there, which is not written down yet.
        self._stored: list[int] = []
        self._copies = ResultCopies(
            store, archive, results or archive, chance=chance, done=self._copied
        )
        self._publisher: OutboxShell | None = None
        if broker is not None:
            spans = None if spans_wait is None else EventSpans(store, wall, spans_wait)
            events = _Events(store, lambda: self._stored_through, spans)
            self._publisher = OutboxShell(
                events,
                broker,
                client_id,
                clock=clock,
                wall=wall,
                chance=chance,
                open_link=open_link,
                held=lambda entry: self._copies.held(
                    entry.namespace, entry.subject, entry.sequence
                ),
            )

    async def run(self) -> None:
        """Store manifests and publish events until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store_manifests())
            tasks.create_task(self._copies.run())
            if self._publisher is not None:
                tasks.create_task(self._publisher.run())
                tasks.create_task(self._tell_of_events(self._publisher))

    @property
    def connected(self) -> bool | None:
        """Whether the broker has accepted us; None without one."""
        return None if self._publisher is None else self._publisher.connected

    async def sentence(self) -> str:
        """Say for people how it stands with the broker, and how many events wait."""
        if self._publisher is None:
            return NO_BROKER
        if self._publisher.connected:
            return self._publisher.sentence("")
        rows = await self._store.outbox(COUNTED_MAX)
        count = sum(row.is_told for row in rows)
        more = "at least " if may_go_on(rows, COUNTED_MAX) else ""
        return self._publisher.sentence(
            f"{more}{count} {'event waits' if count == 1 else 'events wait'}"
        )

    def explained(self, namespace: str, events: Iterable[Event]) -> list[Event]:
        """Say of events that wait although the broker is there why they do."""
        publisher = self._publisher
        if publisher is None:
            return list(events)
        return [
            replace(event, problem=publisher.resting(namespace, event.subject))
            if not (event.published or event.problem)
            else event
            for event in events
        ]

    async def _tell_of_events(self, publisher: OutboxShell) -> None:
        while True:
            # No deadline: nothing may happen for days.
            await self._grown.wait()
            self._grown.clear()
            publisher.grown()

    async def _store_manifests(self) -> None:
        failures = 0
        while True:
            self._objects.clear()
            began = self._clock()
            stored = False
            try:
                more = True
                while more:
                    found = await self._store_some()
                    stored, more = stored or bool(found.rows), found.more
            except (ArchiveError, InvalidKeyError, StoreFailedError) as error:
                failures += 1
                LOG.warning(
                    "manifests wait for the archive", extra=fields(why=error, failures=failures)
                )
                await asyncio.sleep(_RETRY.delay_seconds(failures, self._chance()))
            else:
                failures = 0
                # No deadline: nothing may happen for days.
                await self._objects.wait()
                if stored and (left := began + GATHER_SECONDS - self._clock()) > 0:
                    await asyncio.sleep(left)

    async def _store_some(self) -> ObjectsWaiting:
        found = self._objects.take(self._stored_through, ROWS_AT_ONCE)
        if found is None:
            found = await self._store.objects_waiting(ROWS_AT_ONCE, self._stored_through)
        manifests = [row for row in found.rows if row.kind is OutboxKind.MANIFEST]
        if manifests:
            await self._put_manifests(manifests)
        self._stored += [row.sequence for row in manifests]
        for row in found.rows:
            if row.kind is OutboxKind.COPIES:
                await self._copies.add(row)
            self._stored_through = row.sequence
        self._stored_through = found.through
        # Events may leave while it is written down that their manifests are there.
        self._cleared()
        if self._stored:
            await self._store.mark_published(self._stored)
            self._stored = []
        return found

    def _cleared(self) -> None:
        if self._publisher is not None:
            self._publisher.grown()

    def _copied(self) -> None:
        if self._publisher is not None:
            self._publisher.grown()
            self._publisher.try_again()

    async def _put_manifests(self, rows: Sequence[OutboxRow]) -> None:
        """Store manifests together; each that is there already stays, if it is what counts."""
        objects = [SmallObject(row.key, row.data.encode()) for row in rows]
        outcomes = await self._archive.put_many(objects, if_absent=True)
        for one, outcome in zip(objects, outcomes, strict=True):
            # What is there is ours from before a crash; if it is not, the store knows what counts.
            if outcome is PutOutcome.EXISTS and await self._archive.get(one.key) != one.data:
                LOG.error("another manifest stood in the archive", extra=fields(key=one.key))
                await self._archive.put(one.key, one.data)


class _Events:
    """The events of the outbox, as the publisher reads them."""

    def __init__(
        self, store: Store, stored_through: Callable[[], int], spans: EventSpans | None
    ) -> None:
        self._store = store
        self._stored_through = stored_through
        self._spans = spans

    async def read(self, after: int, limit: int) -> RowsRead:
        stored = self._stored_through()
        try:
            rows = await self._store.outbox(limit, after)
        except StoreFailedError as error:
            raise RowsUnavailableError(str(error)) from error
        ready = [*takewhile(lambda row: row.sequence <= stored or row.is_told, rows)]
        through = ready[-1].sequence if ready else after
        if self._spans is not None:
            self._spans.read(ready)
        entries = tuple(_entry(row) for row in ready if row.is_told)
        # What is not clear yet is announced when it is.
        return RowsRead(entries, through, more=may_go_on(ready, limit))

    async def mark(self, sequences: Sequence[int], aside: Mapping[int, str]) -> None:
        told = {sequence: f"set aside: {why}" for sequence, why in aside.items()}
        try:
            if self._spans is not None:
                await self._spans.left(sequences)
            await self._store.mark_published(sequences, told)
        except StoreFailedError as error:
            raise RowsUnavailableError(str(error)) from error


def _entry(row: OutboxRow) -> OutboxEntry:
    message = row.kind in {OutboxKind.MESSAGE, OutboxKind.KEPT_MESSAGE}
    return OutboxEntry(
        row.sequence,
        row.id,
        row.type,
        row.namespace,
        row.subject,
        row.time,
        row.data,
        topic=row.key if message else "",
        kept=row.kind is OutboxKind.KEPT_MESSAGE,
    )
