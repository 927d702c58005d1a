"""The agent's journal in memory: durable once awaited, and cut short where its process or its power ends.

As the real one it writes what waits in one transaction, in the order in which it was asked for, and a
newer write of a thing takes the place of one that waits. A transaction that is on its way when the
agent dies is there as a whole or not at all; what had not been begun is not. Records pass the codec
of the real journal when they are read: they never change before.
"""

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from edge_agent.attempts.local_attempt import LocalAttempt
from edge_agent.journal import decode_row, encode_plain, encode_record
from shoal.names import AttemptRef
from tests.simulation.mesh.loop import VirtualLoop

COMMIT_SECONDS = 0.006
"""At most so long takes one transaction."""

_Write = Callable[[], object]


class JournalDisk:
    """What is durable; it outlives agents."""

    def __init__(self) -> None:
        self.records: dict[AttemptRef, LocalAttempt] = {}
        self.facts: dict[str, str] = {}


class MemoryJournal:
    """The journal of one life of an agent.

    Args:
        loop: the loop of the world.
        rng: draws how long a transaction takes.
        disk: what is durable.
    """

    def __init__(self, loop: VirtualLoop, rng: Random, disk: JournalDisk) -> None:
        self._loop = loop
        self._rng = rng
        self._disk = disk
        self._waiting: dict[object, tuple[_Write, list[asyncio.Future[None]]]] = {}
        self._flight: dict[object, tuple[_Write, list[asyncio.Future[None]]]] | None = None

    def put(self, record: LocalAttempt) -> asyncio.Future[None]:
        """See `AttemptJournal`."""
        ref = record.ref
        return self._ask(ref, lambda: self._disk.records.__setitem__(ref, record))

    def forget(self, ref: AttemptRef) -> None:
        """See `AttemptJournal`."""
        self._ask(ref, lambda: self._disk.records.pop(ref, None))

    def note(self, name: str, value: str) -> asyncio.Future[None]:
        """See `AttemptJournal`."""
        return self._ask(name, lambda: self._disk.facts.__setitem__(name, value))

    def barrier(self) -> asyncio.Future[None]:
        """See `AttemptJournal`."""
        return self._ask(object(), lambda: None)

    async def load(self) -> tuple[LocalAttempt, ...]:
        """See `AttemptJournal`."""
        await asyncio.sleep(COMMIT_SECONDS * self._rng.random())
        rows = sorted(self._disk.records.values(), key=lambda record: record.ref.prefix)
        read: list[LocalAttempt] = []
        for record in rows:
            plain, secrets = encode_plain(record.assignment), record.assignment.secrets
            again = decode_row(record.ref.prefix, plain, encode_record(record), secrets)
            assert again is not None, f"the journal cannot read what it wrote of {record}"
            assert again == record, f"the journal makes of {record} another record: {again}"
            read.append(again)
        return tuple(read)

    async def facts(self) -> Mapping[str, str]:
        """See `AttemptJournal`."""
        await asyncio.sleep(COMMIT_SECONDS * self._rng.random())
        return dict(self._disk.facts)

    def end(self, *, written: bool) -> None:
        """The process is gone; a transaction that was on its way has been `written`, or not."""
        if self._flight is not None and written:
            for write, _ in self._flight.values():
                write()
        self._flight = None
        self._waiting = {}

    def _ask(self, key: object, write: _Write) -> asyncio.Future[None]:
        done = self._loop.create_future()
        before = self._waiting.get(key)
        self._waiting[key] = (write, [done] if before is None else [*before[1], done])
        if self._flight is None:
            self._begin()
        return done

    def _begin(self) -> None:
        self._flight, self._waiting = self._waiting, {}
        self._loop.call_later(COMMIT_SECONDS * (0.2 + 0.8 * self._rng.random()), self._written)

    def _written(self) -> None:
        if self._flight is None:
            return
        batch, self._flight = self._flight, None
        for write, _ in batch.values():
            write()
        for _, waiting in batch.values():
            for done in waiting:
                if not done.done():
                    done.set_result(None)
        if self._waiting:
            self._begin()
