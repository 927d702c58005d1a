"""The plane on a real store: submit, desired, observed, succeeded, events; and what may fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from control.core.answers import Refusal, Submission, SubmitResult
from control.core.errors import (
    ClosingError,
    InternalError,
    SessionEndedError,
    StoreFailedError,
    UnknownJobError,
    UnknownNodeError,
    UnknownPipelineError,
    WatcherTooSlowError,
)
from control.core.event_query import EventQuery
from control.core.pipeline_query import PageFound, PageKey, PipelineQuery
from control.core.rows import (
    EventsRead,
    FoundRows,
    KeptNames,
    Loaded,
    ObjectsWaiting,
    OutboxKind,
    OutboxRow,
    Queued,
    RequestKey,
    Row,
    SpansRow,
    StoredVersionRow,
)
from control.front.control_plane import CHECKED_IN_A_STEP, ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from shoal.model import Capacity, JobState, MemberState, PipelineState, StreamCounters
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.pipeline_filter import PipelineFilter
from shoal.session.assignment import Goal
from shoal.session.bundles import BundlesWanted
from shoal.session.messages import Desired
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.spec import Job, Pipeline
from shoal.view import NodeView, PipelineSummary, PipelineView, SnapshotEnd
from tests.kit.until import until
from tests.unit.control.world import (
    Clock,
    counter,
    hello,
    numbered_ids,
    running_plane,
    seen,
    single,
)

STEPS = (
    JobState.PREPARING,
    JobState.RUNNING,
    JobState.DRAINING,
    JobState.ARCHIVING,
    JobState.SUCCEEDED,
)


async def submit(plane: ControlPlane, spec: Pipeline, request_id: str = "") -> PipelineRef:
    (result,) = await plane.submit([Submission("default", request_id, spec)])
    assert isinstance(result, SubmitResult), result
    return PipelineRef(result.view.namespace, result.view.id)


async def desired(
    plane: ControlPlane, node: str, session: str, *, takes_lanes: bool = False
) -> AsyncGenerator[Desired, None]:
    """Follow desired state alone."""
    told = plane.feeds.follow(node, session, takes_lanes=takes_lanes)
    async with contextlib.aclosing(told) as messages:
        async for message in messages:
            if not isinstance(message, BundlesWanted):
                assert isinstance(message, Desired)
                yield message


async def assigned(
    updates: AsyncGenerator[Desired, None], wanted: int
) -> dict[AttemptRef, Desired]:
    """Follow desired state until so many attempts were named."""
    found: dict[AttemptRef, Desired] = {}
    while len(found) < wanted:
        update = await anext(updates)
        found |= {one.ref: update for one in update.assignments}
    return found


async def test_a_pipeline_goes_from_submission_to_its_final_event(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        assert (await plane.open_session(hello("n1"), "s1")).fenced == ()
        ref = await submit(plane, counter())
        updates = desired(plane, "n1", "s1")
        attempts = await assigned(updates, 4)
        for attempt in attempts:
            assert await plane.observe("n1", "s1", seen(attempt, *STEPS)) == ()
        view = plane.shown.pipeline(ref)
        assert view.state is PipelineState.SUCCEEDED
        assert view.final_event_id == f"default/{ref.name}/succeeded/1"
        assert plane.outbox_grown.is_set()
        rows = await plane._store.outbox()
        assert sum(row.kind is OutboxKind.MANIFEST for row in rows) == 4
        assert rows[-1].id == view.final_event_id
        page = await plane.events(EventQuery("default", ref.pipeline), 3)
        rest = await plane.events(EventQuery("default", ref.pipeline), 1000, page.next_page_token)
        ids = [event.id for event in (*page.items, *rest.items)]
        assert len(ids) == len(set(ids)) == 10
        update = await anext(updates)
        while len(update.removed) < 4:
            assert not update.snapshot
            update = replace(update, removed=(*update.removed, *(await anext(updates)).removed))
        assert set(update.removed) == set(attempts)
        await updates.aclose()


async def test_desired_state_is_a_snapshot_then_deltas_with_rising_revisions(
    tmp_path: Path,
) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        updates = desired(plane, "n1", "s1")
        first = await anext(updates)
        assert (first.snapshot, first.assignments) == (True, ())
        ref = await submit(plane, single())
        placed = await anext(updates)
        assert (placed.snapshot, len(placed.assignments)) == (False, 1)
        await plane.cancel(ref, "enough")
        stopped = await anext(updates)
        assert [one.goal for one in stopped.assignments] == [Goal.STOP]
        assert first.revision < placed.revision < stopped.revision
        await updates.aclose()


@pytest.mark.parametrize("takes_lanes", [False, True])
async def test_lanes_travel_alone_to_an_agent_that_takes_them(
    tmp_path: Path, *, takes_lanes: bool
) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        ref = await submit(plane, counter())
        updates = desired(plane, "n1", "s1", takes_lanes=takes_lanes)
        attempts = await assigned(updates, 4)
        for attempt in attempts:
            await plane.observe("n1", "s1", seen(attempt, JobState.RUNNING))
        await plane.finish(ref)  # the source is to stand still
        [camera] = [one for one in attempts if one.job == "camera"]
        update = await anext(updates)
        if takes_lanes:
            assert update.assignments == ()
            [changed] = update.lanes
            assert changed.ref == camera
            lanes = changed.lanes
        else:
            assert update.lanes == ()
            [assignment] = update.assignments
            assert assignment.ref == camera
            lanes = assignment.lanes
        assert len(lanes) == 2
        assert all(lane.hold for lane in lanes)
        await updates.aclose()


async def test_repeated_and_refused_submissions_are_answered_in_order(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        one = Submission("default", "key", single())
        other = Submission("default", "key", single("other"))
        first, again, refused = await plane.submit([one, one, other])
        assert isinstance(first, SubmitResult)
        assert isinstance(again, SubmitResult)
        assert isinstance(refused, Refusal)
        assert (first.repeated, again.repeated) == (False, True)
        assert first.view.id == again.view.id
        assert await plane.submit([]) == []


async def test_a_pipeline_of_many_jobs_is_checked_as_a_small_one_is(tmp_path: Path) -> None:
    jobs = tuple(Job(f"j{number}", ("/bin/true",)) for number in range(CHECKED_IN_A_STEP + 1))
    twice = (*jobs[:-1], jobs[0])
    async with running_plane(tmp_path / "control.db") as plane:
        taken, refused = await plane.submit(
            [Submission("default", "", Pipeline("many", one)) for one in (jobs, twice)]
        )
        assert isinstance(taken, SubmitResult)
        assert len(taken.view.jobs) == len(jobs)
        assert isinstance(refused, Refusal)
        assert refused.reason == "INVALID_SPEC"


async def test_an_older_session_ends_when_a_newer_one_opens(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        updates = desired(plane, "n1", "s1")
        await anext(updates)
        await plane.open_session(hello("n1"), "s2")
        with pytest.raises(SessionEndedError, match="another session"):
            await anext(updates)
        with pytest.raises(SessionEndedError):
            await plane.observe("n1", "s1", [])
        with pytest.raises(SessionEndedError):
            await anext(desired(plane, "n1", "s1"))
        await plane.close_session("n1", "s1")
        assert plane.shown.node("n1").connected
        await plane.close_session("n1", "s2")
        assert not plane.shown.node("n1").connected


async def test_a_lease_that_runs_out_ends_the_session_and_replaces(tmp_path: Path) -> None:
    clock = Clock()
    config = PlaneConfig(sweep_seconds=0.01)
    async with running_plane(tmp_path / "control.db", config, clock) as plane:
        await plane.open_session(hello("n1"), "s1")
        ref = await submit(plane, single())
        await plane.open_session(hello("n2"), "s2")
        lost = desired(plane, "n1", "s1")
        (attempt,) = await assigned(lost, 1)
        await plane.observe("n1", "s1", seen(attempt, JobState.RUNNING))

        async def over() -> bool:
            clock.now += 0.5
            plane.leader.heartbeat("n2", "s2")
            await asyncio.wait_for(_nothing(), 1)
            return plane.shown.pipeline(ref).jobs[0].node == "n2"

        await until(over, 10, "the job runs on n2")
        with pytest.raises(SessionEndedError, match="silent"):
            await anext(lost)
        assert not plane.is_current("n1", attempt)
        await plane.open_session(hello("n1", Observation(attempt, JobState.RUNNING)), "s3")
        (fenced,) = await plane.observe("n1", "s3", seen(attempt, JobState.SUCCEEDED))
        assert fenced.ref == attempt
        assert plane.shown.node("n2").last_seen_time == clock.wall()


async def _nothing() -> None:
    """Give the loop a turn."""


async def test_gossip_and_drain_are_shown(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        with plane.watch_nodes() as changes:
            first = await anext(changes)
            assert isinstance(first, NodeView)
            assert isinstance(await anext(changes), SnapshotEnd)
            plane.member_verdict("n1", MemberState.SUSPECT)
            suspected = await anext(changes)
            assert isinstance(suspected, NodeView)
            assert suspected.member_state is MemberState.SUSPECT
            assert (await plane.drain("n1", drained=True)).drained
            drained = await anext(changes)
            assert drained.revision > suspected.revision > first.revision
        with pytest.raises(UnknownNodeError, match="known are n1"):
            await plane.drain("n2", drained=True)
        with pytest.raises(UnknownNodeError):
            plane.shown.node("n2")
        assert [node.name for node in plane.shown.nodes()] == ["n1"]


async def test_a_watch_resumes_where_it_was(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        first = await submit(plane, single("first"))
        with plane.watch_pipelines("default") as changes:
            seen_first = await anext(changes)
            assert isinstance(seen_first, PipelineView)
            assert seen_first.id == first.pipeline
            assert changes.resume == 0, "who is cut off within a snapshot has to begin again"
            end = await anext(changes)
            assert isinstance(end, SnapshotEnd)
            assert changes.resume == end.revision > 0
        second = await submit(plane, single("second"))
        await submit(plane, single("third"))
        with plane.watch_pipelines("default", since_revision=end.revision) as changes:
            resumed = await anext(changes)
            assert isinstance(resumed, PipelineView)
            assert resumed.id == second.pipeline
            assert changes.resume == resumed.revision > end.revision
        with plane.watch_pipelines(
            "default", second.pipeline, since_revision=end.revision
        ) as changes:
            await anext(changes)
            await plane.cancel(second, "enough")
            last = await anext(changes)
            assert isinstance(last, PipelineView)
            assert last.state is PipelineState.CANCELLED
        with plane.watch_pipelines("other") as changes:
            assert isinstance(await anext(changes), SnapshotEnd)
        with plane.watch_pipelines("default", since_revision=1) as changes:
            shown = [await anext(changes) for _ in range(4)]
            assert isinstance(shown[-1], SnapshotEnd), "an unknown revision begins anew"


async def test_a_slow_watcher_is_cut_off(tmp_path: Path) -> None:
    config = PlaneConfig(watch_pending_max=3)
    async with running_plane(tmp_path / "control.db", config) as plane:
        with plane.watch_pipelines("default") as changes:
            assert isinstance(await anext(changes), SnapshotEnd)
            for _ in range(4):
                await submit(plane, single())
            with pytest.raises(WatcherTooSlowError, match="watch again"):
                await anext(changes)


async def test_progress_is_shown_while_it_is_current(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        ref = await submit(plane, single())
        (attempt,) = await assigned(desired(plane, "n1", "s1"), 1)
        counters = (StreamCounters("frames", output=True, records=9),)
        plane.progress("n1", "s1", Progress(attempt._replace(epoch=9), (), "lies"))
        plane.progress("n1", "s1", Progress(attempt, counters, "half way"))
        await until(lambda: plane.shown.pipeline(ref).jobs[0].progress == "half way")
        assert plane.shown.pipeline(ref).jobs[0].streams == counters


async def test_the_last_counters_count_even_if_the_end_comes_with_them(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        ref = await submit(plane, single())
        (attempt,) = await assigned(desired(plane, "n1", "s1"), 1)
        counters = (StreamCounters("frames", output=True, records=9),)
        ending = asyncio.create_task(
            plane.observe("n1", "s1", [Observation(attempt, JobState.SUCCEEDED)])
        )
        # Both wait now, and the plane takes them in one step.
        plane.progress("n1", "s1", Progress(attempt, counters, ""))
        await ending
        job = plane.shown.pipeline(ref).jobs[0]
        assert (job.state, job.streams) == (JobState.SUCCEEDED, counters)


async def test_pipelines_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        refs = [await submit(plane, single(f"p{number}")) for number in range(5)]
        await plane.cancel(refs[3], "enough")
        first = await plane.shown.pipelines(PipelineQuery("default"), 2)
        assert [view.id for view in first.items] == [refs[4].pipeline, refs[3].pipeline]
        rest = await plane.shown.pipelines(PipelineQuery("default"), 100, first.behind)
        assert [view.id for view in rest.items] == [ref.pipeline for ref in refs[2::-1]]
        assert rest.behind is None
        asked = PipelineFilter(states=frozenset({PipelineState.CANCELLED}))
        cancelled = await plane.shown.pipelines(PipelineQuery("default", asked))
        assert [view.id for view in cancelled.items] == [refs[3].pipeline]
        assert (await plane.shown.pipelines(PipelineQuery("other"))).items == ()


async def test_unknown_things_are_said_to_be_unknown(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        nobody = PipelineRef("default", "nobody")
        with pytest.raises(UnknownPipelineError):
            plane.shown.pipeline(nobody)
        with pytest.raises(UnknownPipelineError):
            await plane.cancel(nobody, "")
        ref = await submit(plane, single())
        with pytest.raises(UnknownJobError):
            await plane.explain(JobRef("default", ref.pipeline, "other"))
        assert await plane.explain(JobRef("default", ref.pipeline, "main")) == ()


async def test_what_has_ended_is_shown_from_the_store(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    async with running_plane(path) as plane:
        refs = [await submit(plane, single(f"p{number}")) for number in range(4)]
        for ref in refs[:3]:
            await plane.cancel(ref, "enough")
        before = [await plane.shown.find(ref) for ref in refs]
    async with running_plane(path) as plane:
        with pytest.raises(UnknownPipelineError):
            plane.shown.pipeline(refs[0])
        page = await plane.shown.pipelines(PipelineQuery("default"), 3)
        rest = await plane.shown.pipelines(PipelineQuery("default"), behind=page.behind)
        assert [one.id for one in (*page.items, *rest.items)] == [one.id for one in before[::-1]]
        with plane.watch_pipelines("default") as changes:
            shown = [await anext(changes) for _ in range(5)]
            assert [one.id for one in shown if isinstance(one, PipelineView)] == [
                one.id for one in before
            ]
            assert isinstance(shown[-1], SnapshotEnd)
            await plane.cancel(refs[3], "enough")
            last = await anext(changes)
            assert isinstance(last, PipelineView)
            assert (last.id, last.state) == (refs[3].pipeline, PipelineState.CANCELLED)
        for ref, view in zip(refs[:3], before, strict=False):
            found = await plane.shown.find(ref)
            assert replace(found, revision=0) == replace(view, revision=0)
            assert plane.shown.pipeline(ref) == found, "what was found is in memory for a while"
            assert (await plane.cancel(ref, "again")).state is PipelineState.CANCELLED
        assert await plane.explain(JobRef("default", refs[0].pipeline, "main")) == ()


async def test_a_queue_that_is_not_read_yet_answers_every_question(tmp_path: Path) -> None:
    """A start reads one page of the queue; a question about the rest waits for that."""
    path = tmp_path / "control.db"
    async with running_plane(path) as plane:
        refs = [await submit(plane, single(f"p{n}"), f"key-{n}") for n in range(9)]

    @contextlib.asynccontextmanager
    async def started() -> AsyncIterator[ControlPlane]:
        async with running_plane(path, PlaneConfig(queue_page=2)) as plane:
            assert plane.leader.machine is not None
            assert plane.leader.machine.memory.has(refs[1])
            assert not plane.leader.machine.memory.has(refs[8])
            yield plane

    async with started() as plane:
        assert (await plane.shown.find(refs[8])).state is PipelineState.QUEUED
    async with started() as plane:
        assert await plane.explain(JobRef("default", refs[8].pipeline, "main")) == ()
    async with started() as plane:
        (again,) = await plane.submit([Submission("default", "key-8", single("p8"))])
        assert isinstance(again, SubmitResult)
        assert (again.repeated, again.view.id) == (True, refs[8].pipeline)
    async with started() as plane:
        assert (await plane.cancel(refs[8], "enough")).state is PipelineState.CANCELLED
    async with started() as plane:
        since = await submit(plane, single("since"))
        await plane.open_session(hello("n1", capacity=Capacity(cpus=8.0)), "s1")
        placed = await assigned(desired(plane, "n1", "s1"), 8)
        assert {one.job_ref.pipeline_ref for one in placed} == {*refs[:8]}
        assert (await plane.shown.find(since)).state is PipelineState.QUEUED


async def test_reading_the_queue_is_no_silence_of_a_node(tmp_path: Path) -> None:
    """A submission reads the rest for longer than a lease; a Hello that waits meanwhile loses nothing."""
    path = tmp_path / "control.db"
    async with running_plane(path) as plane:
        await plane.open_session(hello("a"), "s1")
        await plane.open_session(hello("b"), "s2")
        await submit(plane, single("runs"))
        (attempt,) = await assigned(desired(plane, "a", "s1"), 1)
        await plane.observe("a", "s1", seen(attempt, JobState.RUNNING))
        for name in ("a", "b"):
            await plane.drain(name, drained=True)
        for number in range(9):
            await submit(plane, single(f"p{number}"))
    clock = Clock()
    config = PlaneConfig(queue_page=2)
    async with SqliteStore(path) as sqlite:

        def reading() -> None:
            for _ in range(20):
                clock.advance(config.lease_seconds / 20)
                plane.leader.heartbeat("b", "s3")

        store = BreakableStore(sqlite, reading)
        plane = ControlPlane(
            store=store, config=config, clock=clock, wall=clock.wall, ids=numbered_ids()
        )
        async with plane, asyncio.TaskGroup() as tasks:
            driving = tasks.create_task(plane.run())
            await plane.open_session(hello("b"), "s3")
            submitting = tasks.create_task(submit(plane, single("more")))
            said = Observation(attempt, JobState.RUNNING)
            answer = await plane.open_session(hello("a", said), "s4")
            assert answer.fenced == ()
            await submitting
            view = await plane.shown.find(attempt.job_ref.pipeline_ref)
            assert [one.state for one in view.jobs[0].attempts] == [JobState.RUNNING]
            driving.cancel()


async def test_a_store_that_fails_while_the_queue_is_read_is_read_again(tmp_path: Path) -> None:
    config = PlaneConfig(queue_page=2, store_retry_seconds=0.01)
    async with running_plane(tmp_path / "control.db") as plane:
        refs = [await submit(plane, single(f"p{n}")) for n in range(9)]
    clock = Clock()
    async with SqliteStore(tmp_path / "control.db") as sqlite:
        store = BreakableStore(sqlite)
        plane = ControlPlane(
            store=store, config=config, clock=clock, wall=clock.wall, ids=numbered_ids()
        )
        async with plane, asyncio.TaskGroup() as tasks:
            driving = tasks.create_task(plane.run())
            store.broken = True
            with pytest.raises(StoreFailedError, match="disk is full"):
                await submit(plane, single())
            store.broken = False
            await until(lambda: plane.leader.machine is not None, what="the machine built again")
            await plane.open_session(hello("n1", capacity=Capacity(cpus=9.0)), "s1")
            placed = await assigned(desired(plane, "n1", "s1"), 9)
            assert {one.job_ref.pipeline_ref for one in placed} == {*refs}
            driving.cancel()


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    async with running_plane(path) as plane:
        await plane.open_session(hello("n1"), "s1")
        ref = await submit(plane, single(), "key")
        (attempt,) = await assigned(desired(plane, "n1", "s1"), 1)
        await plane.observe("n1", "s1", seen(attempt, JobState.RUNNING))
        before = plane.shown.pipeline(ref)
    async with running_plane(path) as plane:
        after = plane.shown.pipeline(ref)
        assert after.revision > before.revision
        assert replace(after, revision=0) == replace(before, revision=0)
        assert not plane.shown.node("n1").connected
        assert plane.outbox_grown.is_set(), "what did not leave still has to"
        (again,) = await plane.submit([Submission("default", "key", single())])
        assert isinstance(again, SubmitResult)
        assert again.repeated
        said = Observation(attempt, JobState.RUNNING)
        assert (await plane.open_session(hello("n1", said), "s2")).fenced == ()
        snapshot = await anext(desired(plane, "n1", "s2"))
        assert [one.ref for one in snapshot.assignments] == [attempt]


class BreakableStore:
    """A store whose disk is full whenever `broken` says so."""

    def __init__(self, store: SqliteStore, reading: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._reading = reading
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise StoreFailedError("store could not write: the disk is full")

    async def load(self, new_id: Callable[[], str], queue_page: int) -> Loaded:
        self._check()
        return await self._store.load(new_id, queue_page)

    async def queued(self, after: int, limit: int) -> Sequence[Queued]:
        self._check()
        self._reading()
        return await self._store.queued(after, limit)

    async def find(
        self, refs: Sequence[PipelineRef], requests: Sequence[RequestKey] = ()
    ) -> FoundRows:
        return await self._store.find(refs, requests)

    async def page(
        self, query: PipelineQuery, limit: int, behind: PageKey | None = None
    ) -> PageFound:
        return await self._store.page(query, limit, behind)

    async def summaries(
        self, refs: Sequence[PipelineRef], revision: int = 0
    ) -> Sequence[PipelineSummary]:
        return await self._store.summaries(refs, revision)

    async def commit(self, rows: Sequence[Row]) -> None:
        self._check()
        await self._store.commit(rows)

    async def outbox(self, limit: int = 100, after: int = 0) -> Sequence[OutboxRow]:
        return await self._store.outbox(limit, after)

    async def objects_waiting(self, limit: int, after: int) -> ObjectsWaiting:
        return await self._store.objects_waiting(limit, after)

    async def kept_names(self) -> KeptNames:
        return await self._store.kept_names()

    async def stored(
        self, keys: Sequence[tuple[str, str, int]], *, content: bool
    ) -> Sequence[StoredVersionRow]:
        return await self._store.stored(keys, content=content)

    async def mark_published(
        self, sequences: Sequence[int], aside: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self._check()
        await self._store.mark_published(sequences, aside)

    async def spans(self, limit: int) -> Sequence[SpansRow]:
        return await self._store.spans(limit)

    async def drop_spans(self, through: int, kept: int) -> int:
        self._check()
        return await self._store.drop_spans(through, kept)

    async def events(
        self, query: EventQuery, place: int, limit: int, *, newest_first: bool = False
    ) -> EventsRead:
        return await self._store.events(query, place, limit, newest_first=newest_first)

    async def events_forgotten_through(self) -> int:
        return await self._store.events_forgotten_through()


async def test_a_failing_store_refuses_with_its_reason_and_recovers(tmp_path: Path) -> None:
    clock = Clock()
    config = PlaneConfig(store_retry_seconds=0.01)
    async with SqliteStore(tmp_path / "control.db") as sqlite:
        store = BreakableStore(sqlite)
        plane = ControlPlane(
            store=store, config=config, clock=clock, wall=clock.wall, ids=numbered_ids()
        )
        async with plane, asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(plane.run())
            plane.member_verdict("n1", MemberState.ALIVE)
            await plane.open_session(hello("n1"), "s1")
            updates = desired(plane, "n1", "s1")
            await anext(updates)
            kept = await submit(plane, single())
            with plane.watch_pipelines("default") as changes:
                await anext(changes)
                await anext(changes)
                store.broken = True
                with pytest.raises(StoreFailedError, match="disk is full"):
                    await submit(plane, single())
                with pytest.raises(StoreFailedError):
                    await anext(changes)
            with pytest.raises(StoreFailedError, match="disk is full"):
                await submit(plane, single())
            assert plane.shown.pipeline(kept).state is PipelineState.QUEUED, "reading goes on"
            with pytest.raises(SessionEndedError):
                async for _ in updates:
                    pass
            store.broken = False

            async def works() -> bool:
                try:
                    await plane.open_session(hello("n1"), "s2")
                except StoreFailedError:
                    return False
                return True

            await until(works, 10, "the store works again")
            await submit(plane, single())
            assert len((await plane.shown.pipelines(PipelineQuery("default"))).items) == 2, (
                "nothing of the failed one happened"
            )
            assert plane.shown.node("n1").member_state is MemberState.ALIVE, (
                "gossip is not forgotten"
            )
            loop.cancel()


async def test_whoever_waits_is_let_go_at_the_end(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await plane.open_session(hello("n1"), "s1")
        updates = desired(plane, "n1", "s1")
        await anext(updates)
    with pytest.raises(SessionEndedError, match="shutting down"):
        await anext(updates)
    with pytest.raises(ClosingError):
        await submit(plane, single())


async def test_a_thousand_submissions_share_commits(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        await asyncio.gather(*(submit(plane, single(f"p{n}"), f"k{n}") for n in range(1000)))
        assert len((await plane.shown.pipelines(PipelineQuery("default"), 1000)).items) == 1000


class TestPoison:
    """T4: an event that makes the machine raise, or a row that no store holds, costs its caller."""

    async def test_t4_a_row_that_cannot_be_written_answers_its_own_call(
        self, tmp_path: Path
    ) -> None:
        async with running_plane(tmp_path / "control.db") as plane:
            await plane.open_session(hello("n1"), "s1")
            poison = replace(hello("n2"), capacity=Capacity(1.0, 2**63))
            innocent, culprit, other = await asyncio.gather(
                submit(plane, single("one")),
                plane.open_session(poison, "s2"),
                submit(plane, single("two")),
                return_exceptions=True,
            )
            assert isinstance(culprit, InternalError), culprit
            assert "OverflowError" in str(culprit)
            for ref in (innocent, other):
                assert isinstance(ref, PipelineRef), ref
                assert (await plane.shown.find(ref)).state is PipelineState.QUEUED
            assert [node.name for node in plane.shown.nodes()] == ["n1"]
            # Its sessions are over, and agents dial again; the poisoned node is refused for a while.
            with pytest.raises(SessionEndedError):
                await anext(desired(plane, "n1", "s1"))
            await plane.open_session(hello("n1"), "s3")
            with pytest.raises(InternalError, match="node n2 is set aside"):
                await plane.open_session(hello("n2"), "s4")

    async def test_t4_an_event_that_raises_costs_its_caller_alone(self, tmp_path: Path) -> None:
        clock = Clock()
        async with running_plane(tmp_path / "control.db", clock=clock) as plane:
            await plane.open_session(hello("n1"), "s1")
            good, bad = await submit(plane, single("good")), await submit(plane, single("bad"))
            attempts = {one.pipeline: one for one in await assigned(desired(plane, "n1", "s1"), 2)}
            ref = attempts[bad.pipeline]
            nothing = cast("Any", None)  # what no decoder lets pass
            broken = Observation(ref, JobState.SUCCEEDED, artifacts=(nothing,))
            with pytest.raises(InternalError, match="AttributeError"):
                await plane.observe("n1", "s1", [broken])
            with pytest.raises(InternalError, match="node n1 is set aside for 5 s"):
                await plane.open_session(hello("n1"), "s2")
            clock.now += 6
            running = [Observation(one, JobState.RUNNING) for one in attempts.values()]
            assert (await plane.open_session(hello("n1", *running), "s2")).fenced == ()
            done = seen(attempts[good.pipeline], JobState.SUCCEEDED)
            assert await plane.observe("n1", "s2", done) == ()
            assert plane.shown.pipeline(good).state is PipelineState.SUCCEEDED
            assert plane.shown.pipeline(bad).state is PipelineState.RUNNING
