"""Watches of events: all of them, in order, each once, whatever the watcher, the clock or the store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control.core.answers import Submission, SubmitResult
from control.core.call_note import CallNote
from control.core.errors import ClosingError, UnknownSequenceError
from control.core.event_query import EventQuery
from control.core.rows import EventsRead
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from shoal.names import PipelineRef
from tests.unit.control.test_sqlite_store import fact
from tests.unit.control.world import Clock, numbered_ids, running_plane, single

ALL = EventQuery("default")
Reads = AsyncGenerator[EventsRead, None]


async def ended(plane: ControlPlane, namespace: str = "default") -> str:
    """Let a pipeline come and end, which are two events; returns its id."""
    (result,) = await plane.submit([Submission(namespace, "", single())])
    assert isinstance(result, SubmitResult)
    await plane.cancel(PipelineRef(namespace, result.view.id), "enough")
    return result.view.id


async def told(reads: Reads, count: int) -> list[int]:
    """The sequences of the next events, at least so many."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += [event.sequence for event in (await anext(reads)).events]
    return found


async def everything(plane: ControlPlane, query: EventQuery = ALL) -> list[int]:
    return [event.sequence for event in (await plane.events(query, 1000)).items]


@asynccontextmanager
async def watching(
    plane: ControlPlane, query: EventQuery = ALL, after: int = 0, since: datetime | None = None
) -> AsyncIterator[Reads]:
    begin = await plane.watch_events(query, after, since)
    async with aclosing(plane.events_shown.follow(query, begin.place)) as reads:
        yield reads


async def test_what_was_recorded_comes_first_and_then_what_is_recorded(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await ended(plane)
        async with watching(plane) as reads:
            found = await told(reads, 2)
            await ended(plane)
            await ended(plane)
            found += await told(reads, 4)
            assert found == await everything(plane)
        async with watching(plane, after=found[1]) as reads:
            assert await told(reads, 4) == found[2:]
        async with watching(plane, after=found[-1]) as reads:
            assert (await anext(reads)).events == ()
            await ended(plane)
            assert await told(reads, 2) == (await everything(plane))[-2:]


async def test_a_watch_of_one_pipeline_or_type_or_namespace_hears_of_that_alone(
    tmp_path: Path,
) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        first = await ended(plane)
        one = EventQuery("default", first)
        ends = EventQuery("default", types=("shoal.pipeline.*",))
        lab = EventQuery("lab", identities=False)
        async with (
            watching(plane, one) as of_one,
            watching(plane, ends) as of_ends,
            watching(plane, lab) as of_lab,
            watching(plane) as of_all,
        ):
            assert len(await told(of_one, 2)) == 2
            assert len(await told(of_ends, 1)) == 1
            assert (await anext(of_lab)).events == ()
            note = CallNote("operator/root", "", "KeysService.RotateKey", "10.0.0.1")
            await plane.note_call(note, "keys")
            await ended(plane, "lab")
            await ended(plane)
            assert await told(of_lab, 2) == await everything(plane, lab)
            assert await told(of_ends, 1) == (await everything(plane, ends))[1:]
            assert await told(of_all, 5) == await everything(plane)
            assert await everything(plane, one) == (await everything(plane))[:2]


async def test_one_that_reads_nothing_costs_nothing_and_is_told_all_in_the_end(
    tmp_path: Path,
) -> None:
    async with running_plane(tmp_path / "control.db", PlaneConfig(events_in_memory=8)) as plane:
        feed = plane.events_shown
        async with watching(plane) as asleep, watching(plane) as awake:
            assert (await anext(asleep)).events == ()
            found: list[int] = []
            for _ in range(20):
                await ended(plane)
                found += await told(awake, 2)
                assert len(feed._rows) - feed._first <= 8
                assert len(feed._rows) <= 16
            assert await told(asleep, 40) == found == await everything(plane)
        await ended(plane)
        assert feed._rows == [], "nothing is kept while nobody watches"


async def test_a_watch_begins_at_a_time_and_goes_on_though_the_clock_is_set_back(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with running_plane(tmp_path / "control.db", clock=clock) as plane:
        await ended(plane)
        clock.advance(60)
        since = clock.wall()
        await ended(plane)
        async with watching(plane, since=since) as reads:
            found = await told(reads, 2)
            clock.set_back(3600)
            await ended(plane)
            found += await told(reads, 2)
            assert found == (await everything(plane))[2:]
        late = EventQuery("default", since=since)
        assert await everything(plane, late) == found[:2], "a list says when it was recorded"
        async with watching(plane, since=since + timedelta(hours=3)) as reads:
            await ended(plane)
            assert await told(reads, 2) == (await everything(plane))[-2:]


async def test_a_place_of_another_store_is_refused_and_what_is_forgotten_is_told(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "control.db", events_kept=5) as store:
        await store.commit([fact(n) for n in range(1, 21)])
        clock = Clock()
        plane = ControlPlane(
            store=store, config=PlaneConfig(), clock=clock, wall=clock.wall, ids=numbered_ids()
        )
        async with plane:
            with pytest.raises(UnknownSequenceError, match="event 21 was never recorded here"):
                await plane.watch_events(ALL, 21)
            assert not (await plane.watch_events(ALL, 3)).missing, "all are kept that never left"
            await store.mark_published(range(1, 21))
            assert (await plane.watch_events(ALL, 3)).missing
            assert not (await plane.watch_events(ALL, 15)).missing
            assert not (await plane.watch_events(ALL)).missing
            async with watching(plane, after=3) as reads:
                assert await told(reads, 5) == [16, 17, 18, 19, 20]


async def test_who_waits_is_told_how_far_it_has_come_and_a_closed_plane_ends_it(
    tmp_path: Path,
) -> None:
    async with (
        running_plane(tmp_path / "control.db", PlaneConfig(quiet_seconds=0.05)) as plane,
        watching(plane, EventQuery("default", types=("none",))) as reads,
    ):
        assert await anext(reads) == ((), 0, False)
        await ended(plane)
        async with asyncio.timeout(20):
            assert await anext(reads) == ((), 2, False)
        plane.leader.close()
        with pytest.raises(ClosingError):
            await anext(reads)
