"""What the parts of an overview tell, each by itself and one message at a time.

Rules.
- A part goes on only when its last message was taken, so it has no queue: things wait for it as they do for any watch,
  each by its newest picture, and events do not wait at all.
- One that so much waits for that it would be cut off begins anew with a snapshot, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from control.core.errors import WatcherTooSlowError
from control.core.event_query import EventQuery
from control.front.control_plane import ControlPlane
from control.front.event_feed import EventsBegin
from control.front.watch import Changes
from shoal import limits
from shoal.pipeline_filter import PipelineFilter
from shoal.v1 import overview_service_pb2 as v1
from shoal.view import PipelineTotals, SnapshotEnd
from shoal.wire.pipeline_filter import encode_totals
from shoal.wire.view import encode_event

Part: TypeAlias = v1.OverviewPart.ValueType

COUNT_SECONDS: Final = 0.5
_LOOKED_FOR_SECONDS: Final = 5.0
_REST: Final = 20
"""Between two counts lies so many times as long as one takes, if what is counted has to be looked for."""


class PartNews(NamedTuple):
    """A message of one part, and the place from where on it goes on after that; counts have none."""

    part: Part
    response: v1.WatchOverviewResponse
    place: int
    items: int = 0


News = AsyncGenerator[PartNews, None]


@dataclass(frozen=True, slots=True)
class WatchedThings:
    """Things that are watched as they change.

    Attributes:
        part: what they are.
        watch: begins a watch behind a revision.
        add: puts one into a message, and returns its bytes.
    """

    part: Part
    watch: Callable[[int], AbstractContextManager[Changes[Any]]]
    add: Callable[[v1.WatchOverviewResponse, Any], int]

    async def news(self, since: int) -> News:
        """Tell of the things as they are, and then as they change behind a revision."""
        while True:
            try:
                with self.watch(since) as changes:
                    async with aclosing(self._told(changes)) as told:
                        async for news in told:
                            yield news
            except WatcherTooSlowError:
                since = 0  # more has changed than may wait, wherever it began

    async def _told(self, changes: Changes[Any]) -> News:
        response = v1.WatchOverviewResponse()
        if changes.within:
            response.begun.append(self.part)
        room, items = limits.BATCH_BYTES_MAX, 0
        async for change in changes:
            if isinstance(change, SnapshotEnd):
                response.complete.append(self.part)
            else:
                room -= self.add(response, change)
                items += 1
                if room > 0 and changes.more:
                    continue
            yield PartNews(self.part, response, changes.resume, items)
            response = v1.WatchOverviewResponse()
            room, items = limits.BATCH_BYTES_MAX, 0


async def event_news(plane: ControlPlane, query: EventQuery, begin: EventsBegin) -> News:
    """Tell events from their beginning on."""
    missing, complete = begin.missing, False
    async with aclosing(plane.events_shown.follow(query, begin.place)) as told:
        async for read in told:
            response = v1.WatchOverviewResponse(
                events=[encode_event(event) for event in read.events], events_missing=missing
            )
            if not complete and read.through >= begin.newest:
                complete = True
                response.complete.append(v1.OVERVIEW_PART_EVENTS)
            missing = False
            yield PartNews(v1.OVERVIEW_PART_EVENTS, response, read.through, len(read.events))


async def count_news(plane: ControlPlane, namespace: str, asked: PipelineFilter) -> News:
    """Tell the counts whenever they have changed, with a rest between."""
    clock = asyncio.get_running_loop().time
    told: PipelineTotals | None = None
    while True:
        began = clock()
        totals = await plane.shown.totals(namespace, asked)
        rest = COUNT_SECONDS
        if not asked.only_standing:
            rest = max(_LOOKED_FOR_SECONDS, _REST * (clock() - began))
        if totals != told:
            told = totals
            response = v1.WatchOverviewResponse(counts=encode_totals(totals))
            yield PartNews(v1.OVERVIEW_PART_UNSPECIFIED, response, 0)
        await asyncio.sleep(rest)
