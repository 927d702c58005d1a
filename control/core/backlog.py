"""The jobs that wait for a node, so that a long queue costs nothing while there is no room.

Jobs that ask for the same, and whose gangs do, are interchangeable to every filter, so there is one *line of
equals* for each kind: when the first of a line finds no room, those behind it find none either, and need
not be looked at. What was found of the first is kept with the line until there is more room somewhere.

What a store remembers of a long queue stands in *lines of names*, one for each shape of pipelines, and
enters the queue as a *window* of so many pipelines of each shape that were never placed:

- Rule: a pipeline leaves the window when the first of its jobs is placed or ends, and the next one of
  its line enters then. So a start costs what runs, and not what waits.
- Invariant: while a line has pipelines, its window is full when a plan is made. Its jobs go before
  those that were submitted after the start, so nothing overtakes what stands in a line.
- Example: 100,000 equal jobs wait and the window is 256. A node has room for 4: the first 256 are
  records, 4 of them are placed, and 4 more enter. The other 99,740 are a name and a number each.

Cost: putting in, taking out and finding the first of a line take the same time however many wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf

from control.core.scheduler.plan import Missed
from control.core.state import JobRecord
from shoal.names import JobRef, PipelineRef

Ticket = tuple[int, int]
"""Where a job stands in the queue: a rank, and a number that rises within it."""

_AGAIN, _EARLY, _NEW = range(3)
"""Ranks: jobs that were placed before, those that the start found, and those that came since."""

# Ordered, since the first of a long plain dictionary is behind the holes of all that were taken out before.
_Queue = OrderedDict[JobRef, "Waiting"]


@dataclass(slots=True, eq=False)
class Equals:
    """The jobs of one kind, by rank.

    `missed` is why they find no room, by namespace, for as long as there is no more of it anywhere; `told`
    is what those behind the first one were told of that, and `told_at` when, in monotonic seconds. `before` is what
    `missed` was at the look before, `worded_at` when words for it were made, and `nodes_then` how often nodes had
    changed by then in more than what is free of them.
    """

    kind: Hashable
    ranks: tuple[_Queue, _Queue, _Queue] = field(
        default_factory=lambda: (OrderedDict(), OrderedDict(), OrderedDict())
    )
    missed: dict[str, Missed] = field(default_factory=dict[str, Missed])
    before: dict[str, Missed] = field(default_factory=dict[str, Missed])
    told: str = ""
    told_at: float = -inf
    worded_at: float = -inf
    nodes_then: int = -1

    def __iter__(self) -> Iterator[Waiting]:
        """All of them in their order; none may be put in or taken out meanwhile."""
        for rank in self.ranks:
            yield from rank.values()


@dataclass(slots=True, eq=False)
class Waiting:
    """A job that waits: where it stands, and among which equals."""

    job: JobRecord
    ticket: Ticket
    equals: Equals

    @property
    def new(self) -> bool:
        """Whether it was submitted since the start, and goes behind all that stands in lines of names."""
        return self.ticket[0] == _NEW


class Backlog:
    """Queued jobs in their order: those that were placed before go first.

    Their neighbours hold resources and wait for them.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: dict[JobRef, Waiting] = {}
        self._kinds: dict[Hashable, Equals] = {}
        self._lines: dict[str, deque[PipelineRef]] = {}
        self._windows: dict[str, set[PipelineRef]] = {}
        self._shapes: dict[PipelineRef, str] = {}  # of those in a window
        self.in_lines = 0
        """How many pipelines stand in lines of names."""

    def __len__(self) -> int:
        """How many jobs wait; a pipeline in a line of names counts as one."""
        return len(self._waiting) + self.in_lines

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._waiting

    def __getitem__(self, ref: JobRef) -> Waiting:
        """Where a job stands that waits."""
        return self._waiting[ref]

    def add(self, job: JobRecord, kind: Hashable, *, early: bool = False) -> None:
        """Put a job at the end of its queue; equal kinds find room in the same places.

        `early` is one that was submitted before the controller started.
        """
        rank = _AGAIN if job.number else _EARLY if early else _NEW
        equals = self._kinds.get(kind)
        if equals is None:
            equals = self._kinds[kind] = Equals(kind)
        waiting = Waiting(job, (rank, next(self._numbers)), equals)
        self._waiting[job.ref] = equals.ranks[rank][job.ref] = waiting

    def line_up(self, ref: PipelineRef, shape: str) -> None:
        """Put a pipeline at the end of the line of its shape."""
        self._lines.setdefault(shape, deque()).append(ref)
        self.in_lines += 1

    def entering(self, width: int) -> Iterator[PipelineRef]:
        """Take out of each line what fills its window up to `width`; add the jobs of each before the next.

        One that has nothing to add has to `leave`.
        """
        for shape, line in tuple(self._lines.items()):
            window = self._windows.setdefault(shape, set())
            while line and len(window) < width:
                ref = line.popleft()
                self.in_lines -= 1
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
        waiting = self._waiting.pop(ref, None)
        if waiting is not None:
            equals = waiting.equals
            del equals.ranks[waiting.ticket[0]][ref]
            if not any(equals.ranks):
                del self._kinds[equals.kind]
            if self._shapes:
                self.leave(ref.pipeline_ref)

    def kinds(self) -> Iterator[Equals]:
        """The jobs of each kind of which any wait."""
        return iter(self._kinds.values())
