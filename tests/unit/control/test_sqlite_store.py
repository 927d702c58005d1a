"""The SQLite store on real files: what was written comes back, failures surface, nobody shares."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from control.core.errors import RowError, StoreFailedError
from control.core.event_query import EventQuery
from control.core.rows import (
    AttemptRow,
    JobRow,
    KnownRequest,
    ManifestRow,
    NodeRow,
    OutboxKind,
    OutboxRow,
    OutboxWaiting,
    PipelineAdded,
    PipelineForgotten,
    PipelineRow,
    ScaleRow,
    StartRow,
)
from control.store import schema
from control.store.sqlite import SqliteStore
from control.store.store import OUTBOX_BYTES, may_go_on
from shoal.model import (
    Capacity,
    DeadLetter,
    JobState,
    PipelineState,
    Reason,
    ReasonCode,
    ScaleState,
)
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.port_hold import PortHold
from tests.unit.control.world import BEGAN, artifact, counter

REF = PipelineRef("default", "counter-1")
ATTEMPT = AttemptRef("default", "counter-1", "camera", 1, 1)
LATER = BEGAN + timedelta(seconds=1.000001)

ADDED = PipelineAdded(
    *(REF, 1, "key", counter(), BEGAN),
    digest="digest",
    creator="submitter/ann",
    listings={"camera/task": "ab" * 32},
)
PIPELINE = PipelineRow(
    REF,
    PipelineState.FAILED,
    Reason(ReasonCode.EXIT, 3, "it broke"),
    Reason(ReasonCode.NEIGHBOUR, 0, "camera broke"),
    LATER,
    "an/id",
)
JOB = JobRow(
    ATTEMPT.job_ref,
    JobState.RETRY_WAIT,
    Reason(ReasonCode.SIGNAL, 9, "é\x00💥"),
    epoch=3,
    number=3,
    failures=1,
    losses=1,
    retry_time=LATER,
    pinned_node="n1",
    avoid=("n2", "n3"),
)
HELD = (PortHold("out", 2, 7, ended=True),)
TRIED = AttemptRow(
    ATTEMPT, "n1", JobState.FAILED, BEGAN, Reason(ReasonCode.EXIT, 1), LATER, LATER, HELD, ("in",)
)
MANIFEST = ManifestRow("a/key", ATTEMPT, (artifact(ATTEMPT),), LATER)
NODE = NodeRow(
    "n1",
    "agent-1",
    Capacity(2.5, 1 << 40, ("gpu", "video", "video")),
    {"role": "camera"},
    "aarch64",
    "host:1",
    "0.1",
    "member-1",
    drained=True,
    last_seen_time=LATER,
)


def fact(sequence: int, kind: OutboxKind = OutboxKind.EVENT) -> OutboxRow:
    return OutboxRow(
        kind, "default", REF.name, f"id-{sequence}", LATER, "{}", "shoal.x", "k", sequence
    )


async def test_everything_comes_back_after_reopening(tmp_path: Path) -> None:
    rows = (ADDED, PIPELINE, JOB, TRIED, MANIFEST, NODE, fact(7))
    async with SqliteStore(tmp_path / "c.db") as store:
        assert (await store.load(lambda: "id", 100)).starts == (StartRow(1, "id"),)
        await store.commit(rows)
    async with SqliteStore(tmp_path / "c.db") as store:
        loaded = await store.load(lambda: "id", 100)
        assert [start.term for start in loaded.starts] == [1, 2]
        assert (loaded.next_position, loaded.next_sequence) == (2, 8)
        assert (loaded.rows.added, loaded.queued, loaded.ended) == ((), (), (REF,))
        assert loaded.nodes == (NODE,)
        found = await store.find([REF, PipelineRef("default", "other")])
        assert found.rows.added == (ADDED,)
        assert found.rows.pipelines == (PIPELINE,)
        assert found.rows.jobs == (JOB,)
        assert found.rows.attempts == (TRIED,)
        assert found.rows.manifests == (MANIFEST,)
        assert await store.outbox() == (fact(7),)


async def test_a_later_row_replaces_an_earlier_one(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([ADDED, JOB, replace(JOB, epoch=4), NODE])
        await store.commit([replace(JOB, epoch=5), replace(NODE, drained=False)])
        loaded = await store.load(lambda: "id", 100)
        assert [row.epoch for row in loaded.rows.jobs] == [5]
        assert [row.drained for row in loaded.nodes] == [False]


async def test_what_the_store_names_in_the_archive_is_read_in_one_go(tmp_path: Path) -> None:
    other = PipelineRef("default", "other-1")
    waiting = replace(
        ADDED,
        ref=other,
        position=ADDED.position + 1,
        request_id="",
        spec=replace(ADDED.spec, bundle_digest="b" * 64),
        listings={"a/task": "c" * 64},
    )
    asked = (
        replace(fact(8, OutboxKind.MANIFEST), key="m1"),
        replace(fact(9, OutboxKind.COPIES), key="m2"),
    )
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([ADDED, PIPELINE, waiting, *asked, fact(10)])
        kept = await store.kept_names()
        # The first has ended, so it names its bundle and no more.
        assert kept.spared == {("default", "other-1")}
        assert kept.bundles >= {"b" * 64}
        assert kept.listings >= {"c" * 64}
        assert kept.awaited == {"m1", "m2"}
        await store.commit([replace(PIPELINE, dead_letter=DeadLetter.KEPT)])
        await store.mark_published([8, 9])
        kept = await store.kept_names()
        assert kept.spared == {("default", "other-1"), (REF.namespace, REF.pipeline)}
        assert kept.awaited == frozenset()


async def test_what_waits_for_the_archive_is_read_without_the_events_around_it(
    tmp_path: Path,
) -> None:
    manifests = [fact(n, OutboxKind.MANIFEST) for n in (2, 5, 6)]
    async with SqliteStore(tmp_path / "c.db") as store:
        assert await store.objects_waiting(10, 0) == ([], 0, False)
        await store.commit([fact(1), *manifests[:1], fact(3), fact(4, OutboxKind.COPIES)])
        await store.commit([*manifests[1:], *(fact(n) for n in range(7, 10))])
        copies = fact(4, OutboxKind.COPIES)
        whole = [manifests[0], copies, *manifests[1:]]
        assert await store.objects_waiting(10, 0) == (whole, 9, False)
        assert await store.objects_waiting(2, 0) == (whole[:2], 4, True)
        assert await store.objects_waiting(2, 4) == (whole[2:], 6, True)
        assert await store.objects_waiting(2, 6) == ([], 9, False)
        await store.mark_published([2, 5, 6])
        assert await store.objects_waiting(10, 0) == ([copies], 9, False)


async def test_manifests_that_wait_are_read_a_part_at_a_time_if_they_are_large(
    tmp_path: Path,
) -> None:
    large = "x" * (OUTBOX_BYTES // 2)
    rows = [replace(fact(n, OutboxKind.MANIFEST), data=large) for n in (1, 2, 3)]
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit(rows)
        assert await store.objects_waiting(10, 0) == (rows[:2], 2, True)
        assert await store.objects_waiting(10, 2) == (rows[2:], 3, False)


async def test_published_events_stay_for_a_while_and_manifests_do_not(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db", events_kept=5) as store:
        await store.commit([fact(1, OutboxKind.MANIFEST), *(fact(n) for n in range(2, 5))])
        await store.mark_published([1, 2])
        assert [row.sequence for row in await store.outbox()] == [3, 4]
        assert [row.sequence for row in await store.outbox(limit=1, after=3)] == [4]
        waiting = await store.outbox_waiting()
        assert waiting == OutboxWaiting(2, fact(3).time)
        events = (await store.events(EventQuery("default", "counter-1"), 0, 10)).events
        assert [(event.sequence, event.published) for event in events] == [
            (2, True),
            (3, False),
            (4, False),
        ]
        assert (await store.events(EventQuery("default", "other"), 0, 10)).events == ()
        assert (await store.events(EventQuery("other", ""), 0, 10)).events == ()
        await store.commit([fact(n) for n in range(5, 12)])
        await store.mark_published([3, 11])
        events = (await store.events(EventQuery("default", ""), 0, 100)).events
        assert [event.sequence for event in events] == [4, 5, 6, 7, 8, 9, 10, 11]
    async with SqliteStore(tmp_path / "c.db") as store:
        assert (await store.load(lambda: "id", 100)).next_sequence == 12, (
            "numbers are never taken again"
        )


async def test_what_leaves_late_is_pushed_out_at_once_and_what_waits_is_kept(
    tmp_path: Path,
) -> None:
    """Of rows that newer ones have pushed past the limit, those that have left are gone, in whatever order."""
    async with SqliteStore(tmp_path / "c.db", events_kept=5) as store:
        await store.commit([fact(n) for n in range(1, 21)])
        await store.mark_published([16])
        assert [row.sequence for row in await store.outbox()][:15] == [*range(1, 16)]
        await store.mark_published([3, 15, 17], {3: "too large"})
        await store.commit([fact(n) for n in range(21, 25)])
        await store.mark_published([1, 24])
        kept = (await store.events(EventQuery("default", ""), 0, 100)).events
        left = [event.sequence for event in kept if event.published or event.problem]
        assert left == [24], "16 and 17 were pushed out by 24"
        assert [row.sequence for row in await store.outbox()] == [
            *(2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 19, 20, 21, 22, 23)
        ]


async def test_large_rows_are_read_a_few_at_a_time_and_none_is_passed_over(tmp_path: Path) -> None:
    large = "x" * (OUTBOX_BYTES // 2)
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([replace(fact(n), data=large if n < 4 else "{}") for n in range(1, 7)])
        after, pages = 0, list[list[int]]()
        while rows := await store.outbox(100, after):
            pages.append([row.sequence for row in rows])
            after = rows[-1].sequence
            assert may_go_on(rows, 100) == (len(pages) == 1)
        assert pages == [[1, 2], [3, 4, 5, 6]]


async def test_a_forgotten_pipeline_leaves_nothing_but_its_facts_and_its_request(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([ADDED, PIPELINE, JOB, TRIED, MANIFEST, NODE, fact(1)])
        await store.commit([PipelineForgotten(REF)])
        assert (await store.load(lambda: "id", 100)).ended == ()
        key = ("default", ADDED.request_id)
        found = await store.find([REF], [key])
        left = (
            *found.rows.added,
            *found.rows.pipelines,
            *found.rows.jobs,
            *found.rows.attempts,
            *found.rows.manifests,
        )
        assert left == ()
        assert found.requests == {key: KnownRequest(REF, "digest", None, PIPELINE.state)}
        assert len(await store.outbox()) == 1


async def test_u10_a_state_takes_the_place_of_one_of_its_subject_that_has_not_left(
    tmp_path: Path,
) -> None:
    def state(sequence: int, subject: str = "nodes/n1", namespace: str = "") -> OutboxRow:
        row = fact(sequence, OutboxKind.STATE)
        return replace(row, subject=subject, namespace=namespace)

    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([state(1), fact(2)])
        await store.mark_published([1])
        await store.commit([state(3), state(4, "nodes/n2"), state(5, namespace="other")])
        await store.commit([state(6), state(7), fact(8)])
        assert [row.sequence for row in await store.outbox()] == [2, 4, 5, 7, 8]
        listed = (await store.events(EventQuery("default", ""), 0, 100)).events
        assert [event.sequence for event in listed] == [1, 2, 4, 7, 8], "those of nodes, too"
        listed = (await store.events(EventQuery("default", REF.pipeline), 0, 100)).events
        assert [event.sequence for event in listed] == [2, 8]


async def test_a_request_id_is_remembered_for_fifteen_days(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([ADDED])
        key, other = ("default", ADDED.request_id), ("default", "other")
        for number, days in enumerate((1, 14, 15), start=2):
            ref = PipelineRef("default", f"other-{number}")
            later = ADDED.create_time + timedelta(days=days)
            await store.commit(
                [replace(ADDED, ref=ref, position=number, request_id="", create_time=later)]
            )
            assert key in (await store.find([], [key, other])).requests
        ref = PipelineRef("default", "last")
        later = ADDED.create_time + timedelta(days=15, seconds=1)
        await store.commit(
            [replace(ADDED, ref=ref, position=9, request_id="other", create_time=later)]
        )
        assert list((await store.find([], [key, other])).requests) == [other]


async def test_of_a_long_queue_only_names_are_loaded(tmp_path: Path) -> None:
    names = [PipelineRef("default", f"p{number}") for number in range(4)]
    async with SqliteStore(tmp_path / "c.db") as store:
        for number, ref in enumerate(names, start=1):
            added = replace(
                ADDED, ref=ref, position=number, request_id="", kind="" if number == 4 else "k"
            )
            await store.commit([added])
        await store.commit(
            [replace(JOB, ref=JobRef("default", "p1", "camera"), state=JobState.QUEUED)]
        )
        loaded = await store.load(lambda: "id", 100)
        assert [row.ref for row in loaded.queued] == [names[0], names[2]]
        assert [row.ref for row in loaded.rows.added] == [names[1], names[3]], (
            "touched, or of unknown kind"
        )
        begun = loaded.begin(loaded.queued[0])
        assert begun is not None
        assert (begun.ref, begun.spec, begun.kind) == (names[0], ADDED.spec, "k")


async def test_one_bad_transaction_does_not_spoil_those_that_share_its_commit(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        outcomes = await asyncio.gather(
            *(store.commit([fact(number)]) for number in (1, 2, 2, 3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes].count(RowError) == 1
        assert [row.sequence for row in await store.outbox()] == [1, 2, 3]


async def test_a_transaction_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        with pytest.raises(RowError, match="UNIQUE constraint failed"):
            await store.commit([ADDED, fact(1), fact(1)])
        assert (await store.load(lambda: "id", 100)).rows.added == ()


async def test_a_full_disk_is_said_and_passes(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([fact(1)])
        big = replace(fact(2), data="x" * 12_000_000)  # more than the store's own room
        # SQLite's own way to run out of room: no more pages than there are.
        await store._write(lambda connection: _limit(connection, 0))
        with pytest.raises(StoreFailedError, match=r"disk is full; make room there"):
            await store.commit([big])
        await store._write(lambda connection: _limit(connection, 1_000_000))
        await store.commit([big])
        assert len(await store.outbox()) == 2


def _limit(connection: sqlite3.Connection, pages: int) -> None:
    connection.execute(f"PRAGMA max_page_count = {pages or 1}")


async def test_a_store_belongs_to_one_controller(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db"):
        with pytest.raises(StoreFailedError, match="belongs to a controller that is running"):
            async with SqliteStore(tmp_path / "c.db"):
                pass
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.load(lambda: "id", 100)


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFailedError, match="has version 99"):
        async with SqliteStore(path):
            pass


async def test_a_store_of_an_earlier_version_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"{schema.STEPS[0]} PRAGMA user_version = 1;")
    connection.close()
    ref = PipelineRef("default", "p")
    row = ScaleRow(ref, 1, "main", 3, ScaleState.SETTLED, BEGAN, rounds=7, end_time=BEGAN)
    async with SqliteStore(path) as store:
        await store.commit([replace(ADDED, ref=ref), row])
    async with SqliteStore(path) as store:
        assert (await store.find([ref])).rows.scales == (row,)


async def test_events_of_an_earlier_version_are_found_by_their_pipeline_and_none_is_numbered_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.db"
    connection = sqlite3.connect(path)
    connection.executescript("".join(schema.STEPS[:18]))
    connection.executescript(
        """
        INSERT INTO pipelines (position, namespace, id, request_id, spec, create_time, state)
            VALUES (3, 'default', 'counter-1', '', x'', 0, 1);
        INSERT INTO outbox VALUES
            (5, 'event', 'default', 'counter-1', 'pipelines/counter-1', 'a', 'x', 0, '', '{}', 1, ''),
            (6, 'event', 'default', 'gone-1', 'pipelines/gone-1', 'b', 'x', 0, '', '{}', 1, ''),
            (7, 'event', 'default', 'counter-1', 'pipelines/counter-1', 'c', 'x', 0, '', '{}', 0, 'why'),
            (9, 'note', '', 'ann', 'callers/ann', 'd', 'x', 0, '', '{}', 0, '');
        DELETE FROM outbox WHERE sequence = 9;
        PRAGMA user_version = 18;
        """
    )
    connection.close()
    async with SqliteStore(path) as store:
        found = (await store.events(EventQuery("default", "counter-1"), 0, 10)).events
        assert [(one.sequence, one.published, one.problem) for one in found] == [
            (5, True, ""),
            (7, False, "why"),
        ]
        for pipeline, after, wanted in (
            ("counter-1", 5, [7]),
            ("gone-1", 0, [6]),
            ("", 0, [5, 6, 7]),
        ):
            read = await store.events(EventQuery("default", pipeline), after, 10)
            assert [one.sequence for one in read.events] == wanted
        assert [row.sequence for row in await store.outbox()] == [7]
        assert (await store.load(lambda: "id", 100)).next_sequence == 10


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"this is a letter to my aunt" * 100)
    with pytest.raises(StoreFailedError, match="not a database"):
        async with SqliteStore(path):
            pass
    with pytest.raises(StoreFailedError, match="could not open"):
        async with SqliteStore(tmp_path / "no" / "such" / "folder" / "c.db"):
            pass


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db")
    with pytest.raises(StoreFailedError, match="closed"):
        await store.commit([])
    with pytest.raises(StoreFailedError, match="closed"):
        await store.outbox()


async def test_many_commits_share_few_transactions(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await asyncio.gather(*(store.commit([fact(number)]) for number in range(1, 2001)))
        assert len(await store.outbox(limit=10_000)) == 2000


async def test_whoever_stops_waiting_harms_nobody(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        impatient = [asyncio.ensure_future(store.commit([fact(n)])) for n in range(1, 50)]
        for task in impatient[::2]:
            task.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
        await store.commit([fact(100)])
        sequences = {row.sequence for row in await store.outbox()}
        assert {2, 4, 48, 100} <= sequences


@pytest.mark.parametrize("count", [1, 2, 33, 70])
async def test_rows_that_are_written_together_are_all_there_in_their_order(
    tmp_path: Path, count: int
) -> None:
    async with SqliteStore(tmp_path / "control.db") as store:
        await store.commit([fact(number) for number in range(1, count + 1)])
        found = await store.outbox(limit=1000)
        assert [row.sequence for row in found] == list(range(1, count + 1))
        assert list(found) == [fact(number) for number in range(1, count + 1)]
