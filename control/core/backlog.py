"""The jobs that wait for a node, so that a long queue costs nothing while there is no room.

Jobs that ask for the same, and whose gangs do, are interchangeable to every filter: when the first
of them find no room, those behind them find none either, and need not be looked at.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import count, islice

from control.core.state import JobRecord
from shoal.names import JobRef

Ticket = tuple[bool, int]
"""Where a job stands in the queue: those that were never placed behind all others."""


class Backlog:
    """Queued jobs in their order: those that were placed before go first.

    Their neighbours hold resources and wait for them.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._tickets: dict[JobRef, Ticket] = {}
        self._kinds: dict[JobRef, Hashable] = {}
        # For each kind first those that were placed before, then the others.
        self._queues: dict[Hashable, tuple[dict[JobRef, JobRecord], dict[JobRef, JobRecord]]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._tickets

    def add(self, job: JobRecord, kind: Hashable) -> None:
        """Put a job at the end of its queue; equal kinds find room in the same places."""
        new = not job.number
        self._tickets[job.ref] = (new, next(self._numbers))
        self._kinds[job.ref] = kind
        self._queues.setdefault(kind, ({}, {}))[new][job.ref] = job

    def remove(self, ref: JobRef) -> None:
        """Take a job out, if it is there."""
        ticket = self._tickets.pop(ref, None)
        if ticket is not None:
            kind = self._kinds.pop(ref)
            queues = self._queues[kind]
            del queues[ticket[0]][ref]
            if not queues[0] and not queues[1]:
                del self._queues[kind]

    def ticket(self, ref: JobRef) -> Ticket:
        """Where a job stands; lower goes first."""
        return self._tickets[ref]

    def heads(self, width: int) -> Iterator[JobRecord]:
        """The first so many jobs of each kind."""
        for queues in self._queues.values():
            again = list(islice(queues[0].values(), width))
            yield from again
            yield from islice(queues[1].values(), width - len(again))
