"""The jobs that wait for a node, so that a long queue costs nothing while there is no room.

Jobs that ask for the same, and whose gangs do, are interchangeable to every filter: when the first
of them find no room, those behind them find none either, and need not be looked at.

What a store remembers of a long queue stands in *lines* of names, one for each shape of pipelines, and
enters the queue as a *window* of so many pipelines of each shape that were never placed:

- Rule: a pipeline leaves the window when the first of its jobs is placed or ends, and the next one of
  its line enters then. So a start costs what runs, and not what waits.
- Invariant: while a line has pipelines, its window is full when `heads` is asked. Its jobs go before
  those that were submitted after the start, so nothing overtakes what stands in a line.
- Example: 100,000 equal jobs wait and the window is 256. A node has room for 4: the first 256 are
  records, 4 of them are placed, and 4 more enter. The other 99,740 are a name and a number each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from itertools import chain, count, islice

from control.core.state import JobRecord
from shoal.names import JobRef, PipelineRef

Ticket = tuple[int, int]
"""Where a job stands in the queue: a rank, and a number that rises within it."""

_AGAIN, _EARLY, _NEW = range(3)
"""Ranks: jobs that were placed before, those that the start found, and those that came since."""

_Queue = dict[JobRef, JobRecord]


class Backlog:
    """Queued jobs in their order: those that were placed before go first.

    Their neighbours hold resources and wait for them.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._tickets: dict[JobRef, Ticket] = {}
        self._kinds: dict[JobRef, Hashable] = {}
        self._queues: dict[Hashable, tuple[_Queue, _Queue, _Queue]] = {}  # for each kind, by rank
        self._lines: dict[str, deque[PipelineRef]] = {}
        self._windows: dict[str, set[PipelineRef]] = {}
        self._shapes: dict[PipelineRef, str] = {}  # of those in a window
        self._in_lines = 0

    def __len__(self) -> int:
        """How many jobs wait; a pipeline in a line counts as one."""
        return len(self._tickets) + self._in_lines

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._tickets

    def add(self, job: JobRecord, kind: Hashable, *, early: bool = False) -> None:
        """Put a job at the end of its queue; equal kinds find room in the same places.

        `early` is one that was submitted before the controller started.
        """
        rank = _AGAIN if job.number else _EARLY if early else _NEW
        self._tickets[job.ref] = (rank, next(self._numbers))
        self._kinds[job.ref] = kind
        self._queues.setdefault(kind, ({}, {}, {}))[rank][job.ref] = job

    def line_up(self, ref: PipelineRef, shape: str) -> None:
        """Put a pipeline at the end of the line of its shape."""
        self._lines.setdefault(shape, deque()).append(ref)
        self._in_lines += 1

    def entering(self, width: int) -> Iterator[PipelineRef]:
        """Take out of each line what fills its window up to `width`; add the jobs of each before the next.

        One that has nothing to add has to `leave`.
        """
        for shape, line in tuple(self._lines.items()):
            window = self._windows.setdefault(shape, set())
            while line and len(window) < width:
                ref = line.popleft()
                self._in_lines -= 1
                window.add(ref)
                self._shapes[ref] = shape
                yield ref
            if not line:
                del self._lines[shape]

    def leave(self, ref: PipelineRef) -> None:
        """Take a pipeline out of its window, if it is in one."""
        shape = self._shapes.pop(ref, None)
        if shape is not None:
            self._windows[shape].discard(ref)

    def remove(self, ref: JobRef) -> None:
        """Take a job out, if it is there."""
        ticket = self._tickets.pop(ref, None)
        if ticket is not None:
            kind = self._kinds.pop(ref)
            queues = self._queues[kind]
            del queues[ticket[0]][ref]
            if not any(queues):
                del self._queues[kind]
            if self._shapes:
                self.leave(ref.pipeline_ref)

    def ticket(self, ref: JobRef) -> Ticket:
        """Where a job stands; lower goes first."""
        return self._tickets[ref]

    def heads(self, width: int) -> Iterator[JobRecord]:
        """The first so many jobs of each kind."""
        for queues in self._queues.values():
            yield from islice(chain.from_iterable(one.values() for one in queues), width)
